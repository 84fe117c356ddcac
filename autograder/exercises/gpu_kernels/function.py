"""Exercise `flash_attention`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import agrees
from autograder.checks.conduct import affordable
from autograder.checks.fused import causal_tiles, gradients_agree
from autograder.checks.kernels import COPIES, launched
from autograder.checks.structure import responds
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.gpu_kernels.backward import GRADIENTS
from autograder.exercises.gpu_kernels.cases import attention_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    COUNTS,
    FORMULA,
    GPU,
    LONG,
    OWN,
    SOME,
    conduct,
    own_kernel,
)
from autograder.exercises.gpu_kernels.forward import CAUSAL_SLIPS, SHORTER
from autograder.exercises.gpu_kernels.tiles import COLUMN_SLIPS, tiled
from autograder.oracle.kernels import flash_forward, flash_gradients

__all__ = ["FLASH_ATTENTION"]


def _output(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, **options: Any
) -> Mapping[str, Any]:
    return {"output": flash_forward(query, key, value, is_causal, **options)["output"]}


def _tiled_output(*args: Any, **knobs: Any) -> Mapping[str, Tensor]:
    return {"output": tiled(*args, **knobs)["output"]}


def _plain(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(attention_inputs, **options))


def _largest(inputs: Mapping[str, Any]) -> int:
    """As much as a copy of the largest input that is padded to whole tiles: no matrix of scores, which the case makes larger."""
    return COPIES * max(value.numel() for value in inputs.values() if isinstance(value, Tensor))


THROUGH = Target("flash_attention", ("output", *GRADIENTS), flash_gradients)

FLASH_ATTENTION = Exercise(
    name="flash_attention",
    assignment="gpu_kernels",
    target=Target("flash_attention", ("output",), _output),
    positional=("query", "key", "value"),
    recipes=(
        _plain("unequal sizes"),
        _plain("causal", is_causal=True, batch=1, lengths=lambda draw: (5, 20)),
        _plain("four heads on two", heads=(4, 2)),
        _plain("gradients", batch=1, heads=(2, 1)),
        _plain("gradients, causal", batch=1, heads=(1, 1), is_causal=True, lengths=lambda draw: (9, 7)),
        _plain("float16", dtype=torch.float16, batch=1),
        _plain("eight wide", heads=(2, 1), width=8, lengths=lambda draw: (5, 9)),
        _plain(GPU, batch=1, width=8, dtype=torch.float16, lengths=lambda draw: (5, 9)),
        _plain("many more keys than columns", batch=1, heads=(1, 1), width=4, lengths=lambda draw: (40, 40)),
        Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG)),
        Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME)),
    ),
    kernels=True,
    checks=(
        Check(
            COUNTS,
            "the output changes when query, key or value do",
            0.25,
            ("unequal sizes",),
            responds({"query": ("output",), "key": ("output",), "value": ("output",)}),
        ),
        own_kernel("unequal sizes", "eight wide"),
        Check(
            FORMULA,
            "the output is that of attention, heads shared or not",
            0.5,
            ("unequal sizes", "four heads on two"),
            agrees("output"),
            OWN,
        ),
        Check(
            "causal",
            "is_causal reaches the kernel",
            0.25,
            ("causal",),
            causal_tiles(),
            FORMULA,
        ),
        Check(
            "own kernel backward",
            "Triton does the work of backward, too",
            0.5,
            ("eight wide",),
            launched(passes=4, backward=True),
            FORMULA,
        ),
        Check(
            "gradients",
            "autograd gets the gradients of query, key and value, however they lie in memory",
            1.0,
            ("gradients",),
            gradients_agree(THROUGH, in_models=True),
            "own kernel backward",
        ),
        Check(
            "causal gradients",
            "is_causal reaches the backward kernels, too",
            0.5,
            ("gradients, causal",),
            gradients_agree(THROUGH),
            ("gradients", "causal"),
        ),
        Check(
            "memory",
            "nothing has S_q times S_k elements",
            0.5,
            ("many more keys than columns",),
            affordable(lambda inputs: 0, _largest),
            FORMULA,
        ),
        *conduct(
            (FORMULA,),
            ("output",),
            "eight wide",
            tiles="many more keys than columns",
            long=("70,000 keys", "70,000 queries"),
            shorter=SHORTER,
            backward=True,
        ),
    ),
    mistakes=tuple(
        Mistake(name, question, partial(_tiled_output, **knobs))
        for name, question, knobs in (*CAUSAL_SLIPS[:2], *COLUMN_SLIPS[:1])
    ),
    hints=(
        (
            "torch.autograd.Function has two static methods: forward(ctx, ...) computes and keeps, "
            "backward(ctx, grad_output) returns one gradient for each argument of forward."
        ),
        (
            "Keep query, key, value, output and log_sum_exp with ctx.save_for_backward(...), and is_causal as "
            "ctx.is_causal. backward returns the three gradients of flash_backward and None for is_causal."
        ),
        (
            "`output, log_sum_exp = flash_forward(query, key, value, is_causal)`; `ctx.save_for_backward(query, key, "
            "value, output, log_sum_exp)`; `return output`. And flash_attention is "
            "`FlashAttention.apply(query, key, value, is_causal)`: apply takes no names."
        ),
    ),
)
