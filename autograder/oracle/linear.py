"""Linear attention in float64, by its quadratic formula: the table of weights is written out."""

from __future__ import annotations

import torch
from torch import Tensor

from autograder.oracle.quantity import Quantity, Rounder, exact, farther

__all__ = ["causal_linear_attention", "features", "linear_attention"]


def features(x: Tensor, round: Rounder = exact) -> Quantity:
    """x (...) -> elu(x) + 1: exp(x) below zero, x + 1 above. elu loses digits there that exp(x) keeps."""
    below = torch.exp(x.clamp_max(0.0))
    value = torch.where(x > 0, x + 1, below)
    by_elu = torch.where(x > 0, round(x + 1), round(round(below - 1) + 1))
    return Quantity(farther(value, round(value), by_elu), torch.where(x > 0, x + 1, 2 - below))


def linear_attention(
    query: Tensor, key: Tensor, value: Tensor, round: Rounder = exact
) -> dict[str, Quantity]:
    """query (..., S_q, D), key (..., S_k, D), value (..., S_k, D_v) -> output (..., S_q, D_v)."""
    phi_q, phi_k = features(query, round), features(key, round)
    allowed = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.float64)
    result = _averaged(phi_q, phi_k, value, allowed, None, None)
    if round is exact:
        return {"output": result}
    kv, z = round(phi_k.value.mT @ value), round(phi_k.value.sum(-2))
    rounded = round(round(phi_q.value @ kv) / round(phi_q.value @ z.unsqueeze(-1)))
    return {"output": Quantity(rounded, result.magnitude)}


def causal_linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kv: Tensor | None = None,
    z: Tensor | None = None,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    """query and key (..., S, D), value (..., S, D_v), the state kv (..., D, D_v), z (..., D) or none
    -> output (..., S, D_v), kv, z."""
    phi_q, phi_k = features(query, round), features(key, round)
    allowed = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.float64).tril()
    output = _averaged(phi_q, phi_k, value, allowed, kv, z)
    added = {"kv": phi_k.value.mT @ value, "z": phi_k.value.sum(-2)}
    sizes = {"kv": phi_k.magnitude.mT @ value.abs(), "z": phi_k.magnitude.sum(-2)}
    for name, held in (("kv", kv), ("z", z)):
        if held is not None:
            added[name], sizes[name] = added[name] + held, sizes[name] + held.abs()
    if round is not exact:
        rounded, added = _step_by_step(phi_q.value, phi_k.value, value, kv, z, round)
        output = Quantity(rounded, output.magnitude)
    return {"output": output} | {name: Quantity(added[name], sizes[name]) for name in ("kv", "z")}


def _averaged(
    phi_q: Quantity, phi_k: Quantity, value: Tensor, allowed: Tensor, kv: Tensor | None, z: Tensor | None
) -> Quantity:
    """The values averaged by phi_q . phi_k where allowed (S_q, S_k), and what a state adds."""
    table = phi_q.value @ phi_k.value.mT * allowed  # (..., S_q, S_k)
    # An error of one factor is multiplied by the other as it is, not by what that is rounded from.
    terms = (phi_q.magnitude @ phi_k.value.mT + phi_q.value @ phi_k.magnitude.mT) * allowed
    above, below = table @ value, table.sum(-1, keepdim=True)
    size_above, size_below = terms @ value.abs(), terms.sum(-1, keepdim=True)
    if kv is not None and z is not None:
        above, below = above + phi_q.value @ kv, below + phi_q.value @ z.unsqueeze(-1)
        size_above = size_above + phi_q.magnitude @ kv.abs()
        size_below = size_below + phi_q.magnitude @ z.abs().unsqueeze(-1)
    output = above / below
    return Quantity(output, (size_above + output.abs() * size_below) / below.abs())


def _step_by_step(
    phi_q: Tensor, phi_k: Tensor, value: Tensor, kv: Tensor | None, z: Tensor | None, round: Rounder
) -> tuple[Tensor, dict[str, Tensor]]:
    """The same, the state rounded after each position: what a recurrence may lose."""
    sums = phi_k.new_zeros(*phi_k.shape[:-2], phi_k.shape[-1], value.shape[-1]) if kv is None else kv
    norms = phi_k.new_zeros(*phi_k.shape[:-2], phi_k.shape[-1]) if z is None else z
    rows = []
    for q, k, v in zip(phi_q.unbind(-2), phi_k.unbind(-2), value.unbind(-2), strict=True):
        sums = round(sums + round(k.unsqueeze(-1) * v.unsqueeze(-2)))
        norms = round(norms + k)
        above = round((q.unsqueeze(-2) @ sums).squeeze(-2))
        rows.append(round(above / round((q * norms).sum(-1, keepdim=True))))
    return torch.stack(rows, -2), {"kv": sums, "z": norms}
