"""Exercise `sample_next_token`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target, Trial
from autograder.checks.decoding import refused
from autograder.checks.drawing import (
    DRAWS,
    GENERATOR,
    Drawing,
    Probabilities,
    Settings,
    Slips,
    drawn_as_asked,
)
from autograder.exercises.exercise import Exercise
from autograder.oracle.generation import kept, whole
from autograder.oracle.quantity import Quantity
from autograder.situations import DTYPES, Factor, Group, Situations, groups, without

__all__ = ["SAMPLE_NEXT_TOKEN"]

HALF = (torch.float16, torch.bfloat16)
SHAPES = {0: (), 1: (DRAWS,), 2: (DRAWS // 30, 30), 3: (2, DRAWS // 60, 30)}
"""Leading axes of the logits, by their number."""

SPREAD = (2.4, 1.7, 1.1, 0.6, 0.0, -0.7, -1.5)
"""Logits whose probabilities leave no doubt about what top_k and top_p keep."""

MET, BOTH = "a sum that meets top_p", "top_p of what top_k keeps"
HARDLY, COLD, ZERO = "two that hardly differ", "a cold temperature", "temperature 0"
MILLIONTH = "a temperature of a millionth"
LONG, EVEN = "over thirty thousand tokens", "fifteen hundred equal tokens"
UNLIKE = "rows of other logits"


def _hardly(dtype: torch.dtype) -> Tensor:
    """The two highest differ by a few roundings only."""
    row = torch.tensor(SPREAD, dtype=dtype)
    row[1] = row[0] * (1 - 64 * torch.finfo(dtype).eps)
    return row


def _mixed(row: Tensor, hardly: bool) -> Tensor:
    """The row, or where two hardly differ that order in which the lower one comes first."""
    first, second = row.topk(2).indices.tolist()
    return row.flip(0) if hardly and first < second else row


def _lower(logits: Tensor, given: Settings) -> Tensor:
    """Logits that are closer to each other, in full precision far below; no sum of their probabilities is near top_p."""
    temperature, top_k, top_p = (given.get(name) for name in ("temperature", "top_k", "top_p"))
    size = float(logits.nan_to_num(neginf=0.0).abs().max())
    down = (
        0.0 if logits.dtype in HALF else 100 * size
    )  # half precision would leave nothing of the differences

    def gap(other: Tensor) -> float:
        sums = kept(other.double(), temperature or 1.0, top_k).sort(descending=True).values.cumsum(0)
        return 1.0 if top_p is None else float((sums[:-1] - top_p).abs().min())

    return max((logits * share - down for share in (0.3, 0.4, 0.5, 0.6, 0.25, 0.2)), key=gap)


def _drawn(
    draw: Draw,
    *,
    row: tuple[float, ...] = SPREAD,
    hardly: bool = False,
    axes: int = 1,
    batch: int = 0,
    rows: int = 1,
    unlike: bool = False,
    even: int = 0,
    V: int = 0,
    k: int = 3,
    top_k: int | str | None = None,
    top_p: float | str | None = None,
    temperature: float | None = None,
    sized: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Any]:
    """logits (..., V): this row in another order, or `rows` orders of it in turn; V: as the last of so many tokens.

    unlike: every other row has logits of its own, far lower. even: so many equal ones in place of the row.
    sized: a factor of the logits. top_k: a number, or "k" (which is `k`). top_p: a number, "inside" (well between two
    sums of probabilities), or "met" (the sum of two of four equal ones).
    """
    logits = (
        _hardly(dtype)
        if hardly
        else torch.tensor((0.5,) * 4 + (-torch.inf,) * 3 if top_p == "met" else row, dtype=dtype)
    )
    logits = logits * sized
    given: dict[str, Any] = {} if temperature is None else {"temperature": temperature}
    if top_k is not None:
        given["top_k"] = k if top_k == "k" else top_k
    if top_p == "inside":
        probs = kept(logits.double(), temperature or 1.0, given.get("top_k")).sort(descending=True).values
        last = max(
            range(1, len(probs)), key=lambda n: float(probs[n])
        )  # the second, or the first of its equals
        top_p = round(float(probs[:last].sum() + 0.75 * probs[last]), 3)
    if top_p is not None:
        given["top_p"] = 0.5 if top_p == "met" else top_p
    kinds = [logits, _lower(logits, given)] if unlike else [logits]
    orders = torch.stack(
        [_mixed(kinds[n % len(kinds)][draw.permutation(len(logits))], hardly) for n in range(rows)]
    )
    if even:
        orders = torch.zeros(rows, even, dtype=dtype)
    lead = (1, 3) if V else (batch, *SHAPES[axes]) if batch else SHAPES[axes]
    many = orders[torch.arange(max(1, torch.Size(lead).numel())) % rows]
    if V:
        many = torch.cat([torch.full((len(many), V - len(logits)), -torch.inf, dtype=dtype), many], -1)
    return {"logits": many.reshape(*lead, -1), **given}


def _refuses(trial: Trial) -> None:
    for settings in (
        {"temperature": -1.0},
        {"top_k": 0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": -0.5},
        {"top_p": 1.5},
    ):
        for more in ({}, {"temperature": 0.0}) if "temperature" not in settings else ({},):
            said = ", ".join(f"{name}={value}" for name, value in {**settings, **more}.items())
            call = partial(trial.run, trial.changed(**settings, **more))
            refused(call, said, "settings out of range are accepted")


def _rank(logits: Tensor) -> list[int]:
    return sorted(range(len(logits)), key=lambda token: (-float(logits[token]), token))


def _only(probs: Tensor, tokens: list[int]) -> Tensor:
    left = torch.zeros_like(probs)
    left[tokens] = probs[tokens]
    return left / left.sum()


def _hot(logits: Tensor, given: Settings) -> Tensor:
    return torch.softmax(logits / given.get("temperature", 1.0), 0)


def _without(*names: str, **others: Callable[[Settings], Any]) -> Probabilities:
    """As asked, but without these settings, or with others."""
    return lambda logits, given: kept(
        logits, **{n: others[n](given) if n in others else v for n, v in given.items() if n not in names}
    )


def _neither(logits: Tensor, given: Settings) -> Tensor:
    both = "top_k" in given and "top_p" in given
    return _hot(logits, given) if both else kept(logits, **given)


def _nucleus_first(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, given.get("temperature", 1.0), None, given.get("top_p"))
    return _only(probs, [token for token in _rank(logits)[: given.get("top_k")] if probs[token] > 0])


def _crossing_dropped(logits: Tensor, given: Settings) -> Tensor:
    probs, order = kept(logits, given.get("temperature", 1.0), given.get("top_k")), _rank(logits)
    totals = zip(order, probs[order].cumsum(0), strict=True)
    chosen = [t for t, total in totals if total <= given.get("top_p", 2.0) and probs[t] > 0]
    return _only(probs, chosen or order[:1])


def _meeting_kept(logits: Tensor, given: Settings) -> Tensor:
    probs, order = kept(logits, given.get("temperature", 1.0), given.get("top_k")), _rank(logits)
    before = zip(order, probs[order].cumsum(0) - probs[order], strict=True)
    return _only(probs, [t for t, sum_ in before if sum_ <= given.get("top_p", 2.0)])


def _temperature_last(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, 1.0, given.get("top_k"), given.get("top_p"))
    return _only(_hot(logits, given), [token for token in range(len(logits)) if probs[token] > 0])


def _all_ties(logits: Tensor, given: Settings) -> Tensor:
    last = logits[_rank(logits)[min(given.get("top_k", len(logits)), len(logits)) - 1]]
    return kept(logits.masked_fill(logits < last, -torch.inf), **{**given, "top_k": None})


def _least_kept(logits: Tensor, given: Settings) -> Tensor:
    least = _only(torch.ones_like(logits), _rank(-logits)[: given.get("top_k")]) > 0
    return kept(logits.masked_fill(~least, -torch.inf), **{**given, "top_k": None})


def _evenly(logits: Tensor, given: Settings) -> Tensor:
    chosen = kept(logits, **given) > 0
    return chosen.double() / int(chosen.sum())


def _zero_logits(logits: Tensor, given: Settings) -> Tensor:
    return torch.softmax(
        torch.where(kept(logits, **given) > 0, logits / given.get("temperature", 1.0), 0.0), 0
    )


def _threshold(logits: Tensor, given: Settings) -> Tensor:
    probs = kept(logits, given.get("temperature", 1.0), given.get("top_k"))
    chosen = [t for t in range(len(probs)) if probs[t] >= 1 - given.get("top_p", 1.0)]
    return _only(probs, chosen or _rank(logits)[:1])


SLIPS: Slips = {
    "First top_k; what is left must sum to 1 again; then top_p counts it.": {"top_p before top_k": _nucleus_first},
    "The temperature comes first: it changes what top_p keeps.": {"temperature after top_p": _temperature_last},
    "The kept probabilities must sum to at least top_p. Is the token that crosses it kept?": {
        "drops the token that crosses top_p": _crossing_dropped,
    },
    "The smallest number of tokens that sum to at least top_p. Is it >= where > stands?": {
        "keeps a token too many where a sum meets top_p": _meeting_kept,
    },
    "top_p bounds a sum of probabilities, not each of them.": {"top_p is taken for a threshold": _threshold},
    "Exactly top_k tokens are kept; lower index first.": {"keeps every token that ties with the last": _all_ties},
    "How many tokens does top_k keep?": {
        "keeps one token too few": _without(top_k=lambda given: max(1, given["top_k"] - 1)),
        "keeps one token too many": _without(top_k=lambda given: given["top_k"] + 1),
    },
    "exp(0) is 1. Should a dropped logit be -inf?": {"hidden logits set to 0": _zero_logits},
    "Which end of the sorted logits is kept?": {"the least likely are kept": _least_kept},
    "Logits are no probabilities. Where is the softmax?": {"no softmax": lambda logits, _: logits.abs() / logits.abs().sum()},
    "Are they used?": {"top_k and top_p are ignored": _neither},
    "Is it used?": {"top_k is ignored": _without("top_k"), "top_p is ignored": _without("top_p")},
    "Is it drawn, or is it argmax?": {"always the most likely token": lambda logits, _: kept(logits, 0.0)},
    "Are the probabilities handed to multinomial?": {"drawn evenly": _evenly},
    "Is it logits / temperature?": {
        "logits multiplied by temperature": _without(temperature=lambda given: 1 / given["temperature"]),
        "temperature is ignored": _without("temperature"),
    },
}  # fmt: skip

HALVES = ("float16", "bfloat16")
FACTORS: Mapping[str, Factor] = {
    "temperature": {
        "temperature 1": {}, COLD: {"temperature": 0.5}, "a hot temperature": {"temperature": 100.0, "sized": 40.0},
        "a tiny temperature": {"temperature": 0.03, "sized": 0.03}, MILLIONTH: {"temperature": 1e-6, "sized": 1e-6},
        ZERO: {"temperature": 0.0},
    },
    "cut": {
        "no cut": {}, "top_k": {"top_k": "k"}, "top_k = 1": {"top_k": 1}, "top_k beyond the vocabulary": {"top_k": 50},
        "top_p": {"top_p": "inside"}, "a tiny top_p": {"top_p": 0.01}, "top_p = 1": {"top_p": 1.0},
        MET: {"top_p": "met"}, BOTH: {"top_k": "k", "top_p": "inside"},
    },
    "scores": {
        "ordinary logits": {}, "equal logits": {"row": (2.0, 1.0, 1.0, 1.0, 1.0, -1.0), "k": 3},
        HARDLY: {"hardly": True, "top_k": 1},
        "huge logits, some -inf": {"row": (900.0, 899.0, 898.0, -900.0, -torch.inf, -torch.inf), "k": 4},
        "all logits low": {"row": (*(one - 3e4 for one in SPREAD), -torch.inf)},
    },
    "rows": {"equal rows": {}, "rows that differ": {"rows": 3}, UNLIKE: {"rows": 2, "unlike": True}},
    "lengths": {"a few tokens": {}, EVEN: {"even": 1511}, LONG: {"V": 33_001}},
    "dtype": DTYPES,
    "axes": {
        "one leading axis": {}, "no leading axis": {"axes": 0}, "two leading axes": {"axes": 2},
        "three leading axes": {"axes": 3}, "a batch of one": {"batch": 1},
    },
    "generator": GENERATOR,
}  # fmt: skip
ROUNDED = HARDLY, "huge logits, some -inf", "all logits low"
"""Scores that half precision rounds."""
SURE = "top_k = 1", "a tiny top_p"
WATCHED = tuple(GENERATOR)[1:]


def _formula(logits: Tensor, temperature: float = 1.0, **settings: Any) -> dict[str, Quantity]:
    if temperature != 0:
        raise ValueError("what is drawn is decided by chance")
    return {"tokens": whole(logits.argmax(-1))}


SAMPLE_NEXT_TOKEN = Exercise(
    name="sample_next_token",
    assignment="text_generation",
    target=Target("sample_next_token", ("tokens",), _formula),
    positional=("logits",),
    used_as=Drawing,
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes={"logits": "... V"},
        lengths=("V",),
        groups=groups(
            "tokens are drawn with probability softmax(logits / temperature)", 1.25,
            (
                Group("temperature", "first the temperature; 0 takes the most likely token", 0.75, ("temperature",)),
                Group("top_k and top_p", "then top_k, then as few of the most likely as sum to top_p; lower index first",
                      1.25, ("cut",)),
                Group("logits", "equal, huge, low and -inf logits, of any dtype", 0.5, ("scores", "dtype", "default dtype")),
                Group("rows", "each row is drawn from its own logits, whatever the axes", 0.25, ("rows", "axes", "lengths")),
                Group("generator", "the generator alone decides", 0.5, ("generator",)),
            ), calls=0.25,
        ),
        never=(
            {"cut": MET, "scores": tuple(without(FACTORS["scores"], "ordinary logits"))},
            {"cut": BOTH, "temperature": COLD},  # top_k leaves nearly all there
            {"dtype": HALVES, "scores": ROUNDED},
            {"scores": HARDLY, "cut": tuple(without(FACTORS["cut"], "no cut"))},
            *({"generator": WATCHED, **one} for one in ({"temperature": ZERO}, {"scores": HARDLY}, {"cut": SURE})),
            {"lengths": LONG, "temperature": tuple(without(FACTORS["temperature"], "temperature 1"))},
            {"axes": "no leading axis", "rows": ("rows that differ", UNLIKE)},
            {"rows": UNLIKE, "cut": MET},
            {"rows": ("rows that differ", UNLIKE), "layout": "expanded"},  # which makes them alike
            {"rows": UNLIKE, "scores": tuple(without(FACTORS["scores"], "ordinary logits"))},
            {"temperature": MILLIONTH, "dtype": "float16"},  # which holds no logits as small as that
            {"lengths": EVEN, "cut": tuple(without(FACTORS["cut"], "no cut"))},
            {"lengths": EVEN, "scores": tuple(without(FACTORS["scores"], "ordinary logits"))},
            {"lengths": EVEN, "rows": ("rows that differ", UNLIKE)},
            {"lengths": EVEN, "axes": "no leading axis"},
        ),
        left_out={
            "gradient: a gradient asked": "a token has no gradient",
            "gradient: a gradient of one input": "a token has no gradient",
            "gradient: activation checkpointing": "a token has no gradient",
        },
        right=drawn_as_asked(SLIPS),
        names={
            ("lengths", EVEN): ("some tokens are never drawn", "Are only the first few hundred of the sorted tokens candidates?"),
            ("rows", UNLIKE): ("rows are not cut on their own", "Is a maximum, a threshold or a count one number for all rows?"),
        },
    ),
    recipes=(Recipe("as it is", _drawn),),
    checks=(
        Check("refuses", "settings out of range raise ValueError", 0.25, ("as it is",), _refuses, "agrees with the formula"),
    ),
    mistakes=(),
    hints=(
        "Sort the logits once: then top_k is a slice, and top_p a running sum along the same axis.",
        "For top_p ask of each token: how much probability have the tokens that are more likely? It stays if that is "
        "still below top_p. Keep `order` from the sort to get back to token numbers.",
        "`ranked, order = torch.sort(logits, descending=True, stable=True)`; softmax, slice, normalise, "
        "`before = probs.cumsum(-1) - probs`, zero where before >= top_p, multinomial, `order.gather`.",
    ),
)  # fmt: skip
