"""Exercise `generate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.conduct import inputs_untouched
from autograder.checks.decoding import asks_no_more_than_needed, results_of, text_agrees, text_of
from autograder.checks.drawing import settings_of
from autograder.checks.stand_ins import PrefixModel
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import greedy, kept, whole
from autograder.oracle.multinomial import divergence, largest_divergence
from autograder.oracle.quantity import Quantity

__all__ = ["GENERATE", "model_and_prompt"]

MANY = 300
FALSE_ALARM = 1e-7


def model_and_prompt(draw: Draw, low: int = 3, high: int = 6) -> tuple[PrefixModel, Tensor]:
    """A model of 5 to 9 tokens, and a prompt of low..high of them."""
    vocabulary = draw.integer(5, 9)
    prompt = (draw.uniform(draw.integer(low, high)) * vocabulary).long()
    return PrefixModel(draw.integer(0, 2**31), vocabulary), prompt


def _inputs(
    draw: Draw, *, eos: str = "", new: tuple[int, int] = (6, 9), prompt: tuple[int, int] = (3, 6)
) -> dict[str, Any]:
    """eos: "early" (produced before the end, not in the prompt), "zero" (the same, token 0), "prompt" (in it as well)."""
    while True:
        model, text = model_and_prompt(draw, *prompt)
        most = draw.integer(*new)
        new_tokens = greedy(model.following, text.tolist(), most, None)[len(text) :]
        given = {"model": model, "prompt": text, "max_new_tokens": most}
        if len(set(new_tokens)) < min(3, most):
            continue  # a text that repeats itself could not tell mistakes apart
        if most > 1 and int(model.following(new_tokens[:1]).argmax()) == new_tokens[0]:
            continue  # nor could a token that follows itself
        if most > 1 and len(text) in (most - 1, most, most + 1, most / 2):
            continue  # nor a prompt whose length looks like another
        if not eos:
            return given
        stops = [
            token
            for place, token in enumerate(new_tokens)
            if 2 <= place <= most - 3
            and place == new_tokens.index(token)
            and (token in text) == (eos == "prompt")
            and (token == 0) == (eos == "zero")
        ]
        if stops:
            return {**given, "eos": stops[0]}


def _sampled(draw: Draw, **settings: Any) -> dict[str, Any]:
    model, prompt = model_and_prompt(draw)
    return {"model": model, "prompt": prompt, "max_new_tokens": 40, **settings}


def _heedless(draw: Draw, **settings: Any) -> dict[str, Any]:
    """A model that says the same of every text, so that many draws come from one distribution."""
    logits = torch.tensor([2.5, 1.5, 0.0, -1.5])[draw.permutation(4)]
    model = PrefixModel(0, 4, always=tuple(logits.tolist()))
    return {"model": model, "prompt": torch.tensor([draw.integer(0, 3)]), "max_new_tokens": MANY, **settings}


def _formula(
    model: PrefixModel,
    prompt: Tensor,
    max_new_tokens: int,
    eos: int | None = None,
    temperature: float = 0.0,
    **settings: Any,
) -> dict[str, Quantity]:
    if temperature != 0:
        raise ValueError("what is drawn is decided by chance")
    return {"tokens": whole(greedy(model.following, prompt.tolist(), max_new_tokens, eos))}


Follow = Callable[[PrefixModel, list[int], list[int]], Tensor]
"""The logits after (model, prompt, new tokens) in somebody's opinion."""


def _right(model: PrefixModel, prompt: list[int], new: list[int]) -> Tensor:
    return model.following(prompt + new)


def _variant(
    model: PrefixModel,
    prompt: Tensor,
    max_new_tokens: int,
    eos: int | None = None,
    *,
    follow: Follow = _right,
    choose: Callable[[Tensor], Tensor] = torch.argmax,
    length: Callable[[int, int], int] = lambda most, prompt: most,
    stops: Callable[[int, int | None, list[int]], bool] = lambda token, eos, text: token == eos,
    finish: Callable[[list[int], list[int], int | None], list[int]] = lambda prompt, new, eos: prompt + new,
    **settings: Any,
) -> Mapping[str, Tensor]:
    """Greedy decoding with knobs."""
    start, new = prompt.tolist(), list[int]()
    for _ in range(length(max_new_tokens, len(start))):
        if eos is not None and new and stops(new[-1], eos, start + new):
            break
        new.append(int(choose(follow(model, start, new))))
    return {"tokens": torch.tensor(finish(start, new, eos)).to(torch.float64)}


