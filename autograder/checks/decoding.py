"""Decoding: the text that comes out, what the model was asked on the way, and when it stops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.stand_ins import LONGEST, PrefixModel, Reader
from autograder.checks.trial import Trial
from autograder.oracle.generation import greedy

__all__ = [
    "asks_no_more_than_needed",
    "refused",
    "require_text",
    "results_of",
    "same_text_elsewhere",
    "text_of",
]


def results_of(trial: Trial, **changes: Any) -> dict[str, Tensor]:
    """The student's results by name, after a fresh start of the case's model; shapes are not compared."""
    model = trial.inputs.get("model")
    if isinstance(model, PrefixModel):
        model.forget()
    return trial.named(trial.run(trial.fresh(**changes)))


def text_of(tokens: Tensor) -> list[int]:
    """A text as a list. Raises: Failure if the tensor is no (S,) int64."""
    if tokens.dim() != 1 or tokens.dtype != torch.int64:
        raise Failure(
            f"tokens must have one axis and be int64; they have shape {tuple(tokens.shape)} and are "
            f"{str(tokens.dtype).removeprefix('torch.')}.",
            mistake="tokens are no int64 vector",
        )
    if len(tokens) > LONGEST:
        raise Failure(f"{len(tokens):,} tokens came back; that is more than anybody asked for.")
    listed: list[int] = tokens.tolist()
    return listed


def same_text(trial: Trial, **changes: Any) -> list[int]:
    """The text of the first result. Raises: Failure if it is not, token for token, that of the formula."""
    got = text_of(results_of(trial, **changes)[trial.target.outputs[0]])
    return require_text(trial, got, **changes)


def require_text(trial: Trial, got: list[int], **changes: Any) -> list[int]:
    """The text. Raises: Failure if it is not, token for token, that of the formula."""
    name = trial.target.outputs[0]
    expected = [int(token) for token in trial.expect(**changes)[name].value.tolist()]
    if got == expected:
        return got
    place = next((n for n, (one, other) in enumerate(zip(got, expected, strict=False)) if one != other), None)
    if place is None:
        raise Failure(f"{name} are {len(got)}: {_shown(got)}; expected {len(expected)}: {_shown(expected)}.")
    raise Failure(
        f"{name}[{place}] is {got[place]}, expected {expected[place]}: {_shown(got)} instead of {_shown(expected)}."
    )


SHOWN = 100


def _shown(tokens: list[int]) -> str:
    return str(tokens) if len(tokens) <= SHOWN else f"{str(tokens[:SHOWN])[:-1]}, ...]"


def same_text_elsewhere(trial: Trial, name: str, stand_in: PrefixModel | Reader) -> list[int]:
    """The text with a stand-in that has never been asked before in the place of input `name`.

    What is counted must be what led to a right result: a text that is remembered from an earlier call costs nothing.
    Raises: Failure if the text is wrong, where that of the case itself is right: otherwise other checks have said so.
    """
    try:
        same_text(trial)
    except Failure:
        return text_of(results_of(trial, **{name: stand_in})[trial.target.outputs[0]])
    try:
        return same_text(trial, **{name: stand_in})
    except Failure as failure:
        raise Failure(
            f"with another {name} of the same size: {failure.message}",
            mistake="keeps state between calls",
            errored=failure.errored,
        ) from failure


def asks_no_more_than_needed() -> Probe:
    """Every position is handed to the model once: the prompt, then one token a call; no call is without use.

    Counted with a model that is new to the student's code, and that ends the text early where the case's does.
    """

    def probe(trial: Trial) -> None:
        prompt, most, eos = trial.inputs["prompt"], trial.inputs["max_new_tokens"], trial.inputs.get("eos")
        while True:
            model = trial.inputs["model"].another(trial.draw.integer(0, 2**31))
            length = len(greedy(model.following, prompt.tolist(), most, eos)) - len(prompt)
            if eos is None or 1 < length < most:
                break
        drawn = bool(trial.inputs.get("temperature"))  # then there is no text to compare
        text = (
            text_of(results_of(trial, model=model)[trial.target.outputs[0]])
            if drawn
            else same_text_elsewhere(trial, "model", model)
        )
        new = len(text) - len(prompt)
        needed = len(prompt) + new - 1 if new else 0
        if len(model.asked) > new:
            raise Failure(
                f"{len(model.asked)} calls of the model for {new} new tokens. Is it asked for a token that nobody needs?",
                mistake="asks once too often",
            )
        if model.positions > needed:
            raise Failure(
                f"the model computed {model.positions} positions; {needed} are enough. It remembers the earlier ones: "
                "is one new token a call handed over, with `start`?",
                mistake="computes the whole text at every step",
            )

    return probe


def refused(call: Any, what: str, mistake: str) -> None:
    """Raises: Failure unless call() raises ValueError."""
    try:
        call()
    except ValueError:
        return
    except Failure as failure:
        if "raised ValueError" in failure.message:
            return
        raise Failure(f"{what} must raise ValueError; it {failure.message}", mistake=mistake) from failure
    raise Failure(f"{what} must raise ValueError; nothing was raised.", mistake=mistake)
