"""A module that attends with a sequence to itself, in named steps, in float64, and the mistakes that students make in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.mistakes.attention import attend

__all__ = ["Finish", "block", "linear", "made_by"]

Finish = Callable[[Tensor, Tensor, Mapping[str, Tensor]], Tensor]
"""Weighted values, x and the weights -> output."""


def linear(x: Tensor, weights: Mapping[str, Tensor], name: str, bias: bool = True) -> Tensor:
    """What the layer of that name makes of x."""
    offset = weights.get(f"{name}_bias") if bias else None
    result = x @ weights[name].mT
    return result if offset is None else result + offset


def block(
    x: Tensor,
    is_causal: bool = False,
    *,
    names: tuple[str, str, str, str],
    used: tuple[bool, bool, bool, bool] = (True, True, True, True),
    bias: bool = True,
    finish: Finish = lambda output, x, weights: output,
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """x (..., S, d_model) attending to itself -> output (..., S, d_model), weights (..., S, S).

    names: the layers that make query, key, value and output; used: whether they are applied; bias: with their biases.
    finish: what happens to the output. knobs: those of `attend`.
    """
    query, key, value = (
        linear(x, weights, name, bias) if apply else x
        for name, apply in zip(names[:3], used[:3], strict=True)
    )
    result = attend(query, key, value, None, is_causal, **(knobs or {}))
    output = linear(result["output"], weights, names[3], bias) if used[3] else result["output"]
    return {"output": finish(output, x, weights), "weights": result["weights"]}


def made_by(values: str, head: Callable[[Mapping[str, Any]], str]) -> Callable[..., Tensor]:
    """How a module's output comes from its attention weights: the layer `values` of x, averaged, through `head`."""

    def made(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        exact = {n: v.double() for n, v in inputs.items() if isinstance(v, Tensor)}
        return linear(weights.double() @ linear(exact["x"], exact, values), exact, head(inputs))

    return made
