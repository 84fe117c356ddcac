"""`text_generation`: masks, perplexity, sampling, the loop, the cache, beam search, a translator, and questions."""

from __future__ import annotations

from autograder.exercises.text_generation.beam import BEAM_SEARCH
from autograder.exercises.text_generation.cache import KV_CACHE
from autograder.exercises.text_generation.cached_attention import CACHED_SELF_ATTENTION
from autograder.exercises.text_generation.generating import GENERATE
from autograder.exercises.text_generation.mask import CAUSAL_MASK
from autograder.exercises.text_generation.perplexity import PERPLEXITY
from autograder.exercises.text_generation.questions import QUESTIONS
from autograder.exercises.text_generation.sampling import SAMPLE_NEXT_TOKEN
from autograder.exercises.text_generation.translating import SEQ2SEQ_GENERATOR

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in QUESTIONS}

EXERCISES = (
    _QUESTIONS["what_is_fed_back"],
    CAUSAL_MASK,
    _QUESTIONS["uniform_perplexity"],
    PERPLEXITY,
    SAMPLE_NEXT_TOKEN,
    GENERATE,
    KV_CACHE,
    CACHED_SELF_ATTENTION,
    _QUESTIONS["cache_keeps"],
    _QUESTIONS["decode_flops"],
    BEAM_SEARCH,
    _QUESTIONS["beam_is_not_best"],
    SEQ2SEQ_GENERATOR,
    _QUESTIONS["blind_decoder"],
    _QUESTIONS["residual_needs"],
)
"""In the order in which the lesson sets them."""
