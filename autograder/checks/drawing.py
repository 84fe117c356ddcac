"""Drawing tokens: the distribution that they are drawn from, and where the randomness comes from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Case
from autograder.checks.failure import Failure
from autograder.checks.subject import FunctionSubject
from autograder.checks.trial import Trial
from autograder.circumstance import ORDINARY
from autograder.oracle.generation import kept
from autograder.oracle.multinomial import divergence, largest_divergence, too_even

__all__ = [
    "DRAWS",
    "GENERATOR",
    "Drawing",
    "Probabilities",
    "Settings",
    "Slips",
    "agree_by_chance",
    "drawn_as_asked",
    "drawn_otherwise",
    "settings_of",
]

MANY, DRAWS = 12_000, 600
"""Rows in the ordinary situation, and in the others."""
FALSE_ALARM = 1e-9
"""Probability, per distribution tested, that a right solution is rejected. No exercise tests more than a thousand."""

TOO_EVEN = 1e-8
"""The same for frequencies that fit too well, which few situations can tell."""

Settings = dict[str, Any]
"""temperature, top_k, top_p: those of them that the case gives."""

Probabilities = Callable[[Tensor, Settings], Tensor]
"""logits (V,), settings -> probabilities (V,)."""

Slips = Mapping[str, Mapping[str, Probabilities]]
"""Question -> name of the mistake -> the distribution that is drawn from."""

NONE, EXAMINED = "no generator", "generators of one seed, and of others"
GENERATOR: Mapping[str, Mapping[str, Any]] = {"a generator": {}, EXAMINED: {}, NONE: {}}
"""A factor: what is handed over as `generator`."""


class Drawing(FunctionSubject):
    """A student's function that is handed a generator, of the case's number if the inputs name no other; if None, none.

    It has a global generator to itself: that of the process stays as it was.
    """

    def __init__(self, function: Callable[..., Any], positional: tuple[str, ...], _: Any = None):
        super().__init__(function, positional)
        self.state = torch.Generator().manual_seed(0).get_state()
        self.suspicions: list[tuple[Failure, str, Mapping[str, str]]] = []

    def suspected(self, message: str, fitting: Mapping[str, str]) -> Failure:
        """A failure by the name, of those that fit it, that fits most failures of this function; the others' names follow."""
        failure = Failure(message)
        self.suspicions.append((failure, message, fitting))
        often = Counter(name for _, _, names in self.suspicions for name in names)
        for one, said, names in self.suspicions:
            one.mistake = max(names, key=lambda name: often[name], default=None)
            one.message = f"{said} {names.get(str(one.mistake), '')}".rstrip()
        return failure

    def call(self, case: Case, inputs: Mapping[str, Any]) -> Any:
        """The function's raw result on `inputs`."""
        default = (
            None if case.situation.get("generator") == NONE else torch.Generator().manual_seed(case.number)
        )
        given = {"generator": default, **inputs}
        if given["generator"] is None:
            del given["generator"]
        before = torch.get_rng_state()
        torch.set_rng_state(self.state)
        try:
            return super().call(case, given)
        finally:
            self.state = torch.get_rng_state()
            torch.set_rng_state(before)


def settings_of(trial: Trial) -> Settings:
    """The settings among the case's inputs."""
    return {name: trial.inputs[name] for name in ("temperature", "top_k", "top_p") if name in trial.inputs}


def tokens_of(trial: Trial, tokens: Tensor, logits: Tensor) -> Tensor:
    """The student's tokens. Raises: Failure if they are not int64, of another shape, or outside the vocabulary."""
    shape, vocabulary = tuple(logits.shape[:-1]), logits.shape[-1]
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


def _draw(trial: Trial, logits: Tensor, generator: torch.Generator | None) -> Tensor:
    """Tokens for these logits and this generator."""
    result = trial.named(trial.run(trial.fresh(logits=logits, generator=generator)))[trial.target.outputs[0]]
    return tokens_of(trial, result, logits)


ALONE = 20
"""So often a single row is drawn."""


def _seeded(trial: Trial, more: int = 0) -> torch.Generator | None:
    without = trial.case.situation.get("generator") == NONE
    return None if without else torch.Generator().manual_seed(trial.case.number + 1 + more)


def _several(trial: Trial, generator: torch.Generator | None, most: int) -> Tensor:
    """A few tokens from the first rows; where there is only one row, drawn again and again."""
    logits = trial.inputs["logits"]
    if logits.dim() == 1:
        return torch.stack([_draw(trial, logits, generator) for _ in range(most)])
    return _draw(trial, logits[(slice(1),) * (logits.dim() - 2)][..., :most, :], generator).flatten()


