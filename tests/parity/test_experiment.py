"""The derived rule accepts every right implementation and catches every planted bug; fixed rules do not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from autograder.oracle import compare
from autograder.parity.cases import DTYPES, Shape, draw_inputs
from autograder.parity.comparison import Oracle
from autograder.parity.experiment import Experiment, run, run_experiment
from autograder.parity.experiment.bugs import BUGS, NO_OPS
from autograder.parity.experiment.right import RIGHT
from autograder.parity.experiment.rules import DERIVED, RULES, Bench

ESCAPES: dict[str, tuple[str, ...]] = {}
"""The bugs that the derived rule lets pass at this size, with their precisions. Known, and to be kept true."""


@pytest.fixture(scope="module")
def quick() -> Experiment:
    return run_experiment(quick=True)


def test_every_right_implementation_is_accepted(quick: Experiment) -> None:
    outcome = quick.outcomes[DERIVED]
    assert outcome.refused == {}
    assert outcome.accepted == quick.right_runs == 12 * (3 * len(RIGHT) + len(RIGHT) - 3)
    assert 0.2 < outcome.worst < 0.9, outcome.worst_at


def test_every_planted_bug_is_caught_but_for_the_known_ones(quick: Experiment) -> None:
    assert quick.escapes(DERIVED) == ESCAPES
    assert set(quick.tried) == {bug.name for bug in BUGS}
    assert quick.planted == sum(len(tried) for bug, tried in quick.tried.items() if bug not in NO_OPS) > 150
    assert quick.caught(DERIVED) == quick.planted


def test_what_is_no_bug_is_not_accused(quick: Experiment) -> None:
    assert not quick.outcomes[DERIVED].accused


def test_the_figures_can_be_written_down(quick: Experiment) -> None:
    figures = quick.to_dict()
    assert figures["rules"][DERIVED]["escapes"] == ESCAPES
    assert set(figures["bugs"]["delta is missing"]) == set(DTYPES)


def ratio(rule: str, implementation: str, distribution: str, precision: str) -> float:
    """The worst ratio of any quantity, for one shape."""
    shape = Shape(1, 4, 2, 33, 70, 64)
    bench = Bench(Oracle(draw_inputs(distribution, shape, precision, seed=5), precision))
    one = next(one for one in (*RIGHT, *BUGS) if one.name == implementation)
    results = one.run(bench.oracle.inputs, precision)
    return max(RULES[rule](bench, name, x, one.baseline) for name, x in results.items())


ESCAPED: dict[str, tuple[str, str, str]] = {
    "atol 1e-2": ("scores rounded to half precision", "normal", "float16"),
    "rtol = atol = 1e-2": ("weights of too few bits", "normal", "float16"),
    "2 x eager + atol": ("scores rounded to half precision", "normal", "bfloat16"),
}


@pytest.mark.parametrize("rule", ESCAPED)
def test_fixed_rules_let_bugs_pass_that_the_derived_rule_catches(rule: str) -> None:
    assert ratio(rule, *ESCAPED[rule]) <= 1.0
    bug, _, precision = ESCAPED[rule]
    assert (
        max(ratio(DERIVED, bug, distribution, precision) for distribution in ("large offset", "peaked")) > 1.0
    )


@pytest.mark.parametrize("rule", ["torch.allclose", "assert_close", "atol 1e-2", "rtol = atol = 1e-2"])
def test_fixed_rules_refuse_right_implementations(rule: str) -> None:
    assert ratio(rule, "blocks of 16", "heavy-tailed", "bfloat16") > 1.0
    assert ratio(DERIVED, "blocks of 16", "heavy-tailed", "bfloat16") <= 1.0


def test_normal_numbers_alone_do_not_show_a_missing_maximum() -> None:
    for bug in ("no maximum is taken off", "the maximum of the first block is kept"):
        for precision in DTYPES:
            assert ratio(DERIVED, bug, "normal", precision) <= 1.0
        assert ratio(DERIVED, bug, "huge", "float32") > 1.0


@pytest.mark.parametrize("spoil", [lambda x: x * torch.nan, lambda x: x + 1e30, torch.zeros_like])
@pytest.mark.parametrize("quantity", ["output", "log_sum_exp", "d_query", "d_key", "d_value"])
def test_each_quantity_counts(quantity: str, spoil: Callable[[torch.Tensor], torch.Tensor]) -> None:
    oracle = Oracle(draw_inputs("dead rows", Shape(1, 4, 2, 9, 13, 32), "float16"), "float16")
    right = dict(RIGHT[4].run(oracle.inputs, "float16"))
    assert oracle.compare(quantity, right[quantity]).close
    assert not oracle.compare(quantity, spoil(right[quantity])).close


def test_a_log_sum_exp_of_a_dead_row_must_be_minus_infinity() -> None:
    oracle = Oracle(draw_inputs("dead rows", Shape(1, 2, 2, 9, 13, 32), "float32"), "float32")
    right = RIGHT[4].run(oracle.inputs, "float32")["log_sum_exp"]
    assert bool((right == -torch.inf).any())
    assert not oracle.compare("log_sum_exp", right.clamp_min(-1e4)).close
    assert not oracle.compare("log_sum_exp", right.abs()).close


def test_what_must_be_zero_must_be_exactly_zero() -> None:
    oracle = Oracle(draw_inputs("dead rows", Shape(1, 2, 2, 9, 13, 32), "float32"), "float32")
    right = RIGHT[4].run(oracle.inputs, "float32")["output"]
    dead = oracle.exact["output"].magnitude == 0
    assert bool(dead.any())
    assert not oracle.compare("output", right + 1e-37 * dead).close
    assert oracle.compare("output", right + 1e-37 * ~dead).close


def test_one_baseline_is_a_chance_draw() -> None:
    # Equal weights of neighbours round alike, and cancel, but where a split comes between them.
    oracle = Oracle(draw_inputs("cancelling", Shape(1, 2, 2, 65, 65, 64, True), "bfloat16"), "bfloat16")
    splits = next(one for one in RIGHT if one.name == "three splits, merged")
    output = splits.run(oracle.inputs, "bfloat16")["output"]
    assert oracle.compare("output", output).ratio < 0.8
    nearest = [oracle.baselines("fused")[0]["output"]]
    assert compare(output, oracle.exact["output"], nearest, torch.bfloat16).ratio > 1.0


@pytest.mark.parametrize("ratio_of_all", [math.inf, 0.0])
def test_a_rule_that_rejects_or_accepts_everything_catches_nothing(
    ratio_of_all: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(run.RULES, DERIVED, lambda *arguments: ratio_of_all)  # type: ignore[arg-type]
    monkeypatch.setattr(run, "QUICK_DISTRIBUTIONS", ("normal",))
    found = run_experiment(quick=True)
    outcome = found.outcomes[DERIVED]
    assert found.caught(DERIVED) == 0
    assert len(found.escapes(DERIVED)) == len(found.tried) - len(NO_OPS)
    assert outcome.usable == (0 if ratio_of_all else found.cases)
    assert outcome.accepted == (0 if ratio_of_all else found.right_runs)
    assert outcome.accused == (set(NO_OPS) & set(found.tried) if ratio_of_all else set())
