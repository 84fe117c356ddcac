"""`generate`: right writings and mutants."""

from __future__ import annotations

import torch

from tests.exercises.catalogue import mutant, right
from tests.exercises.text_generation.sampling import masks_by_rank as sample


@right("generate")
def keeps_a_list(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    text, known = prompt.tolist(), 0
    while len(text) < len(prompt) + max_new_tokens:
        logits = model(torch.tensor(text[known:]), known)
        known = len(text)
        text.append(int(sample(logits[-1], temperature, top_k, top_p, generator)))
        if text[-1] == eos:
            break
    return torch.tensor(text)


@right("generate")
def fills_a_buffer(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    S = prompt.size(0)
    text = torch.empty(S + max_new_tokens, dtype=torch.long)
    text[:S] = prompt
    for place in range(S, S + max_new_tokens):
        first = 0 if place == S else place - 1
        logits = model(text[first:place], start=first)[-1:]
        text[place] = sample(logits, temperature, top_k, top_p, generator)[0]
        if eos is not None and text[place] == eos:
            return text[: place + 1]
    return text


@right("generate")
def calls_itself(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    def rest(fresh, start, left):
        if left == 0:
            return []
        logits = model(fresh, start)[-1]
        token = sample(logits, temperature, top_k, top_p, generator).view(1)
        ended = eos is not None and bool(token == eos)
        return [token] if ended else [token, *rest(token, start + fresh.numel(), left - 1)]

    return torch.cat([prompt, *rest(prompt, 0, max_new_tokens)])


def generator_of(
    *,
    ask=lambda model, text, known: model(torch.tensor(text[known:]), known),
    row=lambda logits: logits[-1],
    length=lambda most, prompt: most,
    ends=lambda text, prompt, eos: text[-1] == eos,
    finish=lambda text, prompt, eos: text,
    choose=sample,
    settings=lambda t, k, p, g: (t, k, p, g),
    after=lambda model, text: None,
):
    """A generator with knobs."""

    def generate(
        model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
    ):
        text, known = prompt.tolist(), 0
        for _ in range(length(max_new_tokens, len(prompt))):
            if eos is not None and len(text) > len(prompt) and ends(text, len(prompt), eos):
                break
            logits = ask(model, text, known)
            known = len(text)
            text.append(int(choose(row(logits), *settings(temperature, top_k, top_p, generator))))
        after(model, text)
        return torch.tensor(finish(text, prompt.tolist(), eos), dtype=torch.long)

    return generate


def variant(name, named, only=None, **knobs):
    generate = generator_of(**knobs)
    generate.__name__ = name
    mutant("generate", named, only=only)(generate)


def least(logits, t, k, p, g):
    return logits.argmin(-1) if t == 0 else sample(logits, t, k, p, g)


def fixed_prompt():
    first = {}

    def ask(model, text, known):
        if known == 0:
            first["text"] = list(text)
        return model(torch.tensor(first["text"]), 0)

    return ask


def no_eos_for_zero(text, prompt, eos):
    return bool(eos) and text[-1] == eos


variant("feeds_nothing_back", "nothing is fed back", ask=fixed_prompt())
variant(
    "forgets",
    "the text so far is forgotten",
    ask=lambda model, text, known: model(torch.tensor(text[known:]), 0),
)
variant(
    "start_one_too_small",
    "start is one too small",
    ask=lambda model, text, known: model(torch.tensor(text[known:]), max(0, known - 1)),
)
variant(
    "start_one_too_large",
    "start is one too large",
    ask=lambda model, text, known: model(torch.tensor(text[known:]), known + 1 if known else 0),
)
variant("first_row", "the first row of the logits is read", row=lambda logits: logits[0])
variant("least_likely", "the least likely token is chosen", choose=least)
variant("new_tokens_only", "the prompt is left out", finish=lambda text, prompt, eos: text[len(prompt) :])
variant("last_token_only", "only the last token comes back", finish=lambda text, prompt, eos: text[-1:])
variant(
    "cuts_eos",
    "eos is left out",
    only="eos",
    finish=lambda text, prompt, eos: text[:-1] if len(text) > len(prompt) and text[-1] == eos else text,
)
variant("never_stops", "does not stop at eos", only="eos", ends=lambda text, prompt, eos: False)
variant(
    "any_eos_stops",
    "an eos in the prompt stops it",
    only="eos in the prompt",
    ends=lambda text, prompt, eos: eos in text,
)
variant("zero_is_no_eos", "eos 0 counts as none", only="eos", ends=no_eos_for_zero)
variant("one_too_many", "one token too many", length=lambda most, prompt: most + 1)
variant("one_too_few", "one token too few", length=lambda most, prompt: most - 1)
variant("length_of_all", "max_new_tokens counts the prompt", length=lambda most, prompt: most - prompt)
variant("length_of_the_prompt", "as many new tokens as the prompt has", length=lambda most, prompt: prompt)
variant(
    "in_front",
    "new tokens go in front",
    finish=lambda text, prompt, eos: text[len(prompt) :][::-1] + prompt,
)
variant(
    "whole_text_each_time",
    "computes the whole text at every step",
    only="cost",
    ask=lambda model, text, known: model(torch.tensor(text), 0),
)
variant(
    "asks_once_more",
    "asks once too often",
    only="cost",
    after=lambda model, text: model(torch.tensor(text[-1:]), len(text) - 1),
)
variant(
    "no_temperature",
    "temperature is not passed on",
    only="temperature",
    settings=lambda t, k, p, g: (min(t, 1.0), k, p, g),
)
variant(
    "no_top_k",
    "top_k or top_p is not passed on",
    only="top_k and top_p",
    settings=lambda t, k, p, g: (t, None, p, g),
)
variant(
    "no_top_p",
    "top_k or top_p is not passed on",
    only="top_k and top_p",
    settings=lambda t, k, p, g: (t, k, None, g),
)
variant(
    "no_generator",
    "generator is not passed on",
    only="generator",
    settings=lambda t, k, p, g: (t, k, p, None),
)
variant("at_least_one", None, only="length", length=lambda most, prompt: max(1, most))


@mutant("generate", "changes its inputs in place", only="inputs untouched")
def writes_into_the_prompt(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    text = keeps_a_list(model, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator)
    prompt.zero_()
    return text


@mutant("generate", "tokens are no int64 vector", only="text")
def a_matrix(
    model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
):
    return keeps_a_list(model, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator).unsqueeze(0)


@mutant("generate", "does not return what is asked for")
def a_list(model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None):
    return keeps_a_list(model, prompt, max_new_tokens, eos, temperature, top_k, top_p, generator).tolist()
