"""Situations: the ways in which inputs and circumstances of a call differ, tried for every exercise by construction."""

from autograder.situations.covering import Row
from autograder.situations.factors import (
    AXES,
    BOTH_MASKS,
    CAUSAL,
    DTYPES,
    FULL_DTYPES,
    HUNDREDS,
    LENGTHS,
    MASKS,
    MODULE_AXES,
    ONE_LENGTH,
    Factor,
    module_scores,
    scores,
    without,
)
from autograder.situations.inputs import drawn_by
from autograder.situations.localising import Cause, causes, told
from autograder.situations.space import Group, Situations, groups
from autograder.situations.trying import hold

__all__ = ["AXES", "BOTH_MASKS", "CAUSAL", "DTYPES", "FULL_DTYPES", "HUNDREDS", "LENGTHS", "MASKS", "MODULE_AXES",
           "ONE_LENGTH", "Cause", "Factor", "Group", "Row", "Situations", "causes", "drawn_by", "groups", "hold",
           "module_scores", "scores", "told", "without"]  # fmt: skip
