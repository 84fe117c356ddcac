"""Drawing tokens: the distribution that they are drawn from, and where the randomness comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial
from autograder.oracle.generation import kept
from autograder.oracle.multinomial import divergence, largest_divergence, too_even

__all__ = [
    "DRAWS",
    "FALSE_ALARM",
    "Settings",
    "Slip",
    "drawn_as_asked",
    "one_source_of_randomness",
    "settings_of",
    "tokens_of",
]

DRAWS = 12_000
FALSE_ALARM = 1e-8
"""Probability, per distribution tested, that a right solution is rejected. No check tests more than ten."""

Settings = dict[str, Any]
"""temperature, top_k, top_p: those of them that the case gives."""


@dataclass(frozen=True)
class Slip:
    """A wrong distribution that a report can name: probs(logits (V,), settings) -> probabilities (V,)."""

    name: str
    question: str
    probs: Callable[[Tensor, Settings], Tensor]


def settings_of(trial: Trial) -> Settings:
    """The settings among the case's inputs."""
    return {name: trial.inputs[name] for name in ("temperature", "top_k", "top_p") if name in trial.inputs}


def tokens_of(trial: Trial, shape: tuple[int, ...], **changes: Any) -> Tensor:
    """The student's tokens. Raises: Failure if they are not int64, of another shape, or outside the vocabulary."""
    tokens = trial.named(trial.run(trial.changed(**changes)))[trial.target.outputs[0]]
    vocabulary = trial.inputs["logits"].shape[-1]
    if tuple(tokens.shape) != shape:
        raise Failure(
            f"the tokens have shape {tuple(tokens.shape)}; expected {shape}: the logits' shape without its last axis.",
            mistake="tokens have the wrong shape",
        )
    if tokens.dtype != torch.int64:
        raise Failure(
            f"the tokens are {str(tokens.dtype).removeprefix('torch.')}; a token is a whole number, int64.",
            mistake="tokens are not int64",
        )
    if bool(((tokens < 0) | (tokens >= vocabulary)).any()):
        raise Failure(
            f"token {int(tokens.max())} is not in 0..{vocabulary - 1}.",
            mistake="tokens outside the vocabulary",
        )
    return tokens


def drawn_as_asked(slips: tuple[Slip, ...] = ()) -> Probe:
    """The case's logits, (V,) or several rows (G, V), each drawn DRAWS / G times, are drawn with the right probabilities.

    A token of probability zero must never come, and frequencies that fit too well are not those of draws. For the
    others the divergence of the frequencies from the probabilities stays below a bound that holds for every sample
    size (`oracle/multinomial.py`).
    """

    def probe(trial: Trial) -> None:
        logits, settings = trial.inputs["logits"], settings_of(trial)
        rows = logits.reshape(-1, logits.shape[-1])
        many = rows.repeat(DRAWS // len(rows), 1)  # row n is a copy of row n % G
        generator = torch.Generator().manual_seed(trial.draw.integer(0, 2**40))
        tokens = tokens_of(trial, (len(many),), logits=many, generator=generator)
        for place, row in enumerate(rows.to(torch.float64)):
            counts = torch.bincount(tokens[place :: len(rows)], minlength=len(row)).to(torch.float64)
            message = _unlike(counts, kept(row, **settings))
            if message:
                _require_several_draws(trial, many, tokens)
                slip = next((s for s in slips if _fits(counts, s, row, settings)), None)
                raise Failure(
                    message + (f" {slip.question}" if slip else ""), mistake=slip.name if slip else None
                )
            if too_even(counts, kept(row, **settings), FALSE_ALARM):
                raise Failure(
                    f"in {int(counts.sum()):,} draws every token came as often as its probability says, almost to the last one; "
                    "what is drawn scatters. Is each row drawn on its own?",
                    mistake="shares instead of draws",
                )

    return probe


def _require_several_draws(trial: Trial, many: Tensor, tokens: Tensor) -> None:
    """Raises: Failure if all rows get one token, but another one with another generator."""
    others = [
        tokens_of(trial, (len(many),), logits=many, generator=torch.Generator().manual_seed(seed))
        for seed in range(8 if len(tokens.unique()) == 1 else 0)
    ]
    if any(int(other[0]) != int(tokens[0]) for other in others):
        raise Failure(
            f"all of {len(many):,} rows got the same token, {int(tokens[0])}. Is one token drawn for each row?",
            mistake="one draw for all rows",
        )


def _bound(counts: Tensor, probs: Tensor) -> float:
    return largest_divergence(int(counts.sum()), int((probs > 0).sum()), FALSE_ALARM)


def _fits(counts: Tensor, slip: Slip, row: Tensor, settings: Settings) -> bool:
    probs = slip.probs(row, settings)
    return bool((counts[probs == 0] == 0).all()) and divergence(counts, probs) <= _bound(counts, probs)


def _unlike(counts: Tensor, probs: Tensor) -> str:
    """What is wrong with the frequencies, or nothing."""
    draws = int(counts.sum())
    never = (counts > 0) & (probs == 0)
    if bool(never.any()):
        token = int((counts * never).argmax())
        return f"token {token} was drawn {int(counts[token]):,} times of {draws:,}; these settings give it probability 0."
    if divergence(counts, probs) <= _bound(counts, probs):
        return ""
    token = int((counts / draws - probs).abs().argmax())
    often = f"drawn in {float(counts[token]) / draws:.1%}" if counts[token] else "not drawn in any"
    return f"token {token} was {often} of {draws:,} draws; its probability is {float(probs[token]):.1%}."


def one_source_of_randomness() -> Probe:
    """The generator alone decides: equal states give equal tokens, each draw moves it on, other seeds give others.

    40 tokens of at least two equally likely kinds: that two independent draws agree has probability below 1e-12.
    """

    def probe(trial: Trial) -> None:
        many = trial.inputs["logits"].repeat(40, 1)
        seed = trial.draw.integer(0, 2**40)

        def draw(generator: torch.Generator) -> Tensor:
            return tokens_of(trial, (40,), logits=many, generator=generator)

        generator = torch.Generator().manual_seed(seed)
        first, second = draw(generator), draw(generator)
        again = draw(torch.Generator().manual_seed(seed))
        if not torch.equal(first, again):
            raise Failure(
                "two generators of the same seed give different tokens. Is `generator=generator` passed on to what draws?",
                mistake="generator is not used",
            )
        if torch.equal(first, second):
            raise Failure(
                "two draws in a row from one generator give the same 40 tokens. Is a seed set, or the generator copied?",
                mistake="generator does not move on",
            )
        if torch.equal(first, draw(torch.Generator().manual_seed(seed + 1))):
            raise Failure(
                "generators of different seeds give the same 40 tokens. Is anything drawn at all?",
                mistake="generator is not used",
            )

    return probe
