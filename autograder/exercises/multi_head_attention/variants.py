"""Multi-head attention with knobs, in float64: functions that make most of the mistakes that students make."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.exercises.basic_attention.variants import attend
from autograder.oracle.multi_head import merge, split

__all__ = ["Cut", "Join", "averaged", "heads", "linear", "made_of_parts", "made_of_projections", "projected"]

Cut = Callable[[Tensor, int], Tensor]
Join = Callable[[Tensor], Tensor]
Weights = Mapping[str, Tensor]
Triple = tuple[Tensor, Tensor, Tensor]


def heads(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_heads: int,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    *,
    cut: Cut = split,
    join: Join = merge,
    **knobs: Any,
) -> Mapping[str, Tensor]:
    """As the formula, with knobs. cut: x, H -> heads. join: heads -> features. The rest are knobs of `attend`."""
    queries, keys, values = (cut(x, num_heads) for x in (query, key, value))
    result = attend(queries, keys, values, attn_mask, is_causal, **knobs)
    return {"output": join(result["output"]), "weights": result["weights"]}


def linear(x: Tensor, weights: Weights, name: str, bias: bool = True, turned: bool = False) -> Tensor:
    """The layer `name` on x (..., D). bias: add it, if there is one. turned: multiply by the weight as it is stored."""
    result = x @ (weights[name] if turned else weights[name].mT)
    offset = weights.get(f"{name}_bias") if bias else None
    return result if offset is None else result + offset


def projected(
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    need_weights: bool = True,
    *,
    num_heads: int,
    names: tuple[str, str, str] = ("q_proj", "k_proj", "v_proj"),
    used: tuple[bool, bool, bool] = (True, True, True),
    bias: bool = True,
    turned: bool = False,
    sources: Callable[[Tensor, Tensor | None, Tensor | None], Triple] | None = None,
    finish: Callable[[Tensor, Tensor, Weights], Tensor] = lambda output, query, w: linear(
        output, w, "out_proj"
    ),
    knobs: Mapping[str, Any] | None = None,
    **weights: Tensor,
) -> Mapping[str, Tensor]:
    """The module's formula with knobs. names, used: which layer makes query, key and value, and whether it is applied.
    sources: what is projected. finish: output, query, weights -> output. knobs: those of `heads`."""
    given = (sources or _defaults)(query, key, value)
    parts = [
        linear(source, weights, name, bias, turned) if one else source
        for source, name, one in zip(given, names, used, strict=True)
    ]
    result = heads(parts[0], parts[1], parts[2], num_heads, attn_mask, is_causal, **(knobs or {}))
    return {"output": finish(result["output"], query, weights), "weights": result["weights"]}


def _defaults(query: Tensor, key: Tensor | None, value: Tensor | None) -> Triple:
    key = query if key is None else key
    return query, key, key if value is None else value


def averaged(weights: Tensor, num_heads: int, values: Tensor) -> Tensor:
    """What these weights (..., H, S_q, S_k) make of values (..., S_k, D): (..., S_q, D)."""
    return merge(weights.to(values.dtype) @ split(values, num_heads))


def made_of_parts(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """The output that these attention weights make of the pieces of value."""
    return averaged(weights, inputs["num_heads"], inputs["value"])


def made_of_projections(weights: Tensor, inputs: Mapping[str, Any]) -> Tensor:
    """The output that the module's layers make with these attention weights."""
    exact = {name: x.to(torch.float64) for name, x in inputs.items() if isinstance(x, Tensor)}
    value = exact.get("value", exact.get("key", exact["query"]))
    values = linear(value, exact, "v_proj")
    return linear(averaged(weights, inputs["num_heads"], values), exact, "out_proj")
