"""`gpu_kernels`: attention in Triton, from a fused softmax to decoding through a block table. Nothing here needs Triton."""

from __future__ import annotations

from autograder.exercises.gpu_kernels.backward import FLASH_BACKWARD
from autograder.exercises.gpu_kernels.decode import DECODE_ATTENTION
from autograder.exercises.gpu_kernels.forward import FLASH_FORWARD
from autograder.exercises.gpu_kernels.function import FLASH_ATTENTION
from autograder.exercises.gpu_kernels.paged import PAGED_ATTENTION
from autograder.exercises.gpu_kernels.questions import QUESTIONS
from autograder.exercises.gpu_kernels.softmax import SOFTMAX_ROWS

__all__ = ["EXERCISES"]

_QUESTIONS = {question.name: question for question in QUESTIONS}

EXERCISES = (
    _QUESTIONS["naive_bytes"],
    _QUESTIONS["flash_bytes"],
    _QUESTIONS["flash_saves"],
    _QUESTIONS["interpreter_blind"],
    SOFTMAX_ROWS,
    _QUESTIONS["tile_bytes"],
    _QUESTIONS["masked_tiles"],
    FLASH_FORWARD,
    _QUESTIONS["kept_log_sum_exp"],
    FLASH_BACKWARD,
    FLASH_ATTENTION,
    _QUESTIONS["decode_intensity"],
    _QUESTIONS["decode_bound"],
    DECODE_ATTENTION,
    PAGED_ATTENTION,
)
"""In the order in which the lesson sets them."""
