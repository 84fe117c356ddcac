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


def variant(name, named, change, only=None):
    """`change` is given all arguments but the model and the prompt as a mapping."""

    def generate(
        model, prompt, max_new_tokens, eos=None, temperature=0.0, top_k=None, top_p=None, generator=None
    ):
        given = {
            "max_new_tokens": max_new_tokens,
            "eos": eos,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
        }
        return change(model, prompt, {**given, "generator": generator})

    generate.__name__ = name
    mutant("generate", named, only=only)(generate)


def with_others(**others):
    """Right, but for these arguments, each a function of all that were given."""
    return lambda model, prompt, given: keeps_a_list(
        model, prompt, **{**given, **{name: other(given) for name, other in others.items()}}
    )


def with_model(change):
    """Right, of a model that is asked in another way."""
    return lambda model, prompt, given: keeps_a_list(
        lambda tokens, start: change(model, prompt, tokens, start), prompt, **given
    )


def whole_text_each_time():
    text = []

    def ask(model, prompt, tokens, start):
        text[start:] = tokens.tolist()
        return model(torch.tensor(text))

    return ask


def goes_on_after_a_first_eos(model, prompt, given):
    text = keeps_a_list(model, prompt, **{**given, "max_new_tokens": min(1, given["max_new_tokens"])})
    return keeps_a_list(model, text, **{**given, "max_new_tokens": max(0, given["max_new_tokens"] - 1)})


def asks_once_more(model, prompt, given):
    text = keeps_a_list(model, prompt, **given)
    model(text[-1:], len(text) - 1)
    return text


def writes_into_the_prompt(model, prompt, given):
    text = keeps_a_list(model, prompt, **given)
    prompt.zero_()
    return text


def seeded(given):
    return given["generator"] or torch.Generator().manual_seed(42)


variant(
    "forgets",
    "the text so far is forgotten",
    with_model(lambda model, prompt, tokens, start: model(tokens, 0)),
)
variant(
    "late_start",
    "start is one too large",
    with_model(lambda m, prompt, tokens, start: m(tokens, start + (start > 0))),
)
variant(
    "first_row",
    "the first row of the logits is read",
    with_model(lambda m, prompt, tokens, start: m(tokens, start)[:1]),
)
variant("window", None, with_model(lambda model, prompt, tokens, start: model(tokens[-64:], start)))
variant("first_eos", None, goes_on_after_a_first_eos)
variant(
    "eos_if_greedy",
    "does not stop at eos",
    with_others(eos=lambda given: None if given["temperature"] else given["eos"]),
)
variant("at_least_one", None, with_others(max_new_tokens=lambda given: max(1, given["max_new_tokens"])))
variant(
    "cold",
    "temperature is not passed on",
    with_others(temperature=lambda given: min(given["temperature"], 1.0)),
)
variant(
    "rounded",
    "temperature is not passed on",
    with_others(temperature=lambda given: round(given["temperature"], 1)),
)
variant("no_top_k", "top_k or top_p is not passed on", with_others(top_k=lambda given: None))
variant(
    "one_cut",
    "top_k or top_p is not passed on",
    with_others(top_p=lambda given: given["top_p"] if not given["top_k"] else None),
)
variant("no_generator", "generator is not passed on", with_others(generator=lambda given: None))
variant("always_seeded", "the same text each time without a generator", with_others(generator=seeded))
variant(
    "whole_text", "computes the whole text at every step", with_model(whole_text_each_time()), only="cost"
)
variant("once_more", "asks once too often", asks_once_more)
variant("writes", "changes its inputs in place", writes_into_the_prompt)
variant(
    "a_matrix", "tokens are no int64 vector", lambda m, p, given: keeps_a_list(m, p, **given).unsqueeze(0)
)
variant(
    "a_list", "does not return what is asked for", lambda m, p, given: keeps_a_list(m, p, **given).tolist()
)
