"""Functions of positions: what they give on whole grids of indices, and whether a compiler could take them apart."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.conduct import watched
from autograder.checks.failure import Failure
from autograder.checks.structure import attempt
from autograder.checks.trial import Trial

__all__ = ["PYTHON_IF", "has_dtype", "on_grids", "traceable"]

PYTHON_IF = "a Python if on tensors"
ASKS = (
    "Boolean value of Tensor",
    "cannot be converted to Scalar",
    "only one element tensors",
    "only integer tensors",
)
LOOKS = frozenset(
    {
        "__bool__",
        "is_nonzero",
        "item",
        "_local_scalar_dense",
        "tolist",
        "numpy",
        "__int__",
        "__float__",
        "__index__",
    }
)
PICKS = frozenset({"nonzero", "masked_select", "argwhere"})


def on_grids(name: str, claim: str) -> Probe:
    """The result is the formula's for every pair of indices at once. Tells code that asks a tensor for its truth value."""

    def probe(trial: Trial) -> None:
        results = attempt(trial)
        if not isinstance(results, Failure):
            trial.require(name, results[name], claim)
            return
        if results.errored and any(text in results.message for text in ASKS):
            raise Failure(
                f"with whole grids of indices it {results.message} The indices are tensors: `if`, `and`, `or` and `not` "
                "need a single truth value. Is it &, |, ~ and torch.where that you want?",
                mistake=PYTHON_IF,
                errored=True,
            )
        raise results

    return probe


def traceable(name: str, claim: str) -> Probe:
    """With single indices, too, the result is the formula's and nothing looks at their values. For scalar cases.

    Under vmap a tensor has no value to look at, and how many elements a mask picks is not known.
    """

    def probe(trial: Trial) -> None:
        trial.require(name, trial()[name], claim)
        calls = watched(trial).calls
        if looked := calls & LOOKS:
            raise Failure(
                f"looks at the value of a tensor ({', '.join(sorted(looked))}), which has none under vmap. Is there an `if`, "
                "an `and`, a call of bool(), int() or .item()? Use &, |, ~ and torch.where.",
                mistake=PYTHON_IF,
            )
        if picked := calls & PICKS:
            raise Failure(
                f"picks elements by a mask ({', '.join(sorted(picked))}); under vmap their number is not known. "
                "Is it torch.where(condition, a, b)?",
                mistake="indexing by a mask",
            )
        size = max(v.numel() for v in trial.inputs.values() if isinstance(v, Tensor))
        if (got := watched(trial).largest) > 4 * size:
            raise Failure(
                f"makes a tensor of {got:,} numbers for {size}. It is called for one pair at a time: is there a table of all "
                "pairs, or a list of constants, to be looked up?",
                mistake="a table where a formula is meant",
            )

    return probe


def has_dtype(name: str, dtype: torch.dtype) -> Probe:
    """The result has this dtype."""

    def probe(trial: Trial) -> None:
        got = trial()[name].dtype
        if got != dtype:
            raise Failure(
                f"{name} is {_short(got)}; it must be {_short(dtype)}.", mistake="result of another dtype"
            )

    return probe


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
