"""`efficient_attention`: exact attention in blocks, to a part of the pairs, and by features, mixtures, memories, latents."""

from __future__ import annotations

from autograder.exercises.efficient_attention.alibi import ALIBI_BIAS
from autograder.exercises.efficient_attention.causal_linear import CAUSAL_LINEAR_ATTENTION
from autograder.exercises.efficient_attention.chunked import CHUNKED_ATTENTION
from autograder.exercises.efficient_attention.compressing_questions import COMPRESSING_QUESTIONS
from autograder.exercises.efficient_attention.fusion import ATTENTION_FUSION
from autograder.exercises.efficient_attention.latent import LATENT_ATTENTION
from autograder.exercises.efficient_attention.latent_counting import LATENT_CACHE_ELEMENTS
from autograder.exercises.efficient_attention.linear import LINEAR_ATTENTION
from autograder.exercises.efficient_attention.low_rank import LOW_RANK_ATTENTION
from autograder.exercises.efficient_attention.mods import ALIBI_SCORE, SLIDING_WINDOW_MASK
from autograder.exercises.efficient_attention.online import ONLINE_SOFTMAX
from autograder.exercises.efficient_attention.recurrent import RECURRENT_ATTENTION
from autograder.exercises.efficient_attention.span import ADAPTIVE_SPAN_ATTENTION
from autograder.exercises.efficient_attention.sparse import BLOCK_SPARSE_ATTENTION
from autograder.exercises.efficient_attention.tile_questions import TILE_QUESTIONS
from autograder.exercises.efficient_attention.window import SLIDING_WINDOW_ATTENTION

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in (*TILE_QUESTIONS, *COMPRESSING_QUESTIONS)}

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
    _QUESTIONS["factored_softmax"],
    LINEAR_ATTENTION,
    _QUESTIONS["linear_pays_from"],
    CAUSAL_LINEAR_ATTENTION,
    _QUESTIONS["linear_state_numbers"],
    LOW_RANK_ATTENTION,
    _QUESTIONS["linformer_causal"],
    RECURRENT_ATTENTION,
    _QUESTIONS["memory_reach"],
    ATTENTION_FUSION,
    ADAPTIVE_SPAN_ATTENTION,
    _QUESTIONS["span_gradient"],
    LATENT_ATTENTION,
    LATENT_CACHE_ELEMENTS,
    _QUESTIONS["latent_against_grouped"],
    _QUESTIONS["absorbed_keys"],
)
"""In the order in which the lesson sets them."""
