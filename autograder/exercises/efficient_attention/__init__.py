"""`efficient_attention`: features, mixtures along the length, a memory, mixed scores, learned spans, latents."""

from __future__ import annotations

from autograder.exercises.efficient_attention.causal_linear import CAUSAL_LINEAR_ATTENTION
from autograder.exercises.efficient_attention.compressing_questions import COMPRESSING_QUESTIONS
from autograder.exercises.efficient_attention.fusion import ATTENTION_FUSION
from autograder.exercises.efficient_attention.latent import LATENT_ATTENTION
from autograder.exercises.efficient_attention.latent_counting import LATENT_CACHE_ELEMENTS
from autograder.exercises.efficient_attention.linear import LINEAR_ATTENTION
from autograder.exercises.efficient_attention.low_rank import LOW_RANK_ATTENTION
from autograder.exercises.efficient_attention.recurrent import RECURRENT_ATTENTION
from autograder.exercises.efficient_attention.span import ADAPTIVE_SPAN_ATTENTION

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in COMPRESSING_QUESTIONS}

EXERCISES = (
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
