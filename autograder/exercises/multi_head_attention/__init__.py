"""`multi_head_attention`: cutting features into heads, multi-head attention, the Transformer block, and questions."""

from __future__ import annotations

from autograder.exercises.multi_head_attention.block import TRANSFORMER_BLOCK
from autograder.exercises.multi_head_attention.function import MULTI_HEAD_ATTENTION
from autograder.exercises.multi_head_attention.heads import MERGE_HEADS, SPLIT_HEADS
from autograder.exercises.multi_head_attention.module import MULTI_HEAD_MODULE

__all__ = ["EXERCISES"]

EXERCISES = (SPLIT_HEADS, MERGE_HEADS, MULTI_HEAD_ATTENTION, MULTI_HEAD_MODULE, TRANSFORMER_BLOCK)
"""In the order in which the lesson sets them."""
