"""The Transformer block with its wiring as a knob, in float64, and the mistakes that it makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu

from autograder.exercises.exercise import Mistake
from autograder.exercises.multi_head_attention.variants import linear, projected

__all__ = ["BLOCK_MISTAKES"]

Step = Callable[[Tensor], Tensor]


def _standard(centred: Tensor) -> Tensor:
    return (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


@dataclass(frozen=True)
class Parts:
    """The four steps of the block, and the order that was asked for."""

    attention: Step
    feed_forward: Step
    norm1: Step
    norm2: Step
    norm_first: bool


Wiring = Callable[[Tensor, Parts], Tensor]


def pre(x: Tensor, p: Parts) -> Tensor:
    """Pre-norm."""
    x = x + p.attention(p.norm1(x))
    return x + p.feed_forward(p.norm2(x))


def post(x: Tensor, p: Parts) -> Tensor:
    """Post-norm."""
    x = p.norm1(x + p.attention(x))
    return p.norm2(x + p.feed_forward(x))


def either(x: Tensor, p: Parts) -> Tensor:
    """The order that was asked for."""
    return pre(x, p) if p.norm_first else post(x, p)


def _block(
    x: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    num_heads: int,
    norm_first: bool = True,
    wiring: Wiring = either,
    active: Step = torch.relu,
    deviation: Step = _standard,
    masks: Callable[[Tensor | None, bool], tuple[Tensor | None, bool]] = lambda m, c: (m, c),
    norms: tuple[str, str] = ("norm1", "norm2"),
    heads: int | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """As the formula, with knobs. wiring: how the steps are put together. active: the nonlinearity. deviation: what a
    centred row is divided by. masks: attn_mask, is_causal -> those that are used. norms: which layer norm stands where.
    heads: another number of heads.
    """
    inner: dict[str, Any] = {
        name.removeprefix("attention."): w for name, w in weights.items() if name.startswith("attention.")
    }
    mask, causal = masks(attn_mask, is_causal)

    def norm(name: str, source: Tensor) -> Tensor:
        centred = source - source.mean(-1, keepdim=True)
        return centred / deviation(centred) * weights[name] + weights.get(f"{name}_bias", 0.0)

    parts = Parts(
        lambda s: projected(s, attn_mask=mask, is_causal=causal, num_heads=heads or num_heads, **inner)[
            "output"
        ],
        lambda s: linear(active(linear(s, weights, "linear1")), weights, "linear2"),
        partial(norm, norms[0]),
        partial(norm, norms[1]),
        norm_first,
    )
    return {"output": wiring(x, parts)}


def _half(x: Tensor, p: Parts) -> Tensor:
    x = p.norm1(x + p.attention(x))
    return x + p.feed_forward(p.norm2(x))


def _other_half(x: Tensor, p: Parts) -> Tensor:
    x = x + p.attention(p.norm1(x))
    return p.norm2(x + p.feed_forward(x))


def _normed_both_times(x: Tensor, p: Parts) -> Tensor:
    x = p.norm1(x + p.attention(p.norm1(x)))
    return p.norm2(x + p.feed_forward(p.norm2(x)))


def _normed_in_between(x: Tensor, p: Parts) -> Tensor:
    if not p.norm_first:
        return post(x, p)
    x = p.norm1(x + p.attention(p.norm1(x)))
    return x + p.feed_forward(p.norm2(x))


def _twice(x: Tensor, p: Parts) -> Tensor:
    if p.norm_first:
        x = x + (x + p.attention(p.norm1(x)))
        return x + (x + p.feed_forward(p.norm2(x)))
    x = p.norm1(x + (x + p.attention(x)))
    return p.norm2(x + (x + p.feed_forward(x)))


def _twice_at_the_end(x: Tensor, p: Parts) -> Tensor:
    if p.norm_first:
        x = x + p.attention(p.norm1(x))
        return x + (x + p.feed_forward(p.norm2(x)))
    x = p.norm1(x + p.attention(x))
    return p.norm2(x + (x + p.feed_forward(x)))


def _skip_of_the_normed(x: Tensor, p: Parts) -> Tensor:
    if not p.norm_first:
        return post(x, p)
    x = p.norm1(x)
    x = x + p.attention(x)
    x = p.norm2(x)
    return x + p.feed_forward(x)


def _without(first: bool, second: bool) -> Wiring:
    """Without the first residual, the second, or both."""

    def wiring(x: Tensor, p: Parts) -> Tensor:
        if p.norm_first:
            x = p.attention(p.norm1(x)) + (0.0 if first else x)
            return p.feed_forward(p.norm2(x)) + (0.0 if second else x)
        x = p.norm1(p.attention(x) + (0.0 if first else x))
        return p.norm2(p.feed_forward(x) + (0.0 if second else x))

    return wiring


def _first_input_again(x: Tensor, p: Parts) -> Tensor:
    if p.norm_first:
        return x + p.feed_forward(p.norm2(x + p.attention(p.norm1(x))))
    return p.norm2(x + p.feed_forward(p.norm1(x + p.attention(x))))


def _side_by_side(x: Tensor, p: Parts) -> Tensor:
    if p.norm_first:
        return x + p.attention(p.norm1(x)) + p.feed_forward(p.norm2(x))
    return p.norm2(p.norm1(x + p.attention(x)) + p.feed_forward(x))


def _swapped(x: Tensor, p: Parts) -> Tensor:
    if p.norm_first:
        x = x + p.feed_forward(p.norm1(x))
        return x + p.attention(p.norm2(x))
    x = p.norm1(x + p.feed_forward(x))
    return p.norm2(x + p.attention(x))


def _one_step(name: str) -> Wiring:
    """Without the other of the two steps."""

    def wiring(x: Tensor, p: Parts) -> Tensor:
        step, norm = (p.attention, p.norm1) if name == "attention" else (p.feed_forward, p.norm2)
        return x + step(norm(x)) if p.norm_first else norm(x + step(x))

    return wiring


def _no_norms(x: Tensor, p: Parts) -> Tensor:
    x = x + p.attention(x)
    return x + p.feed_forward(x)


def _no_second_norm(x: Tensor, p: Parts) -> Tensor:
    x = x + p.attention(p.norm1(x)) if p.norm_first else p.norm1(x + p.attention(x))
    return x + p.feed_forward(x)


def _in_one(wiring: Wiring, norm_first: bool) -> Wiring:
    """This wiring in one of the two orders, the right one in the other."""
    return lambda x, p: wiring(x, p) if p.norm_first == norm_first else either(x, p)


def _exchanged(x: Tensor, p: Parts) -> Tensor:
    return post(x, p) if p.norm_first else pre(x, p)


ORDER = "Pre-norm is x + step(norm(x)), post-norm is norm(x + step(x)); norm_first=True asks for pre-norm."
ONCE = "Each x is added once, the one that the step started from."

BLOCK_MISTAKES = (
    Mistake("pre-norm and post-norm exchanged", ORDER, partial(_block, wiring=_exchanged)),
    Mistake("always pre-norm", "Does norm_first decide anything? " + ORDER, partial(_block, wiring=pre)),
    Mistake("always post-norm", "Does norm_first decide anything? " + ORDER, partial(_block, wiring=post)),
    Mistake("half pre-norm, half post-norm", "One order throughout. " + ORDER, partial(_block, wiring=_half)),
    Mistake(
        "half pre-norm, half post-norm", "One order throughout. " + ORDER, partial(_block, wiring=_other_half)
    ),
    Mistake("normed before and after", ORDER, partial(_block, wiring=_normed_both_times)),
    Mistake("normed before and after", ORDER, partial(_block, wiring=_normed_in_between)),
    Mistake(
        "skip path counted twice",
        ONCE + " Does a step's result already hold x?",
        partial(_block, wiring=_twice),
    ),
    Mistake(
        "skip path counted twice",
        ONCE + " Does a step's result already hold x?",
        partial(_block, wiring=_twice_at_the_end),
    ),
    Mistake(
        "the normed x is added, not x itself",
        "In pre-norm the skip path goes round the norm. Is x overwritten by norm(x)?",
        partial(_block, wiring=_skip_of_the_normed),
    ),
    *(
        Mistake(name, question, partial(_block, wiring=_in_one(wiring, norm_first)))
        for name, question, wiring in (
            ("skip path counted twice", ONCE + " Does a step's result already hold x?", _twice),
            ("skip path counted twice", ONCE + " Does a step's result already hold x?", _twice_at_the_end),
            ("half pre-norm, half post-norm", "One order throughout. " + ORDER, _half),
            ("half pre-norm, half post-norm", "One order throughout. " + ORDER, _other_half),
        )
        for norm_first in (True, False)
    ),
    Mistake(
        "post-norm by default",
        "norm_first is True where the constructor is told nothing.",
        partial(_block, norm_first=False),
    ),
    Mistake("no residual at the attention", ONCE, partial(_block, wiring=_without(True, False))),
    Mistake("no residual at the feed-forward network", ONCE, partial(_block, wiring=_without(False, True))),
    Mistake("no residuals", ONCE, partial(_block, wiring=_without(True, True))),
    Mistake(
        "the second residual adds the block's input",
        ONCE + " The second step starts from what the first has made.",
        partial(_block, wiring=_first_input_again),
    ),
    Mistake(
        "the two steps side by side",
        "Does the feed-forward network read what attention has made?",
        partial(_block, wiring=_side_by_side),
    ),
    Mistake(
        "feed-forward network before the attention",
        "Which of the two steps comes first?",
        partial(_block, wiring=_swapped),
    ),
    Mistake(
        "attention never applied", "Is attention called?", partial(_block, wiring=_one_step("feed_forward"))
    ),
    Mistake(
        "feed-forward network never applied",
        "Are linear1 and linear2 called?",
        partial(_block, wiring=_one_step("attention")),
    ),
    Mistake("norms never applied", "Are norm1 and norm2 called?", partial(_block, wiring=_no_norms)),
    Mistake("norm2 never applied", "Is norm2 called?", partial(_block, wiring=_no_second_norm)),
    Mistake(
        "norm1 used twice", "Each step has a norm of its own.", partial(_block, norms=("norm1", "norm1"))
    ),
    Mistake(
        "norm1 and norm2 exchanged",
        "norm1 belongs to the attention.",
        partial(_block, norms=("norm2", "norm1")),
    ),
    Mistake(
        "no nonlinearity in the feed-forward network",
        "Two linear layers in a row are one. Where is the relu?",
        partial(_block, active=lambda s: s),
    ),
    Mistake(
        "num_heads not handed on",
        "Is attention made with the number of heads that was asked for?",
        partial(_block, heads=1),
    ),
    Mistake("gelu where relu is meant", "Which nonlinearity is asked for?", partial(_block, active=gelu)),
    Mistake(
        "tanh where relu is meant", "Which nonlinearity is asked for?", partial(_block, active=torch.tanh)
    ),
    Mistake(
        "layer norm with another eps",
        "nn.LayerNorm adds 1e-5 to the variance. Is another number given?",
        partial(_block, deviation=lambda c: (c.square().mean(-1, keepdim=True) + 1e-6).sqrt()),
    ),
    Mistake(
        "layer norm with another eps",
        "nn.LayerNorm adds 1e-5 to the variance. Is another number given?",
        partial(_block, deviation=lambda c: (c.square().mean(-1, keepdim=True) + 1e-12).sqrt()),
    ),
    Mistake(
        "layer norm by the sample deviation",
        "nn.LayerNorm divides by sqrt(variance + eps), the variance over D and not D - 1. Is std() used?",
        partial(_block, deviation=lambda c: c.std(-1, keepdim=True) + 1e-5),
    ),
    Mistake(
        "mask ignored", "Is attn_mask handed on to attention?", partial(_block, masks=lambda m, c: (None, c))
    ),
    Mistake(
        "mask turned round",
        "True means allowed, here and in attention. Is the mask inverted on the way?",
        partial(_block, masks=lambda m, c: (None if m is None else ~m, c)),
    ),
    Mistake(
        "is_causal ignored",
        "Is is_causal handed on to attention?",
        partial(_block, masks=lambda m, c: (m, False)),
    ),
    Mistake(
        "always causal",
        "Should the triangle apply only if is_causal is True?",
        partial(_block, masks=lambda m, c: (m, True)),
    ),
)