def _mistake(name: str, question: str, **knobs: Any) -> Mistake:
    return Mistake(name, question, partial(_variant, **knobs))


def _without_eos(prompt: list[int], new: list[int], eos: int | None) -> list[int]:
    return prompt + (new[:-1] if new and new[-1] == eos else new)


MISTAKES = (
    _mistake(
        "nothing is fed back",
        "Every step asks about the same text, so every step gets the same answer. Is the new token handed to the model?",
        follow=lambda model, prompt, new: model.following(prompt),
    ),
    _mistake(
        "the text so far is forgotten",
        "The new token is handed over with start=0, which begins a new text. Where does it stand?",
        follow=lambda model, prompt, new: model.following(new[-1:] or prompt),
    ),
    _mistake(
        "start is one too small",
        "Positions count from 0: the first new token stands at position len(prompt).",
        follow=lambda model, prompt, new: model.following(prompt[:-1] + new if new else prompt),
    ),
    _mistake(
        "start is one too large",
        "Positions count from 0: the first new token stands at position len(prompt).",
        follow=lambda model, prompt, new: model.following([*prompt, 0, *new] if new else prompt),
    ),
    _mistake(
        "the first row of the logits is read",
        "Row i predicts what follows position i. Which row follows the last one?",
        follow=lambda model, prompt, new: model.following(prompt[:1] if not new else prompt + new),
    ),
    _mistake("the least likely token is chosen", "argmax or argmin?", choose=torch.argmin),
    _mistake(
        "the prompt is left out",
        "The result is the prompt followed by the new tokens.",
        finish=lambda prompt, new, eos: new,
    ),
    _mistake(
        "only the last token comes back",
        "All new tokens are asked for, after the prompt.",
        finish=lambda prompt, new, eos: new[-1:],
    ),
    _mistake("eos is left out", "Does eos stay in the result?", finish=_without_eos),
    _mistake(
        "does not stop at eos",
        "What ends the loop when eos is produced?",
        stops=lambda token, eos, text: False,
    ),
    _mistake(
        "an eos in the prompt stops it",
        "Only an eos that the model has produced ends the text.",
        stops=lambda token, eos, text: eos in text,
    ),
    _mistake(
        "eos 0 counts as none",
        "Token 0 is a token. Is it `if eos is not None`?",
        stops=lambda token, eos, text: bool(eos) and token == eos,
    ),
    _mistake("one token too many", "How often does the loop run?", length=lambda most, prompt: most + 1),
    _mistake("one token too few", "How often does the loop run?", length=lambda most, prompt: most - 1),
    _mistake(
        "max_new_tokens counts the prompt",
        "It bounds the NEW tokens.",
        length=lambda most, prompt: max(0, most - prompt),
    ),
    _mistake(
        "as many new tokens as the prompt has",
        "The loop runs over the prompt. What should the length of the output depend on?",
        length=lambda most, prompt: prompt,
    ),
    _mistake(
        "new tokens go in front",
        "New tokens follow the text.",
        finish=lambda prompt, new, eos: new[::-1] + prompt,
    ),
)


def _draw(trial: Trial, seed: int) -> list[int]:
    return text_of(results_of(trial, generator=torch.Generator().manual_seed(seed))["tokens"])


def _settings_passed_on(trial: Trial) -> None:
    """What is drawn at each step can be drawn with these settings; with a heedless model, in the right shares."""
    prompt, model = trial.inputs["prompt"].tolist(), trial.inputs["model"]
    settings = settings_of(trial)
    text = _draw(trial, trial.draw.integer(0, 2**40))
    if text[: len(prompt)] != prompt or len(text) != len(prompt) + trial.inputs["max_new_tokens"]:
        raise Failure(f"{len(text)} tokens came back for a prompt of {len(prompt)} and the new ones.")
    for place in range(len(prompt), len(text)):
        probs = kept(model.following(text[:place]), **settings)
        if not 0 <= text[place] < len(probs) or probs[text[place]] == 0:
            raise Failure(
                f"token {text[place]} at position {place} cannot be drawn with {_words(settings)}. "
                "Are top_k and top_p passed on to sample_next_token?",
                mistake="top_k or top_p is not passed on",
            )
    if model.always is not None:
        counts = torch.bincount(torch.tensor(text[len(prompt) :]), minlength=len(model.always)).double()
        if divergence(counts, probs) > largest_divergence(int(counts.sum()), len(probs), FALSE_ALARM):
            best = int(probs.argmax())
            raise Failure(
                f"token {best} came in {float(counts[best] / counts.sum()):.0%} of {MANY} draws with "
                f"{_words(settings)}; its probability is {float(probs[best]):.0%}. Is the temperature passed on?",
                mistake="temperature is not passed on",
            )


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _reproducible(trial: Trial) -> None:
    """40 tokens, each of entropy well above half a bit: two independent texts agree with probability below 1e-7."""
    seed = trial.draw.integer(0, 2**40)
    first, again, other = _draw(trial, seed), _draw(trial, seed), _draw(trial, seed + 1)
    if first != again:
        raise Failure(
            "two generators of the same seed give different texts. Is the generator passed on?",
            mistake="generator is not passed on",
        )
    if first == other:
        raise Failure(
            "generators of different seeds give the same text. Is the generator passed on, as it is?",
            mistake="generator is not passed on",
        )


