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
def with_topk(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    texts, sums = prompt[None], torch.zeros(1, dtype=torch.float64)
    winner = (-math.inf, prompt)
    n = 0
    while n < max_new_tokens and len(texts):
        n += 1
        totals = sums[:, None] + torch.log_softmax(model(texts)[:, -1, :].double(), dim=-1)
        V = totals.size(1)
        sums, flat = totals.view(-1).topk(min(beam_size, totals.numel()))
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
    score, text = max(done)
    return torch.tensor(list(text)), score


def search(
    model,
    prompt,
    beam_size,
    max_new_tokens,
    eos,
    length_penalty=0.0,
    *,
    log_probs=lambda logits: logits.log_softmax(-1),
    size=lambda size: size,
    adds=lambda total, more: total + more,
    per_text=False,
    lives_on=False,
    first_wins=False,
    pool=lambda finished, ends: finished + ends,
    same_history=False,
    shrinks=False,
    normal=lambda total, n, penalty, prompt: total / n**penalty,
    result=lambda text, prompt: text,
    most=lambda most: most,
    one_by_one=False,
    score=lambda total: total,
):
    """Beam search with knobs."""
    start = prompt.tolist()
    live, finished, room = [(0.0, start)], [], size(beam_size)
    steps = most(max_new_tokens)
    for step in range(1, steps + 1):
        texts = torch.tensor([text for _, text in live])
        logits = torch.cat([model(text[None]) for text in texts]) if one_by_one else model(texts)
        rows = log_probs(logits[:, -1].double()).tolist()
        groups = [
            [(adds(total, p), [*text, token]) for token, p in enumerate(row)]
            for (total, text), row in zip(live, rows, strict=True)
        ]
        if per_text:
            groups = [sorted(group, key=lambda one: -one[0])[: max(1, room // len(live))] for group in groups]
        every = sorted((one for group in groups for one in group), key=lambda one: -one[0])[:room]
        if same_history:
            every = [(t, [*live[min(n, len(live) - 1)][1], text[-1]]) for n, (t, text) in enumerate(every)]
        done = [one for one in every if one[1][-1] == eos and (not lives_on or step == steps)]
        live = [one for one in every if one not in done]
        finished += [(normal(t, step, length_penalty, len(start)), text) for t, text in done]
        room -= len(done) if shrinks else 0
        if not live or room <= 0 or (first_wins and finished):
            break
    ends = [(normal(t, step, length_penalty, len(start)), text) for t, text in live]
    total, text = max(pool(finished, ends), key=lambda one: one[0])
    return torch.tensor(result(text, start)), score(total)


def variant(name, named, only=None, **knobs):
    def beam_search(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
        return search(model, prompt, beam_size, max_new_tokens, eos, length_penalty, **knobs)

    beam_search.__name__ = name
    mutant("beam_search", named, only=only)(beam_search)


variant("greedy", "the beam holds one text", size=lambda size: 1)
variant("one_text_too_many", "the beam holds one text too many", size=lambda size: size + 1)
variant("raw_logits", "logits are summed", log_probs=lambda logits: logits)
variant("probabilities", "probabilities are summed", log_probs=lambda logits: logits.softmax(-1))
variant("last_step_only", "only the last step counts", adds=lambda total, more: more)
variant("each_its_own", "each text keeps its own best", per_text=True)
variant("goes_on_after_eos", "texts go on after eos", lives_on=True)
variant("first_wins", "the first finished text wins", first_wins=True)
variant(
    "loses_finished",
    "finished texts are lost",
    pool=lambda finished, ends: ends or finished,
)
variant("loses_live", "only finished texts can win", pool=lambda finished, ends: finished or ends)
variant("wrong_history", "tokens join the wrong text", same_history=True)
variant("shrinks", "the beam shrinks with each finished text", shrinks=True)
variant("no_penalty", "length_penalty is ignored", normal=lambda total, n, p, s: total)
variant(
    "counts_the_prompt", "the prompt counts in the length", normal=lambda total, n, p, s: total / (n + s) ** p
)
variant("multiplies", "multiplied by the penalty", normal=lambda total, n, p, s: total * n**p)
variant("always_the_mean", "always the mean", normal=lambda total, n, p, s: total / n)
variant("new_tokens_only", "the prompt is left out", result=lambda text, prompt: text[len(prompt) :])
variant("one_too_few", "one token too few", most=lambda most: most - 1)
variant("one_by_one", "one call for each text", only="cost", one_by_one=True)
variant("probability_as_score", None, only="score", score=math.exp)


@mutant("beam_search", only="length penalty")
def penalty_in_the_score_only(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    text, total = on_lists(model, prompt, beam_size, max_new_tokens, eos)
    return text, total / (len(text) - len(prompt)) ** length_penalty


@mutant("beam_search", only="wide beam")
def vocabulary_at_most(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    if beam_size > 9:
        raise RuntimeError("selected index k out of range")
    return on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty)


@mutant("beam_search", "tokens are no int64 vector", only="beam of one")
def one_beam_keeps_its_axis(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    text, score = on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty)
    return (text[None], score) if beam_size == 1 else (text, score)


@mutant("beam_search", "changes its inputs in place", only="inputs untouched")
def writes_into_the_prompt(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    text = on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty)
    prompt.add_(1)
    return text


@mutant("beam_search", only="finished texts")
def cuts_the_eos_of_an_early_end(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    text, score = on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty)
    return (text[:-1] if len(text) < len(prompt) + max_new_tokens else text), score


@mutant("beam_search", only="best text")
def cuts_what_is_cut_off(model, prompt, beam_size, max_new_tokens, eos, length_penalty=0.0):
    """The last token of a text that is cut off at max_new_tokens is lost, in middling beams."""
    text, score = on_lists(model, prompt, beam_size, max_new_tokens, eos, length_penalty)
    cut_off = len(text) == len(prompt) + max_new_tokens and length_penalty == 0 and beam_size in (3, 5)
    return (text[:-1] if cut_off else text), score
