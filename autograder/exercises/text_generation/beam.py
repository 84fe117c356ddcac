"""Exercise `beam_search`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.conduct import inputs_untouched
from autograder.checks.decoding import results_of, same_text_elsewhere, text_agrees
from autograder.checks.scripted import UsedFunction
from autograder.checks.stand_ins import PrefixModel
from autograder.exercises.exercise import Exercise, Mistake
from autograder.exercises.text_generation.generating import model_and_prompt
from autograder.oracle.generation import beams, greedy, whole
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["BEAM_SEARCH"]

CLEAR = 1e-3
"""Smallest gap between candidates, in nats, that a case may hang on: float32 errs by less than 1e-5 here."""


def _inputs(
    draw: Draw, *, beam_size: int = 3, new: tuple[int, int] = (4, 6), penalty: float = 0.0, want: str
) -> dict[str, Any]:
    """A case in which rounding decides nothing, and whose best text is not the greedy one.

    want: "late" (the best text does not end before max_new_tokens), "narrow" (late, and a
    wider beam finds another), "early" (it does, with two tokens or more), "shrink"
    (it would not be found if finished texts kept their places), "penalty" (late, and the penalty decides), or "plain".
    """
    while True:
        model, prompt = model_and_prompt(draw, 2, 4)
        most, eos = draw.integer(*new), draw.integer(0, model.vocabulary - 1)
        given: dict[str, Any] = {
            "model": model,
            "prompt": prompt,
            "beam_size": beam_size,
            "max_new_tokens": most,
            "eos": eos,
        }
        given |= {"length_penalty": penalty} if penalty else {}
        text = prompt.tolist()
        best, _, margin = beams(model.following, text, beam_size, most, eos, penalty)
        length = len(best) - len(text)
        if margin < CLEAR or (want != "plain" and best == greedy(model.following, text, most, eos)):
            continue
        if want == "early" and not 1 < length < most:
            continue
        if want in ("late", "narrow", "plain", "penalty") and length < most:
            continue
        if want == "narrow" and (
            beams(model.following, text, beam_size + 1, most, eos, penalty)[0] == best
            or _same_text(_variant(**given, per_text=True), _variant(**given, size=lambda size: 1))
        ):
            continue
        if want == "early" and _same_text(
            _variant(**given, lives_on=True), _variant(**given, forgets_finished=True)
        ):
            continue
        if want == "shrink" and _variant(**given, shrinks=True)["tokens"].tolist() == best:
            continue
        if want == "penalty":
            ignored = _variant(**given, score=lambda total, n, p, s: total)
            turned = _variant(**given, score=lambda total, n, p, s: total * n**p)
            if ignored["tokens"].tolist() == best or float(ignored["score"]) == float(turned["score"]):
                continue
        return given


def _same_text(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return torch.equal(one["tokens"], other["tokens"])


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
    # A sum of at most max_new_tokens log-probabilities, each of which comes from logits below 8.
    size = 8.0 * max_new_tokens / len(text[len(prompt) :]) ** length_penalty
    return {
        "tokens": whole(text),
        "score": Quantity(torch.tensor(score).double(), torch.tensor(size).double()),
    }


def _score(trial: Trial) -> None:
    results = results_of(trial)
    if results["score"].numel() != 1:
        raise Failure(f"the score must be one number; it has shape {tuple(results['score'].shape)}.")
    trial.require(
        "score", results["score"].reshape(()).to(torch.float32), "differs from the sum of log-probabilities"
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
    if widest > inputs["beam_size"]:
        raise Failure(
            f"{widest} texts were handed to the model at once; the beam holds {inputs['beam_size']}.",
            mistake="more texts than the beam holds",
        )


# What goes wrong: beam search with knobs, on lists.

Hypothesis = tuple[float, list[int]]


def _variant(
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
    forgets_finished: bool = False,
    forgets_live: bool = False,
    same_history: bool = False,
    shrinks: bool = False,
    score: Callable[[float, int, float, int], float] = lambda total, n, penalty, prompt: total / n**penalty,
    prompt_in: bool = True,
    most: Callable[[int, int], int] = lambda most, prompt: most,
) -> Mapping[str, Tensor]:
    start = prompt.tolist()
    live: list[Hypothesis] = [(0.0, start)]
    finished: list[Hypothesis] = []
    room, steps = size(beam_size), most(max_new_tokens, len(start))
    for step in range(1, steps + 1):
        groups = [
            [
                (adds(total, float(p)), [*text, token])
                for token, p in enumerate(log_probs(model.following(text)))
            ]
            for total, text in live
        ]
        if per_text:
            groups = [sorted(group, key=lambda one: -one[0])[: max(1, room // len(live))] for group in groups]
        every = sorted((one for group in groups for one in group), key=lambda one: -one[0])[:room]
        if same_history:
            every = [
                (total, [*live[min(n, len(live) - 1)][1], text[-1]]) for n, (total, text) in enumerate(every)
            ]
        done = [one for one in every if one[1][-1] == eos and not (lives_on and step < steps)]
        live = [one for one in every if one not in done]
        finished += [(score(total, step, length_penalty, len(start)), text) for total, text in done]
        room -= len(done) if shrinks else 0
        if not live or room <= 0 or (first_wins and finished):
            break
    ends = [(score(total, step, length_penalty, len(start)), text) for total, text in live]
    pool = (ends or finished) if forgets_finished else (finished or ends) if forgets_live else finished + ends
    value, text = max(pool, key=lambda one: one[0])
    kept = text if prompt_in else text[len(start) :]
    return {"tokens": torch.tensor(kept).double(), "score": torch.tensor(value).double()}


def _mistake(name: str, question: str, **knobs: Any) -> Mistake:
    return Mistake(name, question, partial(_variant, **knobs))


MISTAKES = (
    _mistake(
        "the beam holds one text", "That is greedy search. Are beam_size texts kept?", size=lambda size: 1
    ),
    _mistake("the beam holds one text too many", "How many are kept?", size=lambda size: size + 1),
    _mistake(
        "logits are summed",
        "Logits are no log-probabilities. Where is log_softmax?",
        log_probs=lambda logits: logits,
    ),
    _mistake(
        "probabilities are summed",
        "The log-probabilities are added.",
        log_probs=lambda logits: torch.softmax(logits, 0),
    ),
    _mistake("only the last step counts", "Is the sum so far added?", adds=lambda total, more: more),
    _mistake(
        "each text keeps its own best",
        "The beam_size best of ALL extensions are kept; one text may have several of them.",
        per_text=True,
    ),
    _mistake(
        "texts go on after eos", "A text that ends in eos is finished. Does it leave the beam?", lives_on=True
    ),
    _mistake(
        "the first finished text wins",
        "A longer text may be more likely. Does the search go on?",
        first_wins=True,
    ),
    _mistake(
        "finished texts are lost",
        "Are finished texts put aside and compared at the end?",
        forgets_finished=True,
    ),
    _mistake(
        "only finished texts can win",
        "After max_new_tokens the live texts count as finished, too.",
        forgets_live=True,
    ),
    _mistake(
        "tokens join the wrong text",
        "Which text does an extension come from? With flattened scores it is index // V.",
        same_history=True,
    ),
    _mistake(
        "the beam shrinks with each finished text",
        "beam_size extensions are kept at each step, however many texts are finished.",
        shrinks=True,
    ),
    _mistake(
        "length_penalty is ignored",
        "Is the sum divided by n ** length_penalty?",
        score=lambda total, n, p, s: total,
    ),
    _mistake(
        "the prompt counts in the length",
        "n is the number of new tokens.",
        score=lambda total, n, p, s: total / (n + s) ** p,
    ),
    _mistake(
        "multiplied by the penalty",
        "Log-probabilities are negative: divide to help longer texts.",
        score=lambda total, n, p, s: total * n**p,
    ),
    _mistake("always the mean", "length_penalty 0 divides by 1.", score=lambda total, n, p, s: total / n),
    _mistake("the prompt is left out", "The result starts with the prompt.", prompt_in=False),
    _mistake("one token too few", "How often does the loop run?", most=lambda most, prompt: most - 1),
)

RECIPES = (
    Recipe("beam of three", partial(_inputs, want="narrow")),
    Recipe("beam of one", partial(_inputs, beam_size=1, want="plain")),
    Recipe("beam of five", partial(_inputs, beam_size=5, want="late")),
    Recipe("beam wider than the vocabulary", partial(_inputs, beam_size=12, new=(2, 3), want="late")),
    Recipe("finished early", partial(_inputs, want="early", new=(5, 7))),
    Recipe("finished early, beam of four", partial(_inputs, beam_size=4, want="early", new=(5, 7))),
    Recipe("finished on the way", partial(_inputs, want="shrink", new=(5, 7))),
    Recipe("length penalty", partial(_inputs, penalty=1.0, want="penalty")),
    Recipe("half a length penalty", partial(_inputs, penalty=0.5, beam_size=4, want="penalty")),
)

BEST = "best text"
POSITIONAL = ("model", "prompt", "beam_size", "max_new_tokens", "eos")

BEAM_SEARCH = Exercise(
    name="beam_search",
    assignment="text_generation",
    target=Target("beam_search", ("tokens", "score"), _formula),
    positional=POSITIONAL,
    used_as=lambda obj, positional, _: UsedFunction(obj, positional),
    recipes=RECIPES,
    checks=(
        Check(
            BEST,
            "the most likely text that a beam of this width finds",
            1.5,
            ("beam of three", "beam of five"),
            text_agrees(),
        ),
        Check("beam of one", "a beam of one is greedy search", 0.25, ("beam of one",), text_agrees()),
        Check(
            "wide beam",
            "a beam wider than the vocabulary",
            0.25,
            ("beam wider than the vocabulary",),
            text_agrees(),
        ),
        Check(
            "finished texts",
            "a text that ends in eos leaves the beam and can still win",
            0.75,
            ("finished early", "finished early, beam of four", "finished on the way"),
            text_agrees(),
        ),
        Check(
            "length penalty",
            "scores are divided by n ** length_penalty",
            0.5,
            ("length penalty", "half a length penalty"),
            text_agrees(),
        ),
        Check(
            "score",
            "the winner's score comes back",
            0.5,
            ("beam of three", "length penalty"),
            _score,
            (BEST, "length penalty"),
        ),
        Check(
            "cost",
            "one call of the model a step, for all live texts",
            0.5,
            ("beam of three", "finished early"),
            _one_call_a_step,
            BEST,
        ),
        Check(
            "inputs untouched",
            "the prompt is not written to",
            0.25,
            ("beam of three",),
            inputs_untouched(),
            BEST,
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        "What do you have to know of each live text? Its tokens and its log-probability so far.",
        (
            "Add the live texts' sums (N, 1) to the log-probabilities (N, V), flatten, and sort. An index of the flat "
            "scores tells both the text it came from and the token."
        ),
        (
            "`totals, order = scores.flatten().sort(descending=True, stable=True)`; text `order[:beam_size] // V`, token "
            "`order[:beam_size] % V`. Put aside those with token == eos, or all of them at the last step."
        ),
    ),
)