RECIPES = (
    Recipe("greedy", _inputs),
    Recipe("prompt of one token", partial(_inputs, prompt=(1, 1))),
    Recipe("eos", partial(_inputs, eos="early", new=(8, 12))),
    Recipe("eos is token 0", partial(_inputs, eos="zero", new=(8, 12))),
    Recipe("eos in the prompt, too", partial(_inputs, eos="prompt", new=(8, 12))),
    Recipe("no new token", partial(_inputs, new=(0, 0))),
    Recipe("one new token", partial(_inputs, new=(1, 1))),
    Recipe("long", partial(_inputs, new=(25, 35))),
    Recipe("drawn", partial(_sampled, temperature=1.5)),
    Recipe("drawn, top_k", partial(_sampled, temperature=2.0, top_k=2)),
    Recipe("drawn, top_p", partial(_sampled, temperature=2.0, top_p=0.4)),
    Recipe("drawn, hot", partial(_heedless, temperature=4.0)),
    Recipe("drawn, cold", partial(_heedless, temperature=0.5)),
)

TEXT = "text"

GENERATE = Exercise(
    name="generate",
    assignment="text_generation",
    target=Target("generate", ("tokens",), _formula),
    positional=("model", "prompt", "max_new_tokens"),
    recipes=RECIPES,
    checks=(
        Check(
            TEXT,
            "greedy: each token follows from all before it",
            1.5,
            ("greedy", "prompt of one token"),
            text_agrees(),
        ),
        Check(
            "length",
            "max_new_tokens new tokens, whatever the prompt's length; none if it is 0",
            0.5,
            ("one new token", "no new token", "long"),
            text_agrees(),
            TEXT,
        ),
        Check(
            "eos",
            "stops at an eos that the model has produced, and keeps it",
            0.75,
            ("eos", "eos is token 0"),
            text_agrees(),
            TEXT,
        ),
        Check(
            "eos in the prompt",
            "an eos in the prompt stops nothing",
            0.25,
            ("eos in the prompt, too",),
            text_agrees(),
            (TEXT, "eos"),
        ),
        Check(
            "cost",
            "each position is handed to the model once, and no call is in vain",
            1.0,
            ("greedy", "eos", "no new token"),
            asks_no_more_than_needed(),
            (TEXT, "eos"),
        ),
        Check(
            "temperature",
            "the temperature is passed on",
            0.5,
            ("drawn, hot", "drawn, cold"),
            _settings_passed_on,
            TEXT,
        ),
        Check(
            "top_k and top_p",
            "top_k and top_p are passed on",
            0.5,
            ("drawn, top_k", "drawn, top_p"),
            _settings_passed_on,
            TEXT,
        ),
        Check("generator", "the generator is passed on", 0.5, ("drawn",), _reproducible, TEXT),
        Check(
            "inputs untouched", "the prompt is not written to", 0.25, ("greedy",), inputs_untouched(), TEXT
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        "What does the model know already, and what is new to it? Only the new has to be handed over.",
        (
            "Keep three things: the text so far, the tokens that the model has not seen, and the position at which they "
            "start. First the unseen are the whole prompt, later the one new token."
        ),
        (
            "In the loop: `logits = model(fresh, start)`; `start += len(fresh)`; `fresh = sample_next_token(logits[-1], ...)"
            ".reshape(1)`; append it to the text; leave the loop if it is eos."
        ),
    ),
)
