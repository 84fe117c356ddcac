"""`sample_next_token`: right writings and mutants."""

from __future__ import annotations

import functools

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
def masks_by_rank(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
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
    return drawn(logits.softmax(-1), generator)


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
    noise = -torch.log(-torch.log(torch.rand(ranked.shape, generator=generator, dtype=torch.float64)))
    return order.gather(-1, (ranked + noise).argmax(-1, keepdim=True)).squeeze(-1)


@right("sample_next_token")
def by_the_inverse_of_the_cumulative_sum(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    ranked, order = logits.sort(dim=-1, descending=True, stable=True)
    probs = (ranked / temperature).double().softmax(-1)
    if top_k is not None:
        probs = probs * (torch.arange(logits.shape[-1]) < top_k)
        probs = probs / probs.sum(-1, keepdim=True)
    if top_p is not None:
        probs = probs * (probs.cumsum(-1) - probs < top_p)
    sums = probs.cumsum(-1)
    point = torch.rand((*logits.shape[:-1], 1), generator=generator, dtype=torch.float64) * sums[..., -1:]
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


def sampler(
    logits,
    temperature=1.0,
    top_k=None,
    top_p=None,
    generator=None,
    *,
    check=True,
    heat=lambda logits, t: logits / t,
    greedy=lambda logits: logits.argmax(-1),
    greedy_cut=False,
    first="k",
    late_heat=False,
    crossing=True,
    normalised=True,
    more=0,
    ties=False,
    weigh=lambda logits: logits.softmax(-1),
    fill=-torch.inf,
    draw=drawn,
    use_k=True,
    use_p=True,
    prepare=lambda logits: logits,
    end=lambda tokens: tokens,
):
    """A sampler with knobs."""
    if check:
        refuse(temperature, top_k, top_p)
    if temperature == 0:
        return end(greedy(logits))
    logits = prepare(logits)
    top_k, top_p = top_k if use_k else None, top_p if use_p else None
    hot = logits if late_heat else heat(logits, temperature)
    keep = torch.ones_like(hot, dtype=torch.bool)
    for step in (first, "p" if first == "k" else "k"):
        if step == "k" and top_k is not None:
            k = min(max(1, top_k + more), hot.shape[-1])
            last = hot.topk(k).values[..., -1:]
            keep = keep & ((hot >= last) if ties else (rank_of(hot) < k))
        if step == "p" and top_p is not None:
            order = rank_of(hot).argsort(-1)
            shown = hot.masked_fill(~keep, -torch.inf) if normalised else hot
            probs = shown.softmax(-1).gather(-1, order)
            sums = probs.cumsum(-1)
            stays = sums - probs < top_p if crossing else (sums <= top_p) | (torch.arange(hot.shape[-1]) == 0)
            keep = keep & torch.zeros_like(keep).scatter(-1, order, stays)
    hot = heat(logits, temperature) if late_heat else hot
    return end(draw(weigh(torch.where(keep, hot, fill)), generator))


def variant(name, named, only=None, **knobs):
    @functools.wraps(sampler)
    def sample_next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
        return sampler(logits, temperature, top_k, top_p, generator, **knobs)

    sample_next_token.__name__ = name
    mutant("sample_next_token", named, only=only)(sample_next_token)


def evenly(probs, generator):
    return drawn((probs > 0).to(probs.dtype), generator)


def without_generator(probs, generator):
    return drawn(probs, None)


def own_seed(probs, generator):
    return drawn(probs, generator and torch.Generator().manual_seed(generator.initial_seed()))


def one_for_all(probs, generator):
    token = torch.multinomial(probs.reshape(-1, probs.shape[-1])[0], 1, generator=generator)
    return token.expand(probs[..., 0].numel()).reshape(probs.shape[:-1])


def first_row(probs, generator):
    first = probs.reshape(-1, probs.shape[-1])[:1]
    return drawn(first.expand(probs[..., 0].numel(), -1), generator).reshape(probs.shape[:-1])


def by_hand(logits):
    numerator = logits.exp()
    return (numerator / numerator.sum(-1, keepdim=True)).nan_to_num(1 / logits.shape[-1])


def last_best(logits):
    return logits.shape[-1] - 1 - logits.flip(-1).argmax(-1)


variant("argmax_always", "always the most likely token", draw=lambda probs, generator: probs.argmax(-1))
variant("drawn_evenly", "drawn evenly", draw=evenly)
variant(
    "multiplies", "logits multiplied by temperature", only="temperature", heat=lambda logits, t: logits * t
)
variant("no_temperature", "temperature is ignored", heat=lambda logits, t: logits)
variant("nucleus_first", "top_p before top_k", first="p")
variant("unnormalised", "top_p before top_k", normalised=False)
variant("heated_late", "temperature after top_p", only="order", late_heat=True)
variant("no_top_k", "top_k is ignored", use_k=False)
variant("no_top_p", "top_p is ignored", only="top_p", use_p=False)
variant("neither", "top_k is ignored", use_k=False, use_p=False)
variant("drops_the_crossing", "drops the token that crosses top_p", crossing=False)
variant("keeps_ties", "keeps every token that ties with the last", only="ties", ties=True)
variant("one_too_few", "keeps one token too few", more=-1)
variant("one_too_many", "keeps one token too many", more=1)
variant("zero_logits", "hidden logits set to 0", fill=0.0)
variant("raw_logits", "no softmax", weigh=lambda logits: logits.nan_to_num(neginf=0.0).abs())
variant("seedless", "generator is not used", only="generator", draw=without_generator)
variant("seeded_again", "generator does not move on", only="generator", draw=own_seed)
variant("one_for_all_rows", "one draw for all rows", draw=one_for_all)
variant("first_row_for_all", None, only="rows", draw=first_row)
variant("overflows", "drawn evenly", only="extreme logits", weigh=by_hand)
variant("accepts_anything", "settings out of range are accepted", only="refuses", check=False)
variant("last_of_equals", "ties go to another token", only="greedy", greedy=last_best)
variant(
    "greedy_is_least", "temperature 0 is not greedy", only="greedy", greedy=lambda logits: logits.argmin(-1)
)
variant("keeps_the_axis", "tokens have the wrong shape", end=lambda tokens: tokens.unsqueeze(-1))
variant("int32", "tokens are not int64", end=lambda tokens: tokens.int())
variant(
    "writes_into_logits",
    "changes its inputs in place",
    only="inputs untouched",
    prepare=lambda x: x.sub_(x.amax()),
)


@mutant("sample_next_token", "keeps one token too many", only="top_k")
def top_k_stops_at_two(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if top_k == 1:
        top_k = 2
    return masks_by_rank(logits, temperature, top_k, top_p, generator)


@mutant("sample_next_token", only="shape")
def a_matrix_at_most(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if logits.dim() > 2 and temperature != 0:
        raise RuntimeError("prob_dist must be 1 or 2 dim")
    return masks_by_rank(logits, temperature, top_k, top_p, generator)


@mutant("sample_next_token", "top_p is taken for a threshold")
def threshold(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    probs = (logits / temperature).softmax(-1)
    if top_k is not None:
        probs = probs * (rank_of(logits) < top_k)
        probs = probs / probs.sum(-1, keepdim=True)
    if top_p is not None:
        probs = torch.where((probs >= 1 - top_p) | (rank_of(logits) == 0), probs, 0.0)
    return drawn(probs, generator)


@mutant("sample_next_token", "the least likely are kept")
def smallest(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits / temperature
    if top_k is not None:
        logits = logits.masked_fill(rank_of(-logits) >= top_k, -torch.inf)
    return masks_by_rank(logits, 1.0, None, top_p, generator)


@mutant("sample_next_token", "no softmax")
def sizes(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    return logits.argmax(-1) if temperature == 0 else drawn(logits.abs(), generator)


@mutant("sample_next_token", "top_k and top_p are ignored")
def ignores_both(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    both = top_k is not None and top_p is not None
    return masks_by_rank(logits, temperature, None if both else top_k, None if both else top_p, generator)


@mutant("sample_next_token", "shares instead of draws")
def hands_out_shares(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    refuse(temperature, top_k, top_p)
    if temperature == 0:
        return logits.argmax(-1)
    rows = logits.reshape(-1, logits.shape[-1])
    order = torch.randperm(len(rows), generator=generator)
    places = (order + torch.rand((), generator=generator)) / len(rows)
    sums = (rows / temperature).softmax(-1).cumsum(-1)
    return torch.searchsorted(sums, places[:, None] * sums[:, -1:]).reshape(logits.shape[:-1])
