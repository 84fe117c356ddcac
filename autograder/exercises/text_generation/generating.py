"""Exercise `generate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.decoding import asks_no_more_than_needed, require_text, results_of, text_of
from autograder.checks.drawing import (
    GENERATOR,
    Drawing,
    agree_by_chance,
    drawn_otherwise,
    settings_of,
)
from autograder.checks.stand_ins import PrefixModel
from autograder.circumstance import ORDINARY
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.generation import greedy, kept, whole
from autograder.oracle.quantity import Quantity
from autograder.situations import Factor, Group, Situations, groups, without

__all__ = ["GENERATE"]

HEEDLESS = (2.5, 1.5, 0.0, -1.5)


def _drawn(
    draw: Draw,
    *,
    eos: str = "",
    new: tuple[int, int] = (6, 9),
    prompt: tuple[int, int] = (3, 6),
    always: tuple[float, ...] = (),
    **settings: Any,
) -> dict[str, Any]:
    """A model of a few tokens, a prompt, and a text that tells mistakes apart; always: logits of a model that heeds nothing.

    eos: "early" (produced before the end, not in the prompt), "zero" (the same, token 0), "prompt" (in it as well), "bos"
    (its first token), "first" (produced at once), "last" (with the last token of all), "never".
    """
    while True:
        vocabulary = len(always) or draw.integer(*((12, 16) if eos == "never" else (5, 9)))
        text = (draw.uniform(draw.integer(*prompt)) * vocabulary).long()
        order = draw.permutation(vocabulary).tolist() if always else []
        model = PrefixModel(draw.integer(0, 2**31), vocabulary, tuple(always[n] for n in order) or None)
        most = draw.integer(*new)
        given = {"model": model, "prompt": text, "max_new_tokens": most, **settings}
        made = greedy(model.following, text.tolist(), most, None)[len(text) :]
        if always or (most < 2 and not eos):
            return given | ({"eos": int(text[-1])} if eos and not always else {})
        if not _varied(model, text, made, most):
            continue
        places = {"first": range(1), "last": range(2, most)}.get(eos, range(min(2, most - 1), most - 2))
        stops = [
            place
            for place in places
            if (token := made[place]) not in made[:place]
            and (token == 0) == (eos == "zero")
            and {"prompt": token in text[1:], "bos": token == text[0]}.get(eos, token not in text)
        ]  # fmt: skip
        unused = [token for token in range(vocabulary) if token not in made and token not in text]
        if not eos:
            return given
        if unused if eos == "never" else stops:
            given["eos"] = unused[-1] if eos == "never" else made[stops[0]]
            return given | ({"max_new_tokens": stops[0] + 1} if eos == "last" else {})


def _varied(model: PrefixModel, text: Tensor, made: list[int], most: int) -> bool:
    """Whether the text tells mistakes apart: it and its length repeat nothing."""
    if most < 2:
        return True
    repeats = int(model.following(made[:1]).argmax()) == made[0]
    return len(set(made)) >= 3 and not repeats and len(text) not in (most - 1, most, most + 1, most / 2)


Follow = Callable[[PrefixModel, list[int], list[int]], Tensor]
"""The logits after (model, prompt, new tokens) in somebody's opinion."""


def _next(
    logits: Tensor, temperature: float = 0.0, generator: torch.Generator | None = None, **settings: Any
) -> Tensor:
    if temperature == 0:
        return logits.argmax()
    return torch.multinomial(kept(logits, temperature, **settings), 1, generator=generator)[0]


def decoded(
    model: PrefixModel,
    prompt: Tensor,
    max_new_tokens: int,
    eos: int | None = None,
    *,
    follow: Follow = lambda model, prompt, new: model.following(prompt + new),
    choose: Callable[..., Tensor] = _next,
    length: Callable[[int, int], int] = lambda most, prompt: most,
    stops: Callable[[int, int | None, list[int]], bool] = lambda token, eos, text: token == eos,
    finish: Callable[[list[int], list[int], int | None], list[int]] = lambda prompt, new, eos: prompt + new,
    **settings: Any,
) -> Tensor:
    """A text in steps: what the model is asked, which token is taken, how many at most, what ends it, what comes back."""
    start, new = prompt.tolist(), list[int]()
    for _ in range(length(max_new_tokens, len(start))):
        if eos is not None and new and stops(new[-1], eos, start + new):
            break
        new.append(int(choose(follow(model, start, new), **settings)))
    return torch.tensor(finish(start, new, eos), dtype=torch.int64)


