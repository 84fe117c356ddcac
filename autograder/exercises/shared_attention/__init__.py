"""`shared_attention`: one matrix, one projection, shared heads, a shared layer, a shared backbone, and what it saves."""

from __future__ import annotations

from autograder.exercises.shared_attention.bilinear import SHARED_ATTENTION
from autograder.exercises.shared_attention.counting import COUNT_PARAMETERS, KV_CACHE_BYTES
from autograder.exercises.shared_attention.grouped import GROUPED_QUERY_ATTENTION
from autograder.exercises.shared_attention.questions import QUESTIONS
from autograder.exercises.shared_attention.stack import SHARED_LAYER_STACK
from autograder.exercises.shared_attention.symmetric import SYMMETRIC_ATTENTION
from autograder.exercises.shared_attention.tasks import SHARED_ACROSS_TASKS

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in QUESTIONS}

EXERCISES = (
    _QUESTIONS["unused_keys"],
    _QUESTIONS["weight_shape"],
    SHARED_ATTENTION,
    SYMMETRIC_ATTENTION,
    _QUESTIONS["symmetric_limit"],
    GROUPED_QUERY_ATTENTION,
    COUNT_PARAMETERS,
    _QUESTIONS["saved_parameters"],
    KV_CACHE_BYTES,
    _QUESTIONS["cache_bytes"],
    _QUESTIONS["gqa_saves"],
    _QUESTIONS["shared_gradient"],
    SHARED_LAYER_STACK,
    SHARED_ACROSS_TASKS,
    _QUESTIONS["sharing_quality"],
)
"""In the order in which the lesson sets them."""
