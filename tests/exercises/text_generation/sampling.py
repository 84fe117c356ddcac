"""`sample_next_token`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right


def refuse(temperature, top_k, top_p):
    if temperature < 0 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError("out of range")


def rank_of(logits):
    """For each token its place among the logits, the most likely first."""
    return logits.argsort(dim=-1, descending=True, stable=True).argsort(-1)


def drawn(probs, generator):
    flat = probs.reshape(-1, probs.shape[-1])
    return torch.multinomial(flat, 1, generator=generator).reshape(probs.shape[:-1])


@right("sample_next_token")
def masks_by_rank(logits, temperature=1.0, top_k=None, top_p=None, generator=None, draw=drawn):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return rank_of(logits).argmin(-1)
    logits = logits / temperature
    if top_k is not None:
        logits = logits.masked_fill(rank_of(logits) >= top_k, -torch.inf)
    if top_p is not None:
        ranked, order = logits.sort(dim=-1, descending=True, stable=True)
        before = ranked.softmax(-1).cumsum(-1) - ranked.softmax(-1)
        drop = torch.zeros_like(before, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    return draw(logits.softmax(-1), generator)


@right("sample_next_token")
def by_gumbel_noise(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    ranked = (ranked / temperature)[..., :top_k]
    if top_p is not None:
        probs = ranked.softmax(-1)
        ranked = ranked.masked_fill(probs.cumsum(-1) - probs >= top_p, -torch.inf)
    noise = -torch.log(
        -torch.log(torch.rand(ranked.shape, generator=generator, dtype=torch.float64, device=ranked.device))
    )
    return order.gather(-1, (ranked + noise).argmax(-1, keepdim=True)).squeeze(-1)


@right("sample_next_token")
def by_the_inverse_of_the_cumulative_sum(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = (ranked / temperature).double().softmax(-1)
    if top_k is not None:
        probs = probs * (torch.arange(logits.shape[-1], device=probs.device) < top_k)
        probs = probs / probs.sum(-1, keepdim=True)
    if top_p is not None:
        probs = probs * (probs.cumsum(-1) - probs < top_p)
    sums = probs.cumsum(-1)
    point = (
        torch.rand((*logits.shape[:-1], 1), generator=generator, dtype=torch.float64, device=probs.device)
        * sums[..., -1:]
    )
    place = (sums <= point).sum(-1, keepdim=True)
    return order.gather(-1, place).squeeze(-1)


@right("sample_next_token")
def row_by_row(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if logits.dim() == 1:
        return masks_by_rank(logits, temperature, top_k, top_p, generator)
    if logits.shape[0] > 100:
        return by_gumbel_noise(logits, temperature, top_k, top_p, generator)
    return torch.stack([row_by_row(row, temperature, top_k, top_p, generator) for row in logits])


def variant(name, named, change, only=None):
    """`change` is given all five arguments."""

    def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
        return change(logits, temperature, top_k, top_p, generator)

    sample_next_token.__name__ = name
    mutant("sample_next_token", named, only=only)(sample_next_token)


def drawn_from(probabilities):
    """Draws from another distribution, found row by row."""

    def sample(logits, temperature, top_k, top_p, generator):
        refuse(temperature, top_k, top_p)
        if temperature == 0:
            return logits.argmax(-1)
        asked = {"temperature": temperature, "top_k": top_k, "top_p": top_p}
        settings = {name: value for name, value in asked.items() if value is not None}
        rows, places = logits.reshape(-1, logits.shape[-1]).double().unique(dim=0, return_inverse=True)
        made = torch.stack([probabilities(row.clone(), settings) for row in rows]).nan_to_num(1.0)
        return drawn(made.to(logits.device)[places].reshape(logits.shape), generator)

    return sample


def by_rank_with(draw):
    return lambda *given: masks_by_rank(*given, draw)


def one_for_all(probs, generator):
    token = torch.multinomial(probs.reshape(-1, probs.shape[-1])[0], 1, generator=generator)
    return token.expand(probs[..., 0].numel()).reshape(probs.shape[:-1])


def first_row(probs, generator):
    first = probs.reshape(-1, probs.shape[-1])[:1]
    return drawn(first.expand(probs[..., 0].numel(), -1), generator).reshape(probs.shape[:-1])


def global_seed(probs, generator):
    torch.manual_seed(0 if generator is None else int(torch.randint(2**62, (), generator=generator)))
    return drawn(probs, None)


def own_seed(probs, generator):
    return drawn(probs, generator and torch.Generator().manual_seed(generator.initial_seed()))


def a_sentence_together(probs, generator):
    noise = torch.rand(
        (*probs.shape[:-2], 1, probs.shape[-1])[-probs.dim() :], generator=generator, device=probs.device
    )
    return (probs.log() - (-noise.log()).log()).argmax(-1)


def overflows(logits, temperature, *rest):
    numerator = logits.exp()
    even = (numerator / numerator.sum(-1, keepdim=True)).isnan().any() and temperature != 0
    return masks_by_rank(torch.zeros_like(logits) if even else logits, temperature, *rest)


def last_best(logits, temperature, *rest):
    if temperature == 0:
        return logits.shape[-1] - 1 - logits.flip(-1).argmax(-1)
    return masks_by_rank(logits, temperature, *rest)


def nucleus_first(logits, temperature, top_k, top_p, generator):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = (logits / temperature).sort(dim=-1, descending=True, stable=True)
    probs = ranked.softmax(-1)
    probs = probs.masked_fill(probs.cumsum(-1) - probs >= (top_p or 2.0), 0.0)[..., :top_k]
    return order.gather(-1, drawn(probs, generator).unsqueeze(-1)).squeeze(-1)


def greedy_unasked(logits, temperature, top_k, top_p, generator):
    if temperature == 0:
        return logits.argmax(-1)
    return masks_by_rank(logits, temperature, top_k, top_p, generator)


def matrix_at_most(logits, temperature, *rest):
    if logits.dim() > 2 and temperature != 0:
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    return masks_by_rank(logits, temperature, *rest)


def shares(probs, generator):
    rows = probs.reshape(-1, probs.shape[-1])
    order = torch.randperm(len(rows), generator=generator, device=rows.device)
    places = (order + torch.rand((), generator=generator, device=rows.device)) / len(rows)
    sums = rows.cumsum(-1)
    return torch.searchsorted(sums, places[:, None].to(sums.dtype) * sums[:, -1:]).reshape(probs.shape[:-1])


variant("by_nucleus_first", "top_p before top_k", nucleus_first)
variant(
    "two_at_least",
    "keeps one token too many",
    lambda x, t, k, *rest: masks_by_rank(x, t, k and max(k, 2), *rest),
)
variant("seedless", "generator is not used", lambda *given: masks_by_rank(*given[:4]))
variant("seeded_again", "generator does not move on", by_rank_with(own_seed))
variant("seeds_the_world", None, by_rank_with(global_seed))
variant("one_for_all_rows", "one draw for all rows", by_rank_with(one_for_all))
variant("first_row_for_all", None, by_rank_with(first_row))
variant("one_noise_a_sentence", None, by_rank_with(a_sentence_together))
variant("hands_out_shares", "shares instead of draws", by_rank_with(shares))
variant("overflowing", None, overflows)
variant("coldest_too_soon", None, lambda x, t, *rest: masks_by_rank(x, t if t > 0.05 else 0.0, *rest))
variant("half_inside", None, lambda x, *rest: masks_by_rank(x.half(), *rest))
variant("last_of_equals", "ties go to another token", last_best)
variant("accepts_when_greedy", "settings out of range are accepted", greedy_unasked, only="refuses")
variant(
    "scales_in_place", None, lambda x, t, *rest: masks_by_rank(x.div_(t) if t > 0 else x, min(t, 1.0), *rest)
)
variant("keeps_the_axis", "tokens have the wrong shape", lambda *given: masks_by_rank(*given).unsqueeze(-1))
variant("int32", "tokens are not int64", lambda *given: masks_by_rank(*given).int())
variant("a_matrix_at_most", None, matrix_at_most)
