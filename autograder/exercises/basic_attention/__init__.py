"""`basic_attention`: softmax, five kinds of scores, attention, self- and cross-attention, and questions."""

from __future__ import annotations

from autograder.exercises.basic_attention.attention import ATTENTION
from autograder.exercises.basic_attention.learned_scores import ADDITIVE_SCORES, MULTIPLICATIVE_SCORES
from autograder.exercises.basic_attention.modules import CROSS_ATTENTION, SELF_ATTENTION
from autograder.exercises.basic_attention.questions import QUESTIONS
from autograder.exercises.basic_attention.scores import COSINE_SCORES, DOT_SCORES, SCALED_DOT_SCORES
from autograder.exercises.basic_attention.softmax import MASKED_SOFTMAX, SOFTMAX

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in QUESTIONS}

EXERCISES = (
    SOFTMAX,
    MASKED_SOFTMAX,
    _QUESTIONS["mask_placement"],
    DOT_SCORES,
    SCALED_DOT_SCORES,
    COSINE_SCORES,
    ADDITIVE_SCORES,
    MULTIPLICATIVE_SCORES,
    _QUESTIONS["multiplicative_kind"],
    _QUESTIONS["additive_kind"],
    _QUESTIONS["score_variance"],
    _QUESTIONS["why_scale"],
    ATTENTION,
    SELF_ATTENTION,
    CROSS_ATTENTION,
    _QUESTIONS["attention_flops"],
    _QUESTIONS["dot_product_cost"],
    _QUESTIONS["distant_positions"],
    _QUESTIONS["weights_explain"],
)
"""In the order in which the lesson sets them."""
