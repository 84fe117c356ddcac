"""`efficient_attention`: exact attention in blocks, attention to a part of the pairs, and biases for FlexAttention."""

from __future__ import annotations

from autograder.exercises.efficient_attention.alibi import ALIBI_BIAS
from autograder.exercises.efficient_attention.chunked import CHUNKED_ATTENTION
from autograder.exercises.efficient_attention.mods import ALIBI_SCORE, SLIDING_WINDOW_MASK
from autograder.exercises.efficient_attention.online import ONLINE_SOFTMAX
from autograder.exercises.efficient_attention.sparse import BLOCK_SPARSE_ATTENTION
from autograder.exercises.efficient_attention.tile_questions import TILE_QUESTIONS
from autograder.exercises.efficient_attention.window import SLIDING_WINDOW_ATTENTION

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in TILE_QUESTIONS}

EXERCISES = (
    _QUESTIONS["dense_cost"],
    _QUESTIONS["weights_memory"],
    _QUESTIONS["distant_information"],
    ONLINE_SOFTMAX,
    _QUESTIONS["stale_maximum"],
    CHUNKED_ATTENTION,
    _QUESTIONS["chunked_flops"],
    _QUESTIONS["causal_tiles"],
    SLIDING_WINDOW_ATTENTION,
    _QUESTIONS["window_reach"],
    BLOCK_SPARSE_ATTENTION,
    _QUESTIONS["block_sparse_saves"],
    ALIBI_BIAS,
    _QUESTIONS["alibi_future"],
    SLIDING_WINDOW_MASK,
    ALIBI_SCORE,
)
"""In the order in which the lesson sets them."""