def _without_eos(prompt: list[int], new: list[int], eos: int | None) -> list[int]:
    return prompt + (new[:-1] if new and new[-1] == eos else new)


PLACE = "Positions count from 0: the first new token stands at position len(prompt)."
SLIPS: Slips = {
    "Every step asks about the same text, so every step gets the same answer. Is the new token handed to the model?": {
        "nothing is fed back": {"follow": lambda model, prompt, new: model.following(prompt)},
    },
    "The new token is handed over with start=0, which begins a new text. Where does it stand?": {
        "the text so far is forgotten": {"follow": lambda model, prompt, new: model.following(new[-1:] or prompt)},
    },
    PLACE: {
        "start is one too small": {"follow": lambda model, prompt, new: model.following(prompt[:-1] + new if new else prompt)},
        "start is one too large": {"follow": lambda model, prompt, new: model.following([*prompt, 0, *new] if new else prompt)},
    },
    "Row i predicts what follows position i. Which row follows the last one?": {
        "the first row of the logits is read":
            {"follow": lambda model, prompt, new: model.following(prompt + new if new else prompt[:1])},
    },
    "argmax or argmin?": {"the least likely token is chosen": {"choose": lambda logits, **settings: _next(-logits, **settings)}},
    "The result is the prompt followed by the new tokens.": {
        "the prompt is left out": {"finish": lambda prompt, new, eos: new},
    },
    "All new tokens are asked for, after the prompt.": {
        "only the last token comes back": {"finish": lambda prompt, new, eos: (prompt + new)[-1:]},
    },
    "Does eos stay in the result?": {"eos is left out": {"finish": _without_eos}},
    "Only an eos that the model has produced ends the text.": {
        "an eos in the prompt stops it": {"stops": lambda token, eos, text: eos in text},
    },
    "Is the first new token compared with eos, too?": {
        "goes on after an eos that comes first": {"stops": lambda token, eos, text: text.count(eos) > 1 and token == eos},
    },
    "Token 0 is a token. Is it `if eos is not None`?": {
        "eos 0 counts as none": {"stops": lambda token, eos, text: bool(eos) and token == eos},
    },
    "What ends the loop when eos is produced?": {"does not stop at eos": {"stops": lambda token, eos, text: False}},
    "How often does the loop run?": {
        "one token too many": {"length": lambda most, prompt: most + 1},
        "one token too few": {"length": lambda most, prompt: most - 1},
    },
    "It bounds the NEW tokens.": {"max_new_tokens counts the prompt": {"length": lambda most, prompt: max(0, most - prompt)}},
    "The loop runs over the prompt. What should the length of the output depend on?": {
        "as many new tokens as the prompt has": {"length": lambda most, prompt: prompt},
    },
    "New tokens follow the text.": {"new tokens go in front": {"finish": lambda prompt, new, eos: new[::-1] + prompt}},
}  # fmt: skip


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


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    """Greedy texts are the formula's; a drawn one can be drawn with these settings, in the right shares."""
    text, settings = text_of(results["tokens"]), settings_of(trial)
    if not settings.get("temperature"):
        require_text(trial, text)
        return
    prompt, model, most = (trial.inputs[name] for name in ("prompt", "model", "max_new_tokens"))
    eos = trial.inputs.get("eos")
    new = text[len(prompt) :]
    length = new.index(eos) + 1 if eos in new else most
    if text[: len(prompt)] != prompt.tolist() or len(new) != length:
        raise Failure(
            f"{len(new)} tokens came back behind a prompt of {len(prompt)}; {length} were expected.",
            mistake="does not stop at eos" if eos and eos in new[1:] and new[0] != eos else None,
        )
    asked = [
        kept(model.following(text[:place]), **settings)
        for place in range(len(prompt), len(text) if model.always is None else len(prompt) + 1)
    ]
    asked *= 1 if model.always is None else len(new)
    said = ", ".join(f"{name}={value}" for name, value in settings.items())
    for place, (token, probs) in enumerate(zip(new, asked, strict=True), len(prompt)):
        if not 0 <= token < len(probs) or probs[token] == 0:
            raise Failure(
                f"token {token} at position {place} cannot be drawn with {said}. "
                "Are top_k and top_p passed on to sample_next_token?",
                mistake="top_k or top_p is not passed on",
            )
    if model.always is not None and new:
        counts, probs = (
            one.reshape(min(8, len(one)), -1).sum(1)
            for one in (torch.bincount(torch.tensor(new), minlength=model.vocabulary).double(), asked[0])
        )
        if drawn_otherwise(counts, probs):
            raise Failure(
                f"{counts.long().tolist()} of {len(new)} draws with {said} lie in equal shares of the vocabulary; their "
                f"probabilities are {[round(float(one), 2) for one in probs]}. Is the temperature passed on?",
                mistake="temperature is not passed on",
            )
    _require_source(trial, text, asked)


