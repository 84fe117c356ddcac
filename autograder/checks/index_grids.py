"""Functions of positions: what they give on whole grids of indices, and whether a compiler could take them apart."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.conduct import observed
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
        "equal",
        "allclose",
    }
)
PICKS = frozenset({"nonzero", "argwhere", "masked_select", "masked_scatter", "__setitem__"})
WRITES = re.compile(r"__i(and|or|xor|add|sub|mul|truediv|floordiv|mod|pow)__|[a-z][a-z_]*[a-z]_")
"""Names of functions that write into a tensor."""
OWN = frozenset({"requires_grad_", "detach_", "fill_", "copy_"})
"""Such that torch itself calls on the way to a new tensor."""
FEW = 256
"""Numbers in a tensor that a function of one pair may make: constants for each head, not for each pair."""


def on_grids(name: str, claim: str) -> Probe:
    """The result is the formula's for every pair of indices at once. Tells code that asks a tensor for its truth value."""

    def probe(trial: Trial) -> None:
        results = attempt(trial)
        if not isinstance(results, Failure):
            trial.require(name, results[name], claim)
            return
        if results.errored and any(text in results.message for text in ASKS):
            raise Failure(
                f"with whole grids of indices it {results.message.rstrip('.')}. The indices are tensors: `if`, `and`, `or` "
                "and `not` need a single truth value. Is it &, |, ~ and torch.where that you want?",
                mistake=PYTHON_IF,
                errored=True,
            )
        raise results

    return probe


def traceable(name: str, claim: str) -> Probe:
    """For a single pair, too, the result is the formula's, and nothing looks at its values. For cases of one pair.

    Under vmap a tensor has no value to look at, and how many elements a mask picks is not known. The indices of the case
    have one axis of one element: an index without axes is looked at by a plain `slopes[head]`, which vmap can do.
    """

    def probe(trial: Trial) -> None:
        trial.require(name, trial()[name], claim)
        bare: dict[str, Any] = {n: v.squeeze(0) for n, v in trial.inputs.items() if isinstance(v, Tensor)}
        trial.require(name, trial(**bare)[name], f"without any axis it {claim}", **bare)
        seen = observed(trial)
        if looked := seen.calls & LOOKS:
            raise Failure(
                f"looks at the value of a tensor ({', '.join(sorted(looked))}), which has none under vmap. Is there an `if`, "
                "an `and`, a call of bool(), int() or .item()? Use &, |, ~ and torch.where.",
                mistake=PYTHON_IF,
            )
        if picked := seen.calls & PICKS:
            raise Failure(
                f"picks elements by a mask, or writes into a tensor ({', '.join(sorted(picked))}); under vmap that is not "
                "possible. Is it torch.where(condition, a, b)?",
                mistake="indexing by a mask",
            )
        if written := sorted(call for call in seen.calls if WRITES.fullmatch(call) and call not in OWN):
            raise Failure(
                f"writes into a tensor ({', '.join(written)}); under vmap that is not always possible. Is it a new tensor, "
                "as of a + b or a & b, that you want?",
                mistake="writes into a tensor",
            )
        if seen.largest > FEW:
            raise Failure(
                f"makes a tensor of {seen.largest:,} numbers for a single pair. Is there a table of all pairs? "
                "It is called for one pair at a time.",
                mistake="a table where a formula is meant",
            )

    return probe


def has_dtype(name: str, dtype: torch.dtype) -> Probe:
    """The result has this dtype."""
    return lambda trial: _require_dtype(trial, name, dtype)


def _require_dtype(trial: Trial, name: str, dtype: torch.dtype) -> None:
    got = trial()[name].dtype
    if got != dtype:
        raise Failure(
            f"{name} is {_short(got)}; it must be {_short(dtype)}.", mistake="result of another dtype"
        )


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
