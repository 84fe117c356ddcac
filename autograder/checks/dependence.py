"""Dependence: a result comes from its inputs, and from nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["require_dependence"]


def require_dependence(trial: Trial, name: str) -> Tensor:
    """The result `name` for the case's inputs.

    Raises: Failure if a second call gives another result, or if all of its numbers are one and the same. The checks of
    symmetries would be content with a constant, and would blame a random result on something else.
    """
    first, second = trial()[name], trial()[name]
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        raise Failure(
            f"two calls on the same inputs give different {name}. Is something random in it, or kept between calls?",
            mistake="another result at every call",
        )
    flat = first.detach().flatten()
    if flat.numel() > 1 and bool((flat == flat[0]).all()):
        raise Failure(
            f"all {flat.numel()} {name} are {float(flat[0]):.4g}, whatever the inputs. Are the inputs used at all?",
            mistake="the same number everywhere",
        )
    return first