def _require_source(trial: Trial, text: list[int], probs: list[Tensor]) -> None:
    """The generator alone decides."""
    level = trial.case.situation.get("generator")
    if level == A_GENERATOR or not probs:
        return

    def draw(generator: torch.Generator) -> list[int]:
        given = {} if level == NO_GENERATOR else {"generator": generator}
        with trial.within(ORDINARY):
            return text_of(results_of(trial, **given)["tokens"])

    source, same, other = (torch.Generator().manual_seed(seed) for seed in (1, 1, 2))
    one, again = draw(source), draw(same)
    surely = not agree_by_chance(probs, len(probs))
    if level == EXAMINED and surely and draw(source) == one:
        raise Failure(
            "two texts in a row, drawn with one generator, are the same. Is the generator copied, or seeded again?",
            mistake="generator does not move on",
        )
    if level == EXAMINED and (one != again or (surely and draw(other) == one)):
        raise Failure(
            "two generators of the same seed give different texts, or those of different seeds the same. "
            "Is the generator passed on, as it is?",
            mistake="generator is not passed on",
        )
    if level == NO_GENERATOR and surely and one == again:
        name = "the same text each time without a generator"
        raise Failure("without a generator each call gives the same text.", mistake=name)


A_GENERATOR, EXAMINED, NO_GENERATOR = GENERATOR
HOT = tuple(f"over a hundred tokens drawn, {how}" for how in ("hot", "cold", "of a tiny temperature"))
MANY, SURE = "over a hundred drawn from many", "cuts at temperature 0"
TIES = "greedy, of equal logits"
FACTORS: Mapping[str, Factor] = {
    "prompt": {
        "a prompt of several tokens": {}, "a prompt of one token": {"prompt": (1, 1)},
        "over two hundred tokens in the prompt": {"prompt": (257, 270)},
    },
    "lengths": {
        "several new tokens": {}, "one new token": {"new": (1, 1)}, "no new token": {"new": (0, 0)},
        "over a hundred new tokens": {"new": (131, 139)},
    },
    "eos": {
        "no eos": {}, "eos": {"eos": "early"}, "eos is token 0": {"eos": "zero"}, "eos in the prompt, too": {"eos": "prompt"},
        "eos begins the prompt": {"eos": "bos"}, "eos comes first": {"eos": "first"}, "eos comes last": {"eos": "last"},
        "eos never comes": {"eos": "never"},
    },
    "temperature": {
        "greedy": {}, "temperature 0": {"temperature": 0.0}, "drawn": {"temperature": 2.0, "new": (17, 19)},
        TIES: {"temperature": 0.0, "always": (2.0, 1.0, 2.0, 0.0, 2.0)},
        HOT[0]: {"temperature": 20.0, "new": (80, 80), "always": HEEDLESS},
        HOT[1]: {"temperature": 0.2, "new": (80, 80), "always": HEEDLESS},
        HOT[2]: {"temperature": 0.04, "new": (80, 80), "always": tuple(0.04 * one for one in HEEDLESS)},
    },
    "cut": {
        "no cut": {}, "drawn with top_k": {"temperature": 2.0, "top_k": 2, "new": (9, 11)},
        "drawn with top_p": {"temperature": 2.0, "top_p": 0.4, "new": (9, 11)},
        "drawn with both": {"temperature": 3.0, "top_k": 3, "top_p": 0.4, "new": (9, 11)},
        SURE: {"temperature": 0.0, "top_k": 3, "top_p": 0.9},
        MANY: {"temperature": 1.0, "new": (60, 60), "always": (0.0,) * 256},
    },
    "generator": GENERATOR,
}  # fmt: skip
DRAWN = tuple(without(FACTORS["temperature"], "greedy", "temperature 0", TIES))
LONG = tuple(name for of in FACTORS.values() for name in of if name.startswith("over "))
NONE, ONE = "no new token", "one new token"


