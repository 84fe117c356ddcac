"""Exercise `perplexity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.agreement import agrees, raises_value_error
from autograder.checks.conduct import inputs_untouched
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import perplexity

__all__ = ["PERPLEXITY"]


def _inputs(
    draw: Draw,
    *,
    axes: int = 1,
    hidden: str = "",
    ignore_index: int | None = None,
    lift: float = 0.0,
    dtype: torch.dtype = torch.float32,
    high: int = 9,
) -> dict[str, Any]:
    """logits (..., S, V), targets (..., S). hidden: "padding" hides ends of sentences, "all" hides everything.

    lift: about how much is added to all logits of a row, which changes no probability.
    """
    *lead, S, V = draw.sizes(axes + 2, low=3, high=high)
    targets = (draw.uniform(*lead, S) * V).long()
    other = -100 if ignore_index is None else ignore_index
    if hidden:
        targets[targets == other] = V - 1
        lengths = (draw.uniform(*lead, 1) * (S - 1)).long() + 1
        lengths.reshape(-1)[0], lengths.reshape(-1)[-1] = 1, S  # so that sentences differ in length
        targets[torch.arange(S) >= (lengths if hidden == "padding" else 0 * lengths)] = other
    given = {} if ignore_index is None else {"ignore_index": ignore_index}
    logits = draw.normal(*lead, S, V, dtype=dtype) + lift * draw.normal(*lead, S, 1, dtype=dtype)
    return {"logits": logits, "targets": targets, **given}


def _scalar(trial: Trial) -> None:
    value = trial()["perplexity"]
    if value.dtype != trial.dtype:
        raise Failure(
            f"the result is {str(value.dtype).removeprefix('torch.')}; logits' dtype is asked for.",
            mistake="does not keep the dtype",
        )
    agrees("perplexity")(trial)


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihoods (..., S), of hidden targets too: of token 0."""
    wanted = torch.where(targets < 0, 0, targets).unsqueeze(-1)
    return -logits.log_softmax(-1).gather(-1, wanted).squeeze(-1)


def _mistake(name: str, question: str, value: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Mistake:
    """`value` takes losses (..., S), which of them count (..., S), and logits."""

    def formula(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Mapping[str, Tensor]:
        return {"perplexity": value(_losses(logits, targets), targets != ignore_index, logits)}

    return Mistake(name, question, formula)


def _shifted(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Mapping[str, Tensor]:
    found = perplexity(logits[..., :-1, :], targets[..., 1:], ignore_index)
    return {"perplexity": found["perplexity"].value}


def _default_index(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Mapping[str, Tensor]:
    return {"perplexity": perplexity(logits, targets)["perplexity"].value}


def _per_sentence(losses: Tensor, counts: Tensor) -> Tensor:
    return (losses * counts).sum(-1) / counts.sum(-1)


MISTAKES = (
    _mistake("exp is missing", "Perplexity is exp of the mean loss.", lambda x, c, _: x[c].mean()),
    _mistake(
        "mean of probabilities",
        "Is the mean taken of log-likelihoods?",
        lambda x, c, _: 1 / (-x[c]).exp().mean(),
    ),
    _mistake(
        "mean of inverse probabilities", "The mean comes before exp.", lambda x, c, _: x[c].exp().mean()
    ),
    _mistake(
        "sum instead of mean", "Is the sum divided by the number of tokens?", lambda x, c, _: x[c].sum().exp()
    ),
    _mistake("a power of 2", "The loss is in nats: exp, or 2 with log2.", lambda x, c, _: 2 ** x[c].mean()),
    _mistake(
        "sign of the loss",
        "A perplexity is at least 1. Is it minus the log-probability?",
        lambda x, c, _: (-x[c].mean()).exp(),
    ),
    _mistake(
        "sentences weigh alike",
        "All tokens that count weigh alike, also those of long sentences.",
        lambda x, c, _: _per_sentence(x, c).mean().exp(),
    ),
    _mistake(
        "mean of the sentences' perplexities",
        "One mean over all tokens, then exp.",
        lambda x, c, _: _per_sentence(x, c).exp().mean(),
    ),
    _mistake("hidden targets count", "Which targets equal ignore_index?", lambda x, c, _: x.mean().exp()),
    _mistake(
        "divided by all targets",
        "Is the sum divided by the number of targets that count?",
        lambda x, c, _: (x * c).sum().div(c.numel()).exp(),
    ),
    Mistake("ignore_index is taken for -100", "Is ignore_index passed on?", _default_index),
    Mistake("shifted once more", "Row t of the logits already predicts targets[t].", _shifted),
    _mistake(
        "no softmax",
        "Logits are no log-probabilities yet. Where is log_softmax?",
        lambda x, c, logits: (x - logits.logsumexp(-1))[c].mean().exp(),
    ),
    _mistake("perplexity of each sentence", "One number for all.", lambda x, c, _: _per_sentence(x, c).exp()),
)


def _recipe(label: str, **options: Any) -> Recipe:
    return Recipe(label, partial(_inputs, **options))


RECIPES = (
    _recipe("every target counts", high=5),
    _recipe("padded", hidden="padding"),
    _recipe("padded with another index", hidden="padding", ignore_index=0),
    _recipe("one sentence", axes=0),
    _recipe("two leading axes", axes=2, hidden="padding"),
    _recipe("large logits", lift=400.0),
    _recipe("float64", dtype=torch.float64),
    _recipe("no target counts", hidden="all"),
)

FORMULA = "agrees with the formula"

PERPLEXITY = Exercise(
    name="perplexity",
    assignment="text_generation",
    target=Target("perplexity", ("perplexity",), perplexity),
    positional=("logits", "targets"),
    recipes=RECIPES,
    checks=(
        Check(
            FORMULA,
            "exp of the mean negative log-likelihood",
            0.75,
            ("every target counts",),
            agrees("perplexity"),
        ),
        Check(
            "padding",
            "hidden targets do not count; all others weigh alike",
            0.5,
            ("padded",),
            agrees("perplexity"),
            FORMULA,
        ),
        Check(
            "ignore_index",
            "ignore_index says which targets are hidden",
            0.25,
            ("padded with another index",),
            agrees("perplexity"),
            FORMULA,
        ),
        Check(
            "leading axes",
            "any number of leading axes, none among them",
            0.25,
            ("one sentence", "two leading axes"),
            agrees("perplexity"),
            FORMULA,
        ),
        Check("large logits", "no overflow", 0.25, ("large logits",), agrees("perplexity"), FORMULA),
        Check("dtype", "logits' dtype, and its precision", 0.25, ("float64",), _scalar, FORMULA),
        Check(
            "inputs untouched",
            "no input is written to",
            0.25,
            ("padded",),
            inputs_untouched(),
            (FORMULA, "padding"),
        ),
        Check(
            "refuses",
            "no target that counts raises ValueError",
            0.25,
            ("no target counts",),
            raises_value_error(),
            FORMULA,
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        "A model that spreads its belief evenly over 50 tokens has perplexity 50. Which mean gives that?",
        "Select the rows whose target counts, take log_softmax, and look up each target's entry.",
        "`-log_softmax(logits[counts], -1).gather(-1, targets[counts].unsqueeze(-1))`, then mean, then exp.",
    ),
)
