"""`causal_linear_attention`: right writings and mutants."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from tests.exercises.catalogue import mutant, right
from tests.exercises.efficient_attention.conduct import in_a_wrong_manner, of_function, without_an_attempt
from tests.exercises.efficient_attention.linear import phi
from tests.exercises.shared_attention.lazy import register

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


def variant(
    name,
    named,
    *,
    only=None,
    of_query=phi,
    of_key=phi,
    see=torch.tril,
    above=lambda table, v, q, kv: table @ v + q @ kv,
    below=lambda table, q, z: table.sum(-1, keepdim=True) + q @ z.unsqueeze(-1),
    finish=lambda above, below: above / below,
    left=lambda old, new: (old[0] + new[0], old[1] + new[1]),
):
    """A mutant by the whole table, with some steps exchanged."""

    def wrong(query, key, value, state=None):
        old = begun(key, value, state)
        q, k = of_query(query), of_key(key)
        table = see(q @ k.mT)
        output = finish(above(table, value, q, old[0]), below(table, q, old[1]))
        return output, left(old, (k.mT @ value, k.sum(-2)))

    register(NAME, name, named, wrong, only)


def both(feature):
    return {"of_query": feature, "of_key": feature}


variant("elu_alone", "elu without the 1", **both(F.elu))
variant("relu", "relu as the feature map", **both(F.relu))
variant("exp", "exp as the feature map", **both(torch.exp))
variant("softmax_features", "softmax as the feature map", **both(lambda x: x.softmax(-1)))
variant("raw_queries", "queries without the feature map", of_query=lambda x: x)
variant("raw_keys", "keys without the feature map", of_key=lambda x: x)
variant("raw", "no feature map", **both(lambda x: x))
variant("full_sum", "sum over all positions", see=lambda table: table, only="agrees with the formula")
variant(
    "before_itself",
    "a position does not see itself",
    see=lambda t: t.tril(-1),
    finish=lambda a, b: (a / b).nan_to_num(),
)
variant("turned", "future instead of past", see=torch.triu)
variant("no_normaliser", "not normalised", finish=lambda a, b: a)
variant("z_not_read", "z of the state not read", below=lambda t, q, z: t.sum(-1, keepdim=True))
variant("new_state_alone", "given state not in the returned one", left=lambda old, new: new)
variant("old_state_alone", "given state returned as it is", left=lambda old, new: old)
variant(
    "state_added_twice",
    "state handed on twice",
    left=lambda old, new: (2 * old[0] + new[0], 2 * old[1] + new[1]),
)
variant(
    "state_read_twice",
    "state read twice",
    above=lambda t, v, q, kv: t @ v + 2 * q @ kv,
    below=lambda t, q, z: t.sum(-1, keepdim=True) + 2 * q @ z.unsqueeze(-1),
)
variant("quadratic", "does too much work", only="linear cost")


@mutant(NAME, "normalised by the last sum")
def one_z_for_all(query, key, value, state=None):
    output, (kv, z) = running_sums(query, key, value, state)
    q, own = phi(query), phi(key).cumsum(-2) + begun(key, value, state)[1].unsqueeze(-2)
    return output * (q * own).sum(-1, keepdim=True) / (q @ z.unsqueeze(-1)), (kv, z)


@mutant(NAME, "last position not in the state")
def state_before_the_last(query, key, value, state=None):
    output, _ = step_by_step(query, key, value, state)
    return output, step_by_step(query[..., :-1, :], key[..., :-1, :], value[..., :-1, :], state)[
        1
    ] if query.shape[-2] > 1 else begun(key, value, state)


@mutant(NAME, "state not read", only="state handed on")
def state_only_passed_on(query, key, value, state=None):
    kv, z = begun(key, value, state)
    output, new = running_sums(query, key, value)
    return output, (kv + new[0], z + new[1])


@mutant(NAME, "state not handed on", only="state handed on")
def state_forgotten(query, key, value, state=None):
    return running_sums(query, key, value)


@mutant(NAME, only="the state")
def raw_keys_in_the_state(query, key, value, state=None):
    output, (kv, z) = step_by_step(query, key, value, state)
    return output, (kv, z + (key - phi(key)).sum(-2))


@mutant(NAME, only="pieces")
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


@mutant(NAME, "gradient is cut off", only="gradient")
def state_detached(query, key, value, state=None):
    return running_sums(query, key, value, None if state is None else tuple(t.detach() for t in state))


@mutant(NAME, "goes on from an earlier call, not from what it is handed", only="two texts in turn")
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


make = of_function(running_sums)
without_an_attempt(NAME, make, "query has no effect")
in_a_wrong_manner(NAME, make)
