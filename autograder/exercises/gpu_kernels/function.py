"""Exercise `flash_attention`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Recipe
from autograder.checks import Check, Target
from autograder.checks.conduct import affordable
from autograder.checks.fused import gradients_in_models
from autograder.checks.kernels import COPIES, launched
from autograder.exercises.exercise import Exercise
from autograder.exercises.gpu_kernels import cases
from autograder.exercises.gpu_kernels.backward import GRADIENTS
from autograder.exercises.gpu_kernels.cases import attention_inputs, long_inputs
from autograder.exercises.gpu_kernels.conduct import (
    FORMULA,
    GPU,
    HALF_AND_SINGLE,
    LEFT_OUT,
    LONG,
    NAMES,
    OWN,
    SOME,
    calls,
    conduct,
    dtypes,
    own_kernel,
    sizes,
)
from autograder.exercises.gpu_kernels.forward import SHORTER
from autograder.exercises.gpu_kernels.tiles import CAUSAL_SLIPS, ORDER, modulo, tiled
from autograder.mistakes import slips
from autograder.oracle.kernels import flash_forward, flash_gradients
from autograder.situations import CAUSAL, Situations, groups, without

__all__ = ["FLASH_ATTENTION"]


def formula(
    query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False, **options: Any
) -> Mapping[str, Any]:
    return {"output": flash_forward(query, key, value, is_causal, **options)["output"]}


def output(*args: Any, **knobs: Any) -> Tensor:
    return tiled(*args, **knobs)["output"]


def largest(inputs: Mapping[str, Any]) -> int:
    """As much as a copy of the largest input that is padded to whole tiles: no matrix of scores, which the case makes larger."""
    return COPIES * max(value.numel() for value in inputs.values() if isinstance(value, Tensor))


LENGTHS = without(cases.LENGTHS, "many tiles of keys", "many tiles of queries")
HEADS = without(cases.HEADS, "seventeen heads on one")
AGAIN = ("a gradient asked", "a gradient of one input", "activation checkpointing")
THROUGH = Target("flash_attention", ("output", *GRADIENTS), flash_gradients)

FLASH_ATTENTION = Exercise(
    name="flash_attention",
    assignment="gpu_kernels",
    target=Target("flash_attention", ("output",), formula),
    positional=("query", "key", "value"),
    kernels=True,
    situations=Situations(
        draw=attention_inputs,
        factors={"dtype": HALF_AND_SINGLE, "causal": CAUSAL, "lengths": LENGTHS, "heads": HEADS},
        axes={"query": "... H S_q D", "key": "... K S_k D", "value": "... K S_k D"},
        groups=groups(
            "the output is that of attention, heads shared or not", 1.0,
            (sizes(0.25, "heads"), dtypes(0.25), calls(0.25)), causal=0.5, gradient=1.0,
        ),
        left_out={"device": LEFT_OUT["device"]},
        meet=(*cases.MEET, ("causal", "gradient")),
        never=(
            *({n: of for n, of in one.items()} for one in cases.NEVER if one.keys() <= {"lengths", "heads", "layout"}),
            {"layout": "far apart in memory", "gradient": AGAIN},
        ),
        kernels=True,
        names=NAMES,
    ),
    recipes=(
        Recipe("plain", attention_inputs),
        Recipe("in a model", partial(attention_inputs, heads=(2, 1), S_q=16, S_k=16, is_causal=True)),
        Recipe(GPU, partial(attention_inputs, width=8, dtype=torch.float16)),
        Recipe("many more keys than columns", partial(attention_inputs, heads=(1, 1), width=4, S_q=40, S_k=40)),
        Recipe("70,000 keys", lambda draw: long_inputs(SOME, LONG)),
        Recipe("70,000 queries", lambda draw: long_inputs(LONG, SOME)),
    ),
    checks=(
        own_kernel("plain"),
        Check("own kernel backward", "Triton does the work of backward, too", 0.5, ("plain",),
              launched(passes=4, backward=True), (FORMULA, OWN)),
        Check("in models", "autograd gets the gradients, however often and in whatever order", 0.5, ("in a model",),
              gradients_in_models(THROUGH), (FORMULA, "gradient", "causal")),
        Check("memory", "nothing has S_q times S_k elements", 0.25, ("many more keys than columns",),
              affordable(lambda inputs: 0, largest), (FORMULA, OWN)),
        *conduct("plain", "many more keys than columns", long=("70,000 keys", "70,000 queries"), shorter=SHORTER, backward=True),
    ),
    mistakes=slips(
        output, {ORDER: {"heads tiled instead of interleaved": {"keys": modulo, "values": modulo}}}, CAUSAL_SLIPS,
        without=("causal mask shows one key of the future", "causal mask aligned at the bottom right"), output="output",
    ),
    hints=(
        "torch.autograd.Function has two static methods: forward(ctx, ...) computes and keeps, backward(ctx, "
        "grad_output) returns one gradient for each argument of forward.",
        "Keep query, key, value, output and log_sum_exp with ctx.save_for_backward(...), and is_causal as "
        "ctx.is_causal. backward returns the three gradients of flash_backward and None for is_causal.",
        "`output, log_sum_exp = flash_forward(query, key, value, is_causal)`; `ctx.save_for_backward(query, key, "
        "value, output, log_sum_exp)`; `return output`. And flash_attention is `FlashAttention.apply(query, key, "
        "value, is_causal)`: apply takes no names.",
    ),
)  # fmt: skip