def drawn_as_asked(slips: Slips) -> Callable[[Trial, Mapping[str, Tensor]], None]:
    """What judges the tokens of logits (..., V) whose rows are few different ones in turn.

    A token of probability zero must never come, and frequencies that fit too well are not those of draws. For the others the
    divergence of the frequencies from the probabilities stays below a bound that holds for every sample size
    (`oracle/multinomial.py`). Copies of a row get equal tokens as often as independent draws do.
    """

    def right(trial: Trial, results: Mapping[str, Tensor]) -> None:
        logits, settings = trial.inputs["logits"], settings_of(trial)
        tokens = tokens_of(trial, results[trial.target.outputs[0]], logits)
        if settings.get("temperature") == 0:
            _greedy(logits, tokens)
            return
        with trial.within(ORDINARY):  # what it shows depends on no circumstance
            _drawn_right(trial, tokens, slips)

    return right


def _drawn_right(trial: Trial, tokens: Tensor, slips: Slips) -> None:
    logits, settings = trial.inputs["logits"], settings_of(trial)
    generator, first = _seeded(trial), None
    if logits.dim() == 1:
        first = tokens = _several(trial, generator, ALONE)
    elif trial.case.label == "ordinary":
        logits = logits.repeat(-(-MANY // len(logits)), 1)
        tokens = _draw(trial, logits, _seeded(trial))
    rows, tokens = logits.reshape(-1, logits.shape[-1]), tokens.flatten()
    period = next(n for n in range(1, len(rows) + 1) if torch.equal(rows[n:], rows[:-n]))
    different = [(row, kept(row, **settings)) for row in rows[:period].double()]
    copies = [tokens[place::period] for place in range(period)]
    counts = [torch.bincount(of, minlength=rows.shape[-1]).double() for of in copies]
    for (_, probs), count, of in zip(different, counts, copies, strict=True):
        if message := _unlike_in_slices(count, probs):
            raise Failure(message)
        if message := _unlike(count, probs):
            _require_several_draws(trial, tokens)
            fitting = _fitting(slips, [row for row, _ in different], counts, settings)
            subject = trial.subject
            raise subject.suspected(message, fitting) if isinstance(subject, Drawing) else Failure(message)
        _require_independence(of, count, probs)
    _require_source(trial, [probs for _, probs in different], generator, first)


def _greedy(logits: Tensor, tokens: Tensor) -> None:
    expected = logits.argmax(-1)
    wrong = (tokens != expected).flatten()
    if bool(wrong.any()):
        place = int(wrong.int().argmax())
        row = logits.reshape(-1, logits.shape[-1])[place]
        got, best = int(tokens.flatten()[place]), int(expected.flatten()[place])
        tie = float(row[got]) == float(row[best])
        raise Failure(
            f"temperature 0 chose token {got} (logit {float(row[got]):.6g}); the most likely is token {best} "
            f"(logit {float(row[best]):.6g})."
            + " Of equal logits the lower index counts as more likely."
            * tie,
            mistake="ties go to another token" if tie else "temperature 0 is not greedy",
        )


def _require_several_draws(trial: Trial, tokens: Tensor) -> None:
    """Raises: Failure if all rows get one token, but another one with another generator."""
    if trial.inputs["logits"].dim() == 1 or len(tokens.unique()) > 1:
        return
    if any(int(_several(trial, _seeded(trial, n), 2)[0]) != int(tokens[0]) for n in range(8)):
        raise Failure(
            f"all of {len(tokens):,} rows got the same token, {int(tokens[0])}. Is one token drawn for each row?",
            mistake="one draw for all rows",
        )


def _bound(counts: Tensor, probs: Tensor) -> float:
    return largest_divergence(int(counts.sum()), int((probs > 0).sum()), FALSE_ALARM)


def _fitting(slips: Slips, rows: list[Tensor], counts: list[Tensor], settings: Settings) -> dict[str, str]:
    """The mistakes whose distributions all rows fit, with their questions."""

    def fits(probabilities: Probabilities) -> bool:
        pairs = [(count, probabilities(row, settings)) for row, count in zip(rows, counts, strict=True)]
        return not any(drawn_otherwise(count, probs) for count, probs in pairs)

    return {name: question for question, named in slips.items() for name, of in named.items() if fits(of)}


def drawn_otherwise(counts: Tensor, probs: Tensor) -> bool:
    """Whether draws from these probabilities would not have come so often, save with next to no probability."""
    return bool((counts[probs == 0] > 0).any()) or divergence(counts, probs) > _bound(counts, probs)


def _unlike(counts: Tensor, probs: Tensor) -> str:
    """What is wrong with the frequencies, or nothing."""
    draws = int(counts.sum())
    never = (counts > 0) & (probs == 0)
    if bool(never.any()):
        token = int((counts * never).argmax())
        return f"token {token} was drawn {int(counts[token]):,} times of {draws:,}; these settings give it probability 0."
    if not drawn_otherwise(counts, probs):
        return ""
    token = int((counts / draws - probs).abs().argmax())
    often = f"drawn in {float(counts[token]) / draws:.1%}" if counts[token] else "not drawn in any"
    return f"token {token} was {often} of {draws:,} draws; its probability is {float(probs[token]):.1%}."


SLICES = 16


def _unlike_in_slices(counts: Tensor, probs: Tensor) -> str:
    """What is wrong with the frequencies of neighbours taken together, where there are more tokens than draws."""
    if int((probs > 0).sum()) <= int(counts.sum()):
        return ""
    often, expected = (
        torch.stack([part.sum() for part in of.tensor_split(SLICES)]) for of in (counts, probs)
    )
    if not drawn_otherwise(often, expected):
        return ""
    place, size = int((often / often.sum() - expected).abs().argmax()), len(probs) // SLICES
    return (
        f"of about {size} tokens from {place * size} on one was drawn in {float(often[place] / often.sum()):.1%} of the draws; "
        f"their probability is {float(expected[place]):.1%}. Are some left out, or is their sum kept in half precision?"
    )


def _require_independence(tokens: Tensor, counts: Tensor, probs: Tensor) -> None:
    """Raises: Failure if copies of a row, next to each other or half the rows apart, agree more or less often than draws do."""
    if too_even(counts, probs, TOO_EVEN):
        raise Failure(
            f"in {int(counts.sum()):,} draws every token came as often as its probability says, almost to the last one; "
            "what is drawn scatters. Is each row drawn on its own?",
            mistake="shares instead of draws",
        )
    half, agree = len(tokens) // 2, float((probs**2).sum())
    if half < 100 or agree > 0.99:
        return
    for one, other in (
        (tokens[: 2 * half : 2], tokens[1 : 2 * half : 2]),
        (tokens[:half], tokens[half : 2 * half]),
    ):
        equal = float((one == other).sum())
        if drawn_otherwise(torch.tensor([equal, half - equal]), torch.tensor([agree, 1 - agree])):
            raise Failure(
                f"of {half:,} pairs of equal rows {equal / half:.1%} got the same token; independent draws would in {agree:.1%}. "
                "Is each row drawn on its own?",
                mistake="rows are not drawn independently",
            )


def agree_by_chance(probs: list[Tensor], draws: int) -> bool:
    """Whether two samples of so many draws, from these distributions in turn, may be equal by chance."""
    return float(torch.stack([(one**2).sum() for one in probs]).log().mean()) * draws > -21


def _require_source(
    trial: Trial, probs: list[Tensor], generator: torch.Generator | None, alone: Tensor | None
) -> None:
    """The generator alone decides: equal states give equal tokens, each draw moves it on, other seeds give others.

    alone: what has been drawn with the generator in many calls, for a single row.
    """
    level = trial.case.situation.get("generator")
    if level not in (NONE, EXAMINED) or trial.inputs["logits"].shape[-1] > 20_000:
        return
    first = _several(trial, generator, ALONE) if alone is None else alone
    second = first[:1].expand(len(first)) if alone is not None else _several(trial, generator, ALONE)
    surely = not agree_by_chance(probs, len(first))
    if level == EXAMINED and not torch.equal(first, _several(trial, _seeded(trial), ALONE)):
        raise Failure(
            "two generators of the same seed give different tokens. Is `generator=generator` passed on to what draws?",
            mistake="generator is not used",
        )
    if surely and torch.equal(first, second):
        raise Failure(
            f"two draws in a row give the same {len(first)} tokens. Is a seed set, or the generator copied?",
            mistake="the same tokens each time without a generator"
            if level == NONE
            else "generator does not move on",
        )
    if level == NONE or alone is not None or not surely:
        return
    if torch.equal(first, _several(trial, _seeded(trial, 1), ALONE)):
        raise Failure(
            "generators of different seeds give the same tokens. Is anything drawn at all?",
            mistake="generator is not used",
        )
    loose = [(_several(trial, _seeded(trial), ALONE), _several(trial, None, ALONE))[1] for _ in range(2)]
    if torch.equal(*loose):
        raise Failure(
            "what is drawn without a generator depends on the generator of an earlier call. Is the global seed set?",
            mistake="the global seed is set",
        )
