"""Decoding: the text that comes out, what the model was asked on the way, and when it stops."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.stand_ins import PrefixModel
from autograder.checks.trial import Trial

__all__ = ["asks_no_more_than_needed", "refused", "results_of", "text_agrees", "text_of"]


def results_of(trial: Trial, **changes: Any) -> dict[str, Tensor]:
    """The student's results by name, after a fresh start of the case's model; shapes are not compared."""
    model = trial.inputs.get("model")
    if isinstance(model, PrefixModel):
        model.forget()
    inputs = {n: v.clone() if isinstance(v, Tensor) else v for n, v in trial.changed(**changes).items()}
    return trial.named(trial.run(inputs))


def text_of(tokens: Tensor) -> list[int]:
    """A text as a list. Raises: Failure if the tensor is no (S,) int64."""
    if tokens.dim() != 1 or tokens.dtype != torch.int64:
        raise Failure(
            f"tokens must have one axis and be int64; they have shape {tuple(tokens.shape)} and are "
            f"{str(tokens.dtype).removeprefix('torch.')}.",
            mistake="tokens are no int64 vector",
        )
    listed: list[int] = tokens.tolist()
    return listed


def text_agrees() -> Probe:
    """The first result is the text of the formula, token for token."""

    def probe(trial: Trial) -> None:
        name = trial.target.outputs[0]
        got = text_of(results_of(trial)[name])
        expected = [int(token) for token in trial.expect()[name].value.tolist()]
        if got == expected:
            return
        place = next(
            (n for n, (one, other) in enumerate(zip(got, expected, strict=False)) if one != other), None
        )
        if place is None:
            raise Failure(f"{name} are {len(got)}: {got}; expected {len(expected)}: {expected}.")
        raise Failure(
            f"{name}[{place}] is {got[place]}, expected {expected[place]}: {got} instead of {expected}."
        )

    return probe


def asks_no_more_than_needed() -> Probe:
    """Every position is handed to the model once: the prompt, then one token a call; no call is without use."""

    def probe(trial: Trial) -> None:
        text = text_of(results_of(trial)[trial.target.outputs[0]])
        model, prompt = trial.inputs["model"], trial.inputs["prompt"]
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
