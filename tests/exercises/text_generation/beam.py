"""`beam_search`: right writings and mutants."""

from __future__ import annotations

import heapq
import math

import torch

from tests.exercises.catalogue import mutant, right


@right("beam_search")
def on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    live, finished = [(0.0, prompt.tolist())], []
    for step in range(1, max_new_tokens + 1):
        logits = model(torch.tensor([text for _, text in live]))[:, -1]
        rows = logits.double().log_softmax(-1).tolist()
        every = [
            (total + p, [*text, token])
            for (total, text), row in zip(live, rows, strict=True)
            for token, p in enumerate(row)
        ]
        best = sorted(every, key=lambda one: one[0], reverse=True)[:beam_size]
        over = step == max_new_tokens
        finished += [(total / step**length_penalty, text) for total, text in best if text[-1] == eos or over]
        live = [one for one in best if one[1][-1] != eos and not over]
        if not live:
            break
    score, text = max(finished, key=lambda one: one[0])
    return torch.tensor(text), score


@right("beam_search")
def with_sort(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    texts, sums = prompt[None], torch.zeros(1, dtype=torch.float64)
    winner = (-math.inf, prompt)
    n = 0
    while n < max_new_tokens and len(texts):
        n += 1
        totals = sums[:, None] + torch.log_softmax(model(texts)[:, -1, :].double(), dim=-1)
        V = totals.size(1)
        sums, flat = (one[:beam_size] for one in totals.view(-1).sort(descending=True, stable=True))
        rows, tokens = torch.div(flat, V, rounding_mode="floor"), flat.remainder(V)
        texts = torch.hstack([texts.index_select(0, rows), tokens[:, None]])
        for place in range(len(texts)):
            if tokens[place] == eos or n == max_new_tokens:
                winner = max(
                    winner, (float(sums[place]) / n**length_penalty, texts[place]), key=lambda one: one[0]
                )
        keep = tokens != eos
        texts, sums = texts[keep], sums[keep]
    return winner[1], torch.tensor(winner[0])


@right("beam_search")
def with_a_heap(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    live, done = [(0.0, tuple(prompt.tolist()))], []
    for step in range(max_new_tokens):
        logits = model(torch.tensor([list(text) for _, text in live]))
        log_probs = logits[:, -1] - logits[:, -1].logsumexp(-1, keepdim=True)
        extended = (
            (total + float(log_probs[i, token]), (*text, token))
            for i, (total, text) in enumerate(live)
            for token in range(log_probs.shape[1])
        )
        live = heapq.nlargest(beam_size, extended, key=lambda one: one[0])
        done += [(total / (step + 1) ** length_penalty, text) for total, text in live if text[-1] == eos]
        live = [one for one in live if one[1][-1] != eos]
        if not live:
            break
    done += [(total / max_new_tokens**length_penalty, text) for total, text in live]
    score, text = max(done, key=lambda one: one[0])
    return torch.tensor(list(text)), score


def variant(name, named, change, only=None):
    def beam_search(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
        return change(model, prompt, beam_size, max_new_tokens, eos, length_penalty)

    beam_search.__name__ = name
    mutant("beam_search", named, only=only)(beam_search)


def changed(change):
    """Right, but for what `change` makes of text, score, and the arguments after the model."""

    def search(model, prompt, *given):
        return change(*on_lists(model, prompt, *given), prompt, *given)

    return search


def penalty_in_the_score_only(model, prompt, beam_size, most, eos, penalty):
    text, total = on_lists(model, prompt, beam_size, most, eos)
    return text, total / (len(text) - len(prompt)) ** penalty


def vocabulary_at_most(model, prompt, beam_size, *rest):
    if beam_size > 9:
        raise RuntimeError("selected index k out of range")
    return on_lists(model, prompt, beam_size, *rest)


def one_by_one(model, *rest):
    return on_lists(lambda texts: torch.cat([model(text[None]) for text in texts]), *rest)


def short_texts(model, *rest):
    return on_lists(lambda texts: model(texts[:, -32:]), *rest)


def eos_is_late(model, prompt, beam_size, most, eos, penalty):
    def ask(texts):
        logits = model(texts)
        logits[:, -1, eos] -= torch.inf if texts.shape[1] == len(prompt) else 0.0
        return logits

    return on_lists(ask, prompt, beam_size, most, eos, penalty)


def cuts(where):
    """The last token is lost where that holds of its text."""
    return changed(lambda text, score, *given: (text[:-1] if where(text, *given) else text, score))


def writes(text, score, prompt, *given):
    prompt.add_(1)
    return text, score


variant("one_by_one", "one call for each text", one_by_one, only="cost")
variant("greedy", "the beam holds one text", lambda m, p, size, *rest: with_sort(m, p, 1, *rest))
variant(
    "one_text_too_many",
    "the beam holds one text too many",
    lambda m, p, size, *rest: with_sort(m, p, size + 1, *rest),
)
variant(
    "probability_as_score",
    "another score than the winner's",
    changed(lambda text, score, *given: (text, math.exp(score))),
)
variant("penalty_late", None, penalty_in_the_score_only)
variant("penalty_of_one_at_most", None, lambda *given: on_lists(*given[:-1], min(given[-1], 1.0)))
variant("penalty_of_zero_at_least", None, lambda *given: on_lists(*given[:-1], max(given[-1], 0.0)))
variant("vocabulary_at_most", None, vocabulary_at_most)
variant("short_texts", None, short_texts)
variant("eos_is_late", None, eos_is_late)
variant(
    "keeps_an_axis", "tokens are no int64 vector", changed(lambda text, score, *given: (text[None], score))
)
variant("writes", "changes its inputs in place", changed(writes))
variant(
    "cuts_an_early_eos", None, cuts(lambda text, prompt, size, most, *rest: len(text) < len(prompt) + most)
)
variant(
    "cuts_what_is_cut_off",
    None,
    cuts(lambda text, prompt, size, most, *rest: len(text) == len(prompt) + most),
)
