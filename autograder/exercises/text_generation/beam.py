"""Exercise `beam_search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.decoding import require_text, same_text_elsewhere, text_of
from autograder.checks.scripted import UsedFunction
from autograder.checks.stand_ins import PrefixModel
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.generation import beams, greedy, whole
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.situations import Factor, Group, Situations, groups, without

__all__ = ["BEAM_SEARCH"]

CLEAR = 1e-3
"""Smallest gap between candidates, in nats, that a case may hang on: float32 errs by less than 1e-5 here."""


def _drawn(
    draw: Draw,
    *,
    beam_size: int = 3,
    new: tuple[int, int] = (4, 6),
    prompt: tuple[int, int] = (2, 4),
    V: tuple[int, int] = (5, 9),
    penalty: float = 0.0,
    lift: float = 0.0,
    want: str = "late",
) -> dict[str, Any]:
    """A case in which rounding decides nothing, and whose best text is not the greedy one, if it can be.

    lift: what is added to all logits.
    want: "late" (the best text does not end before max_new_tokens), "early" (it does, with two tokens or more), "first" (with
    one), "shrink" (it would not be found if finished texts kept their places), "stop" (nor if the search ended when as many
    are finished as the beam holds), "prompt", "bos" (eos stands at the prompt's end or beginning), "ties" (all tokens are
    equally likely), or "any".
    """
    while True:
        vocabulary = draw.integer(*V)
        text = (draw.uniform(draw.integer(*prompt)) * vocabulary).long()
        always = (0.0,) * vocabulary if want == "ties" else None
        model, most = PrefixModel(draw.integer(0, 2**31), vocabulary, always, lift), draw.integer(*new)
        first = int(model.following(text.tolist()).argmax())
        tried = {
            "first": [first],
            "prompt": [int(text[-1])],
            "bos": [int(text[0])],
            "ties": [draw.integer(0, 3)],
        }
        for eos in tried.get(want, draw.permutation(vocabulary).tolist()):
            given = {
                "model": model,
                "prompt": text,
                "beam_size": beam_size,
                "max_new_tokens": most,
                "eos": eos,
            }
            given |= {"length_penalty": penalty} if penalty else {}
            if want == "ties" or _fits(given, want):
                return given


def _fits(given: Mapping[str, Any], want: str) -> bool:
    """Whether a case is what is wanted."""
    model, text, size, most, eos, *_ = given.values()
    best, _, margin = beams(model.following, text.tolist(), size, most, eos, given.get("length_penalty", 0.0))
    length = len(best) - len(text)
    plain = size == 1 or most == 1 or want in ("first", "any")
    if margin < CLEAR or not (plain or best != greedy(model.following, text.tolist(), most, eos)):
        return False
    if want == "first":
        return length == 1
    if want == "early" and (most > 1 or length == most):
        return 1 < length < most and not (
            _text(given, lives_on=True) == _text(given, forgets_finished=True) != best
        )
    if want in ("shrink", "stop"):
        return _text(given, **{"shrinks" if want == "shrink" else "content": True}) != best
    return length == most if want == "late" else length > 1 or most == 1 or want == "any"


def _text(given: Mapping[str, Any], **steps: Any) -> list[int]:
    text: list[int] = searched(**given, **steps)["tokens"].tolist()
    return text


def _formula(
    model: PrefixModel,
    prompt: Tensor,
    beam_size: int,
    max_new_tokens: int,
    eos: int,
    length_penalty: float = 0.0,
    round: Rounder = exact,
) -> dict[str, Quantity]:
    text, score, _ = beams(model.following, prompt.tolist(), beam_size, max_new_tokens, eos, length_penalty)
    # A sum of at most max_new_tokens log-probabilities, each of which comes from logits below 8, or 8 beside the lift.
    size = (8.0 + abs(model.lift)) * max_new_tokens / len(text[len(prompt) :]) ** length_penalty
    return {
        "tokens": whole(text),
        "score": Quantity(torch.tensor(score).double(), torch.tensor(size).double()),
    }


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    require_text(trial, text_of(results["tokens"]))
    score = results["score"]
    if score.numel() != 1:
        raise Failure(f"the score must be one number; it has shape {tuple(score.shape)}.")
    claim = "differs from the sum of log-probabilities / n ** length_penalty"
    trial.require(
        "score", score.reshape(()).to(torch.float32), claim, mistake="another score than the winner's"
    )


def _one_call_a_step(trial: Trial) -> None:
    """Counted with a model that is new to the student's code, and ends the text early where the case's does."""
    inputs, prompt = trial.inputs, trial.inputs["prompt"].tolist()
    size, most, eos = (inputs[name] for name in ("beam_size", "max_new_tokens", "eos"))
    full = len(prompt) + most
    late = len(trial.expect()["tokens"].value) == full
    while True:
        model = inputs["model"].another(trial.draw.integer(0, 2**31))
        best, _, margin = beams(model.following, prompt, size, most, eos, 0.0)
        if margin > CLEAR and (len(best) == full) == late:
            break
    same_text_elsewhere(trial, "model", model)
    calls = len(model.asked)
    if calls > most:
        raise Failure(
            f"{calls} calls of the model for at most {most} new tokens. Are all live texts handed over together, as (N, S)?",
            mistake="one call for each text",
        )
    widest = max((len(tokens) if tokens.dim() == 2 else 1 for tokens, _ in model.asked), default=0)
    if widest > size:
        raise Failure(
            f"{widest} texts were handed to the model at once; the beam holds {size}.",
            mistake="more texts than the beam holds",
        )


Hypothesis = tuple[float, list[int]]


def searched(
    model: PrefixModel,
    prompt: Tensor,
    beam_size: int,
    max_new_tokens: int,
    eos: int,
    length_penalty: float = 0.0,
    *,
    log_probs: Callable[[Tensor], Tensor] = lambda logits: torch.log_softmax(logits, 0),
    size: Callable[[int], int] = lambda size: size,
    adds: Callable[[float, float], float] = lambda total, more: total + more,
    per_text: bool = False,
    lives_on: bool = False,
    first_wins: bool = False,
    content: bool = False,
    forgets_finished: bool = False,
    forgets_live: bool = False,
    same_history: bool = False,
    shrinks: bool = False,
    score: Callable[[float, int, float, int], float] = lambda total, n, penalty, prompt: total / n**penalty,
    prompt_in: bool = True,
    most: Callable[[int], int] = lambda most: most,
) -> Mapping[str, Tensor]:
    """Beam search on lists, in steps."""
    start = prompt.tolist()
    live: list[Hypothesis] = [(0.0, start)]
    finished: list[Hypothesis] = []
    room, steps = size(beam_size), most(max_new_tokens)
    for step in range(1, steps + 1):
        found = [
            [
                (adds(total, p), [*text, token])
                for token, p in enumerate(log_probs(model.following(text)).tolist())
            ]
            for total, text in live
        ]
        if per_text:
            found = [sorted(one, key=lambda one: -one[0])[: max(1, room // len(live))] for one in found]
        every = sorted((one for of in found for one in of), key=lambda one: -one[0])[:room]
        if same_history:
            every = [(t, [*live[min(n, len(live) - 1)][1], text[-1]]) for n, (t, text) in enumerate(every)]
        done = [one for one in every if one[1][-1] == eos and not (lives_on and step < steps)]
        live = [one for one in every if one not in done]
        finished += [(score(total, step, length_penalty, len(start)), text) for total, text in done]
        room -= len(done) if shrinks else 0
        if not live or room <= 0 or (first_wins and finished) or (content and len(finished) >= beam_size):
            break
    ends = [(score(total, step, length_penalty, len(start)), text) for total, text in live]
    pool = (ends or finished) if forgets_finished else (finished or ends) if forgets_live else finished + ends
    value, text = max(pool, key=lambda one: one[0])
    kept = text if prompt_in else text[len(start) :]
    return {"tokens": torch.tensor(kept), "score": torch.tensor(value).double()}


SLIPS: Slips = {
    "That is greedy search. Are beam_size texts kept?": {"the beam holds one text": {"size": lambda size: 1}},
    "How many are kept?": {"the beam holds one text too many": {"size": lambda size: size + 1}},
    "Logits are no log-probabilities. Where is log_softmax?": {"logits are summed": {"log_probs": lambda logits: logits}},
    "The log-probabilities are added.": {"probabilities are summed": {"log_probs": lambda logits: torch.softmax(logits, 0)}},
    "Is the sum so far added?": {"only the last step counts": {"adds": lambda total, more: more}},
    "The beam_size best of ALL extensions are kept; one text may have several of them.": {
        "each text keeps its own best": {"per_text": True},
    },
    "A text that ends in eos is finished. Does it leave the beam?": {"texts go on after eos": {"lives_on": True}},
    "A longer text may be more likely. Does the search go on?": {
        "the first finished text wins": {"first_wins": True},
        "ends when as many texts are finished as the beam holds": {"content": True},
    },
    "Are finished texts put aside and compared at the end?": {"finished texts are lost": {"forgets_finished": True}},
    "After max_new_tokens the live texts count as finished, too.": {"only finished texts can win": {"forgets_live": True}},
    "Which text does an extension come from? With flattened scores it is index // V.": {
        "tokens join the wrong text": {"same_history": True},
    },
    "beam_size extensions are kept at each step, however many texts are finished.": {
        "the beam shrinks with each finished text": {"shrinks": True},
    },
    "Is the sum divided by n ** length_penalty?": {"length_penalty is ignored": {"score": lambda total, n, p, s: total}},
    "n is the number of new tokens.": {
        "the prompt counts in the length": {"score": lambda total, n, p, s: total / (n + s) ** p},
    },
    "Log-probabilities are negative: divide to help longer texts.": {
        "multiplied by the penalty": {"score": lambda total, n, p, s: total * n**p},
    },
    "length_penalty 0 divides by 1.": {"always the mean": {"score": lambda total, n, p, s: total / n}},
    "The result starts with the prompt.": {"the prompt is left out": {"prompt_in": False}},
    "How often does the loop run?": {"one token too few": {"most": lambda most: most - 1}},
}  # fmt: skip

TIES, LATE, LONG = "all texts equally likely", "the best text is cut off", "over sixty tokens in the prompt"
PASSED = "texts are finished on the way", "as many are finished as the beam holds"
WIDE, ONE, TWO = "a beam wider than the vocabulary", "one new token", "two new tokens"
FACTORS: Mapping[str, Factor] = {
    "eos": {
        LATE: {}, "the best text ends early": {"want": "early"}, "eos comes first": {"want": "first"},
        PASSED[0]: {"want": "shrink", "new": (5, 6), "V": (5, 6), "penalty": 0.5},
        PASSED[1]: {"want": "stop", "new": (5, 6), "V": (5, 6), "penalty": 0.5},
        "eos ends the prompt": {"want": "prompt"}, "eos begins the prompt": {"want": "bos"},
        TIES: {"want": "ties", "new": (2, 2)},
    },
    "beam": {
        "a beam of three": {}, "a beam of one": {"beam_size": 1}, "a beam of five": {"beam_size": 5}, WIDE: {"beam_size": 12},
    },
    "penalty": {
        "no length penalty": {}, "a length penalty": {"penalty": 1.0}, "half a length penalty": {"penalty": 0.5},
        "a length penalty of two": {"penalty": 2.0}, "a negative length penalty": {"penalty": -1.5, "want": "any"},
    },
    "scores": {"ordinary logits": {}, "all logits low": {"lift": -300.0}, "all logits high": {"lift": 200.0}},
    "lengths": {"several new tokens": {}, ONE: {"new": (1, 1)}, TWO: {"new": (2, 2)}},
    "prompt": {
        "a prompt of several tokens": {}, "a prompt of one token": {"prompt": (1, 1)},
        LONG: {"prompt": (65, 70), "new": (2, 2)},
    },
}  # fmt: skip


def _but(factor: str, *names: str) -> tuple[str, ...]:
    return tuple(without(FACTORS[factor], *names))


BEAM_SEARCH = Exercise(
    name="beam_search",
    assignment="text_generation",
    target=Target("beam_search", ("tokens", "score"), _formula),
    positional=("model", "prompt", "beam_size", "max_new_tokens", "eos"),
    used_as=UsedFunction,
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes={"prompt": "S"},
        groups=groups(
            "the most likely text that a beam of this width finds, and its score", 1.75,
            (
                Group("beam", "a beam of any width, from greedy search to wider than the vocabulary, and logits of any size", 0.5,
                      ("beam", "lengths", "prompt", "scores")),
                Group("finished texts", "a text that ends in eos leaves the beam and can still win; of equals the first", 0.75,
                      ("eos",)),
                Group("length penalty", "scores are divided by n ** length_penalty", 0.75, ("penalty",)),
            ), calls=0.25,
        ),
        never=(
            {"lengths": ONE, "eos": ("the best text ends early", *PASSED, "eos ends the prompt", TIES)},
            {"lengths": TWO, "eos": ("the best text ends early", *PASSED)},
            {"eos": PASSED, "beam": ("a beam of one", WIDE)}, {"eos": PASSED[1], "beam": "a beam of five"},
            {"penalty": "a negative length penalty", "eos": _but("eos", LATE)},
            {"penalty": _but("penalty", "no length penalty"), "eos": ("eos comes first", *PASSED)},
            {"penalty": "a length penalty of two", "eos": ("the best text ends early", TIES)},
            *({"prompt": LONG, name: tuple(FACTORS[name])[1:]} for name in FACTORS if name != "prompt"),
        ),
        left_out={
            "device": "the model that is handed over answers on the CPU",
            "layout: expanded": "a prompt has no leading axis",
            "gradient: a gradient asked": "a token has no gradient",
            "gradient: a gradient of one input": "a token has no gradient",
            "gradient: activation checkpointing": "a token has no gradient",
        },
        right=_right,
        names={("scores", ""): ("logits are bounded", "Is a logit or a log-probability clamped?")},
    ),
    recipes=(
        Recipe("beam of three", _drawn), Recipe("finished early", lambda draw: _drawn(draw, want="early", new=(5, 7))),
        Recipe("beam of six", lambda draw: _drawn(draw, beam_size=6)),
    ),
    checks=(
        Check("cost", "one call of the model a step, for all live texts", 0.5, ("beam of three", "finished early", "beam of six"),
              _one_call_a_step, ("agrees with the formula", "finished texts")),
    ),
    mistakes=slips(searched, SLIPS),
    hints=(
        "What do you have to know of each live text? Its tokens and its log-probability so far.",
        "Add the live texts' sums (N, 1) to the log-probabilities (N, V), flatten, and sort. An index of the flat "
        "scores tells both the text it came from and the token.",
        "`totals, order = scores.flatten().sort(descending=True, stable=True)`; text `order[:beam_size] // V`, token "
        "`order[:beam_size] % V`. Put aside those with token == eos, or all of them at the last step.",
    ),
)  # fmt: skip
