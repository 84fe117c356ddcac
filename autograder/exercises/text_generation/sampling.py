"""Exercise `sample_next_token`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.conduct import inputs_untouched
from autograder.checks.decoding import refused
from autograder.checks.drawing import Settings, Slip, drawn_as_asked, one_source_of_randomness, tokens_of
from autograder.exercises.exercise import Exercise
from autograder.oracle.generation import kept
from autograder.oracle.quantity import Quantity

__all__ = ["SAMPLE_NEXT_TOKEN"]

SPREAD = (2.4, 1.7, 1.1, 0.6, 0.0, -0.7, -1.5)
"""Logits whose probabilities leave no doubt about what top_k and top_p keep."""


def _row(draw: Draw, logits: tuple[float, ...]) -> Tensor:
    return torch.tensor(logits)[draw.permutation(len(logits))]


def _settings(
    draw: Draw, *, logits: tuple[float, ...] = SPREAD, rows: int = 0, **settings: Any
) -> dict[str, Any]:
    """logits (V,), or `rows` different rows (rows, V), in another order each time; the settings as they are."""
    drawn = (
        _row(draw, logits)
        if not rows
        else torch.stack([_row(draw, logits) * (1 - 0.4 * n) for n in range(rows)])
    )
    return {"logits": drawn, **settings}


def _table(draw: Draw, **settings: Any) -> dict[str, Any]:
    """logits (B, S, V)."""
    return {"logits": draw.normal(*draw.sizes(3, low=3)), **settings}


def _shapes(trial: Trial) -> None:
    logits = trial.inputs["logits"]
    for given in (logits, logits[0], logits[0, 0]):
        tokens_of(trial, tuple(given.shape[:-1]), logits=given, generator=torch.Generator().manual_seed(1))


def _greedy(trial: Trial) -> None:
    logits = trial.inputs["logits"]
    tokens = tokens_of(trial, tuple(logits.shape[:-1]))
    expected = logits.argmax(-1)
    wrong = (tokens != expected).reshape(-1)
    if bool(wrong.any()):
        place = int(wrong.int().argmax())
        row = logits.reshape(-1, logits.shape[-1])[place]
        got, best = int(tokens.reshape(-1)[place]), int(expected.reshape(-1)[place])
        tie = (
            "Of equal logits the lower index counts as more likely."
            if float(row[got]) == float(row[best])
            else ""
        )
        raise Failure(
            f"temperature 0 chose token {got} (logit {float(row[got]):.3g}); the most likely is token {best} "
            f"(logit {float(row[best]):.3g}). {tie}".rstrip(),
            mistake="ties go to another token" if tie else "temperature 0 is not greedy",
        )


def _refuses(trial: Trial) -> None:
    for settings in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}):
        name, value = next(iter(settings.items()))
        refused(
            partial(trial.run, trial.changed(**settings)),
            f"{name}={value}",
            "settings out of range are accepted",
        )


def _rank(logits: Tensor) -> list[int]:
    return sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))


def _only(probs: Tensor, tokens: list[int]) -> Tensor:
    left = torch.zeros_like(probs)
    left[tokens] = probs[tokens]
    return left / left.sum()


def _without(*names: str) -> Callable[[Tensor, Settings], Tensor]:
    return lambda logits, given: kept(logits, **{n: v for n, v in given.items() if n not in names})


def _inverse(logits: Tensor, given: Settings) -> Tensor:
    return kept(logits, **{**given, "temperature": 1 / given.get("temperature", 1.0)})


def _nucleus_first(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, given.get("temperature", 1.0), None, given.get("top_p"))
    order = [token for token in _rank(logits)[: given.get("top_k")] if probs[token] > 0]
    return _only(probs, order)


def _crossing_dropped(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, given.get("temperature", 1.0), given.get("top_k"))
    order = _rank(logits)
    totals = probs[order].cumsum(0)
    chosen = [
        t for t, total in zip(order, totals, strict=True) if total <= given.get("top_p", 2.0) and probs[t] > 0
    ]
    return _only(probs, chosen or order[:1])


def _temperature_last(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, 1.0, given.get("top_k"), given.get("top_p"))
    hot = torch.softmax(logits / given.get("temperature", 1.0), 0)
    return _only(hot, [token for token in range(len(logits)) if probs[token] > 0])


def _all_ties(logits: Tensor, given: Settings) -> Tensor:
    last = logits[_rank(logits)[min(given.get("top_k", len(logits)), len(logits)) - 1]]
    probs = torch.softmax(logits / given.get("temperature", 1.0), 0)
    return _only(probs, [token for token in range(len(logits)) if logits[token] >= last])


def _other_k(more: int) -> Callable[[Tensor, Settings], Tensor]:
    def probs(logits: Tensor, given: Settings) -> Tensor:
        return kept(
            logits, **({**given, "top_k": max(1, given["top_k"] + more)} if "top_k" in given else given)
        )

    return probs


def _evenly(logits: Tensor, given: Settings) -> Tensor:
    return (kept(logits, **given) > 0).double() / int((kept(logits, **given) > 0).sum())


def _zero_logits(logits: Tensor, given: Settings) -> Tensor:
    chosen = kept(logits, **given) > 0
    return torch.softmax(torch.where(chosen, logits / given.get("temperature", 1.0), 0.0), 0)


def _by_size(logits: Tensor, given: Settings) -> Tensor:
    return logits.abs() / logits.abs().sum()


def _smallest(logits: Tensor, given: Settings) -> Tensor:
    probs = torch.softmax(logits / given.get("temperature", 1.0), 0)
    return _only(probs, _rank(-logits)[: given.get("top_k")])


def _threshold(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, given.get("temperature", 1.0), given.get("top_k"))
    chosen = [t for t in range(len(probs)) if probs[t] >= 1 - given.get("top_p", 1.0)]
    return _only(probs, chosen or _rank(logits)[:1])


SLIPS = (
    Slip(
        "always the most likely token", "Is it drawn, or is it argmax?", lambda logits, _: kept(logits, 0.0)
    ),
    Slip("drawn evenly", "Are the probabilities handed to multinomial?", _evenly),
    Slip("logits multiplied by temperature", "Is it logits / temperature?", _inverse),
    Slip("temperature is ignored", "Is it logits / temperature?", _without("temperature")),
    Slip(
        "top_p before top_k",
        "First top_k; what is left must sum to 1 again; then top_p counts it.",
        _nucleus_first,
    ),
    Slip(
        "temperature after top_p",
        "The temperature comes first: it changes what top_p keeps.",
        _temperature_last,
    ),
    Slip("top_k is ignored", "Is top_k used?", _without("top_k")),
    Slip("top_p is ignored", "Is top_p used?", _without("top_p")),
    Slip("top_k and top_p are ignored", "Are they used?", _without("top_k", "top_p")),
    Slip(
        "drops the token that crosses top_p",
        "The kept probabilities must sum to at least top_p. Is the token that crosses it kept?",
        _crossing_dropped,
    ),
    Slip(
        "top_p is taken for a threshold", "top_p bounds a sum of probabilities, not each of them.", _threshold
    ),
    Slip(
        "keeps every token that ties with the last",
        "Exactly top_k tokens are kept; lower index first.",
        _all_ties,
    ),
    Slip("keeps one token too few", "How many tokens does top_k keep?", _other_k(-1)),
    Slip("keeps one token too many", "How many tokens does top_k keep?", _other_k(1)),
    Slip("hidden logits set to 0", "exp(0) is 1. Should a dropped logit be -inf?", _zero_logits),
    Slip("the least likely are kept", "Which end of the sorted logits is kept?", _smallest),
    Slip("no softmax", "Logits are no probabilities. Where is the softmax?", _by_size),
)

RECIPES = (
    Recipe("several axes", _table),
    Recipe("greedy", partial(_table, temperature=0.0)),
    Recipe("greedy, with top_k and top_p", partial(_table, temperature=0.0, top_k=3, top_p=0.9)),
    Recipe("greedy, two equal", partial(_settings, logits=(2.0, 2.0, 0.5, -1.0), rows=2, temperature=0.0)),
    Recipe("cold", partial(_settings, temperature=0.5)),
    Recipe("as it is", _settings),
    Recipe("hot", partial(_settings, temperature=2.5)),
    Recipe("top_k", partial(_settings, top_k=3)),
    Recipe("top_k = 1", partial(_settings, top_k=1)),
    Recipe("top_k beyond the vocabulary", partial(_settings, top_k=50)),
    Recipe("top_p", partial(_settings, top_p=0.86)),
    Recipe("tiny top_p", partial(_settings, top_p=0.05)),
    Recipe("top_k, then top_p", partial(_settings, top_k=4, top_p=0.745)),
    Recipe("hot, then top_p", partial(_settings, temperature=3.0, top_p=0.62)),
    Recipe("all three", partial(_settings, temperature=1.8, top_k=5, top_p=0.72)),
    Recipe("equal logits", partial(_settings, logits=(2.0, 1.0, 1.0, 1.0, -1.0), top_k=2)),
    Recipe("rows that differ", partial(_settings, rows=3, temperature=0.8)),
    Recipe("rows that differ, cut", partial(_settings, rows=3, top_k=4, top_p=0.8)),
    Recipe("huge logits", partial(_settings, logits=(900.0, 899.0, 898.0, -900.0), temperature=0.9)),
    Recipe("some -inf", partial(_settings, logits=(1.0, 0.5, 0.0, -torch.inf, -torch.inf), top_k=4)),
    Recipe("two alike", partial(_settings, logits=(1.0, 1.0, 0.0))),
)


def _formula(logits: Tensor, temperature: float = 1.0, **settings: Any) -> dict[str, Quantity]:
    if temperature != 0:
        raise ValueError("what is drawn is decided by chance")
    tokens = logits.argmax(-1).to(torch.float64)
    return {"tokens": Quantity(tokens, tokens)}


DRAWN = drawn_as_asked(SLIPS)
PLAIN = "temperature"

SAMPLE_NEXT_TOKEN = Exercise(
    name="sample_next_token",
    assignment="text_generation",
    target=Target("sample_next_token", ("tokens",), _formula),
    positional=("logits",),
    recipes=RECIPES,
    checks=(
        Check(
            PLAIN,
            "tokens are drawn with probability softmax(logits / temperature)",
            1.0,
            ("as it is", "cold", "hot"),
            DRAWN,
        ),
        Check("shape", "logits (..., V) give tokens (...), int64", 0.25, ("several axes",), _shapes, PLAIN),
        Check(
            "greedy",
            "temperature 0 takes the most likely token",
            0.5,
            ("greedy", "greedy, with top_k and top_p", "greedy, two equal"),
            _greedy,
        ),
        Check(
            "top_k",
            "the top_k most likely are kept, whatever else is asked",
            0.5,
            ("top_k", "top_k = 1", "top_k beyond the vocabulary"),
            DRAWN,
            PLAIN,
        ),
        Check(
            "top_p", "as few of the most likely as sum to top_p", 0.5, ("top_p", "tiny top_p"), DRAWN, PLAIN
        ),
        Check(
            "order",
            "first temperature, then top_k, then top_p",
            0.5,
            ("top_k, then top_p", "hot, then top_p", "all three"),
            DRAWN,
            (PLAIN, "top_k", "top_p"),
        ),
        Check(
            "ties",
            "of equal logits the lower index goes first",
            0.25,
            ("equal logits",),
            DRAWN,
            (PLAIN, "top_k"),
        ),
        Check(
            "rows",
            "each row is drawn from its own logits",
            0.25,
            ("rows that differ", "rows that differ, cut"),
            DRAWN,
            (PLAIN, "top_k", "top_p"),
        ),
        Check(
            "extreme logits",
            "huge logits and -inf do no harm",
            0.25,
            ("huge logits", "some -inf"),
            DRAWN,
            PLAIN,
        ),
        Check(
            "generator", "the generator alone decides", 0.5, ("two alike",), one_source_of_randomness(), PLAIN
        ),
        Check(
            "inputs untouched",
            "the logits are not written to",
            0.25,
            ("all three",),
            inputs_untouched(),
            PLAIN,
        ),
        Check("refuses", "settings out of range raise ValueError", 0.25, ("as it is",), _refuses, PLAIN),
    ),
    mistakes=(),
    hints=(
        "Sort the logits once: then top_k is a slice, and top_p a running sum along the same axis.",
        (
            "For top_p ask of each token: how much probability have the tokens that are more likely? It stays if that is "
            "still below top_p. Keep `order` from the sort to get back to token numbers."
        ),
        (
            "`ranked, order = torch.sort(logits, descending=True, stable=True)`; softmax, slice, normalise, "
            "`before = probs.cumsum(-1) - probs`, zero where before >= top_p, multinomial, `order.gather`."
        ),
    ),
)
