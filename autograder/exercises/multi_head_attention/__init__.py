"""`multi_head_attention`: cutting features into heads, multi-head attention, the Transformer block, and questions."""

from __future__ import annotations

from autograder.exercises.multi_head_attention.block import TRANSFORMER_BLOCK
from autograder.exercises.multi_head_attention.function import MULTI_HEAD_ATTENTION
from autograder.exercises.multi_head_attention.heads import MERGE_HEADS, SPLIT_HEADS
from autograder.exercises.multi_head_attention.module import MULTI_HEAD_MODULE
from autograder.exercises.multi_head_attention.questions import QUESTIONS

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in QUESTIONS}

EXERCISES = (
    SPLIT_HEADS,
    MERGE_HEADS,
    _QUESTIONS["heads_split"],
    MULTI_HEAD_ATTENTION,
    _QUESTIONS["multi_head_parameters"],
    MULTI_HEAD_MODULE,
    _QUESTIONS["when_heads_help"],
    _QUESTIONS["attention_saves_work"],
    _QUESTIONS["stored_weights"],
    _QUESTIONS["norm_order"],
    TRANSFORMER_BLOCK,
)
"""In the order in which the lesson sets them."""