def _special(factor: str) -> tuple[str, ...]:
    """All levels but the ordinary one."""
    return tuple(FACTORS[factor])[1:]


GENERATE = Exercise(
    name="generate",
    assignment="text_generation",
    target=Target("generate", ("tokens",), _formula),
    positional=("model", "prompt", "max_new_tokens"),
    used_as=Drawing,
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes={"prompt": "S"},
        groups=groups(
            "greedy: each token follows from all before it", 1.5,
            (
                Group("length", "max_new_tokens new tokens, whatever the prompt's length; none if it is 0", 0.5,
                      ("prompt", "lengths")),
                Group("eos", "stops at an eos that the model has produced, and keeps it; one in the prompt stops nothing", 1.0,
                      ("eos",)),
                Group("temperature", "the temperature is passed on", 0.5, ("temperature",)),
                Group("top_k and top_p", "top_k and top_p are passed on", 0.5, ("cut",)),
                Group("generator", "the generator is passed on", 0.5, ("generator",)),
            ), calls=0.25,
        ),
        never=(
            {"lengths": (NONE, ONE), "eos": tuple(without(FACTORS["eos"], "no eos", "eos never comes"))},
            {"lengths": _special("lengths"), "temperature": DRAWN}, {"lengths": _special("lengths"), "cut": _special("cut")},
            {"temperature": _special("temperature"), "cut": _special("cut")},
            *({of: level, name: _special(name)} for name in ("prompt", "eos", "generator")
              for of, level in (("temperature", HOT), ("cut", MANY))),
            *({"prompt": LONG, name: _special(name)} for name in ("lengths", "eos", "temperature", "cut")),
            {"lengths": LONG, "eos": _special("eos")},
            {"prompt": "a prompt of one token", "eos": "eos in the prompt, too"},
            {"generator": EXAMINED, "temperature": ("greedy", "temperature 0", TIES), "cut": ("no cut", SURE)},
            {"temperature": TIES, "eos": _special("eos")},  # it repeats one token
            {"generator": tuple(GENERATOR)[1:], "eos": _special("eos")},  # what ends early may be equal by chance
        ),
        left_out={
            "device": "the model that is handed over answers on the CPU",
            "layout: expanded": "a prompt has no leading axis",
            "gradient: a gradient asked": "a token has no gradient",
            "gradient: a gradient of one input": "a token has no gradient",
            "gradient: activation checkpointing": "a token has no gradient",
        },
        right=_right,
        names={
            ("cut", SURE): ("not greedy at temperature 0", "At temperature 0, what do top_k and top_p change?"),
            ("temperature", TIES): ("ties go to another token", "Of equal logits the lower index counts as more likely."),
        },
    ),
    recipes=(
        Recipe("greedy", _drawn), Recipe("eos", lambda draw: _drawn(draw, eos="early", new=(8, 12))),
        Recipe("no new token", lambda draw: _drawn(draw, new=(0, 0))),
        Recipe("drawn", lambda draw: _drawn(draw, temperature=2.0, new=(8, 12))),
        Recipe("a long prompt", lambda draw: _drawn(draw, prompt=(40, 44))),
    ),
    checks=(
        Check("cost", "each position is handed to the model once, and no call is in vain", 1.0,
              ("greedy", "eos", "no new token", "drawn", "a long prompt"), asks_no_more_than_needed(),
              ("agrees with the formula", "eos")),
    ),
    mistakes=slips(decoded, SLIPS, output="tokens"),
    hints=(
        "What does the model know already, and what is new to it? Only the new has to be handed over.",
        "Keep three things: the text so far, the tokens that the model has not seen, and the position at which they "
        "start. First the unseen are the whole prompt, later the one new token.",
        "In the loop: `logits = model(fresh, start)`; `start += len(fresh)`; `fresh = sample_next_token(logits[-1], ...)"
        ".reshape(1)`; append it to the text; leave the loop if it is eos.",
    ),
)  # fmt: skip
