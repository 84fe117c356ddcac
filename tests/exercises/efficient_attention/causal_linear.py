"""`causal_linear_attention`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.linear import phi

NAME = "causal_linear_attention"


def begun(key, value, state):
    if state is not None:
        return state
    return key.new_zeros(*key.shape[:-2], key.shape[-1], value.shape[-1]), key.new_zeros(
        *key.shape[:-2], key.shape[-1]
    )


@right(NAME)
def step_by_step(query, key, value, state=None):
    kv, z = begun(key, value, state)
    rows = []
    for q, k, v in zip(phi(query).unbind(-2), phi(key).unbind(-2), value.unbind(-2), strict=True):
        kv, z = kv + k.unsqueeze(-1) * v.unsqueeze(-2), z + k
        rows.append((q.unsqueeze(-2) @ kv).squeeze(-2) / (q * z).sum(-1, keepdim=True))
    return torch.stack(rows, -2), (kv, z)


@right(NAME)
def running_sums(query, key, value, state=None):
    kv, z = begun(key, value, state)
    q, k = phi(query), phi(key)
    sums = torch.einsum("...sd,...sv->...sdv", k, value).cumsum(-3) + kv.unsqueeze(-3)
    norms = torch.cumsum(k, -2) + z.unsqueeze(-2)
    output = torch.einsum("...sd,...sdv->...sv", q, sums) / torch.einsum(
        "...sd,...sd->...s", q, norms
    ).unsqueeze(-1)
    return output, [sums[..., -1, :, :], norms[..., -1, :]]


def blocks(size):
    def blockwise(query, key, value, state=None):
        """Within a block the table, before it the state."""
        kv, z = begun(key, value, state)
        rows = []
        for q, k, v in zip(*(t.split(size, -2) for t in (phi(query), phi(key), value)), strict=True):
            table = (q @ k.mT).tril()
            below = table.sum(-1, keepdim=True) + q @ z.unsqueeze(-1)
            rows.append((table @ v + q @ kv) / below)
            kv, z = kv + k.mT @ v, z + k.sum(-2)
        return torch.cat(rows, -2), (kv, z)

    return blockwise


for size in (1, 3, 64, 128):
    made = blocks(size)
    made.__name__ = f"blocks_of_{size}"
    right(NAME)(made)


@right(NAME)
def float32_inside(query, key, value, state=None):
    wide = torch.promote_types(query.dtype, torch.float32)
    given = None if state is None else (state[0].to(wide), state[1].to(wide))
    output, (kv, z) = step_by_step(*(t.to(wide) for t in (query, key, value)), state=given)
    return output.to(query.dtype), (kv.to(query.dtype), z.to(query.dtype))


@mutant(NAME, "does too much work", only="linear cost")
def quadratic(query, key, value, state=None):
    kv, z = begun(key, value, state)
    q, k = phi(query), phi(key)
    table = (q @ k.mT).tril()
    below = table.sum(-1, keepdim=True) + q @ z.unsqueeze(-1)
    return (table @ value + q @ kv) / below, (kv + k.mT @ value, z + k.sum(-2))


@mutant(NAME, "state not read")
def state_only_passed_on(query, key, value, state=None):
    kv, z = begun(key, value, state)
    output, new = running_sums(query, key, value)
    return output, (kv + new[0], z + new[1])


@mutant(NAME, "state not handed on")
def state_forgotten(query, key, value, state=None):
    return running_sums(query, key, value)


@mutant(NAME)
def raw_keys_in_the_state(query, key, value, state=None):
    output, (kv, z) = step_by_step(query, key, value, state)
    return output, (kv, z + (key - phi(key)).sum(-2))


@mutant(NAME)
def single_positions_leave_nothing(query, key, value, state=None):
    output, found = running_sums(query, key, value, state)
    return output, found if query.shape[-2] > 1 or state is None else state


@mutant(NAME, "does not return what is asked for")
def laid_out_flat(query, key, value, state=None):
    output, (kv, z) = running_sums(query, key, value, state)
    return output, kv, z


@mutant(NAME, "does not return what is asked for")
def output_alone(query, key, value, state=None):
    return running_sums(query, key, value, state)[0]


@mutant(NAME, "uses too much memory", only="linear cost")
def all_pairs_at_once(query, key, value, state=None):
    kv, z = begun(key, value, state)
    q, k = phi(query), phi(key)
    table = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1).tril()
    above = (table.unsqueeze(-1) * value.unsqueeze(-3)).sum(-2) + q @ kv
    return above / (table.sum(-1, keepdim=True) + q @ z.unsqueeze(-1)), (kv + k.mT @ value, z + k.sum(-2))


@mutant(NAME, "gradient is cut off")
def state_detached(query, key, value, state=None):
    return running_sums(query, key, value, None if state is None else tuple(t.detach() for t in state))


@mutant(NAME)
def remembers_its_own_state(query, key, value, state=None, kept={}):  # noqa: B006
    own = kept.get("state")
    if (
        state is not None
        and own is not None
        and all(a.shape == b.shape for a, b in zip(own, state, strict=True))
    ):
        state = own
    output, kept["state"] = running_sums(query, key, value, state)
    return output, kept["state"]
