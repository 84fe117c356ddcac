"""Exercise `perplexity`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Target
from autograder.checks.agreement import raises_value_error
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.generation import perplexity
from autograder.situations import DTYPES, MODULE_AXES, Factor, Group, Situations, groups, without
from autograder.situations.space import GRADIENT

__all__ = ["PERPLEXITY"]

Inputs = dict[str, Any]
AXES = {"logits": "... S V", "targets": "... S"}


def _drawn(
    draw: Draw,
    *,
    axes: int = 1,
    batch: int = 0,
    S: tuple[int, int] = (3, 9),
    V: int = 0,
    hidden: str = "",
    ignore_index: int | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Inputs:
    """logits (..., S, V), targets (..., S). S: one of these two lengths.

    hidden: what does not count: "ends" of sentences, "all but one", "all".
    ignore_index: the number that hides, or "V", the first beyond the vocabulary, where it is handed over.
    """
    lead, (drawn_S, drawn_V) = list(draw.sizes(axes, 2, 3)), draw.sizes(2, 4, 9)
    lead, width = [batch or one for one in lead], V or drawn_V
    length = drawn_S if S == (3, 9) else S[draw.integer(0, 1)]
    index = width if ignore_index == "V" else ignore_index
    targets = (draw.uniform(*lead, length) * width).long()
    other = -100 if index is None else int(index)
    targets[targets == other] = width - 1
    if hidden == "ends":
        lengths = (draw.uniform(*lead, 1) * (length - 1)).long() + 1
        if lengths.numel() > 1:
            lengths.reshape(-1)[0], lengths.reshape(-1)[-1] = length, 1  # so that sentences differ in length
        else:
            lengths.fill_(length - length // 3)
        targets[torch.arange(length) >= lengths] = other
    elif hidden:
        kept = targets.reshape(-1)[0].clone()
        targets.fill_(other)
        if hidden == "all but one":
            targets.reshape(-1)[0] = kept
    given = {} if index is None else {"ignore_index": index}
    return {"logits": draw.normal(*lead, length, width, dtype=dtype), "targets": targets, **given}


def _counted(inputs: Inputs) -> Tensor:
    counts: Tensor = inputs["targets"] != inputs.get("ignore_index", -100)
    return counts


def _lifted(draw: Draw, inputs: Inputs) -> Inputs:
    """About 100 is added to all logits of a row, which changes no probability; where hidden rows are, far more to these."""
    logits = inputs["logits"]
    size = torch.where(_counted(inputs), 100.0, 3e4 if logits.dtype == torch.float16 else 1e6)
    return {
        **inputs,
        "logits": (logits.double() + (size * draw.normal(*size.shape).sign())[..., None]).to(logits.dtype),
    }


def _towards_targets(size: float) -> Callable[[Draw, Inputs], Inputs]:
    """So much more for the logit of each target that counts."""

    def change(draw: Draw, inputs: Inputs) -> Inputs:
        wanted = torch.where(_counted(inputs), inputs["targets"], 0).unsqueeze(-1)
        more = torch.zeros_like(inputs["logits"]).scatter(-1, wanted, size)
        return {**inputs, "logits": inputs["logits"] + more}

    return change


def _one_hopeless(draw: Draw, inputs: Inputs) -> Inputs:
    """One target's loss is about 150, those of the others are next to nothing, so that the perplexity fits any dtype."""
    inputs = _towards_targets(9.0)(draw, inputs)
    logits, counts = inputs["logits"].clone(), _counted(inputs)
    place = tuple(counts.nonzero()[0].tolist())
    index = (*place, int(inputs["targets"][place]))
    logits[index] -= min(150.0, 9.0 * int(counts.sum()))
    return {**inputs, "logits": logits}


def _wrong_throughout(draw: Draw, inputs: Inputs) -> Inputs:
    """All losses are about 80, or in float64 600: their exp is not far below the dtype's largest number."""
    return _towards_targets(-600.0 if inputs["logits"].dtype == torch.float64 else -80.0)(draw, inputs)


def _impossible(draw: Draw, inputs: Inputs) -> Inputs:
    """One target that counts has logit -inf: the perplexity is infinite."""
    logits, place = inputs["logits"].clone(), tuple(_counted(inputs).nonzero()[0].tolist())
    index = (*place, int(inputs["targets"][place]))
    logits[index] = -torch.inf
    return {**inputs, "logits": logits}


def _forbidden(draw: Draw, inputs: Inputs) -> Inputs:
    """Tokens of logit -inf: token 0 in hidden rows, another one than the target where it counts."""
    logits, counts = inputs["logits"].clone(), _counted(inputs)
    other = torch.where(counts, (inputs["targets"] + 1) % logits.shape[-1], 0).unsqueeze(-1)
    return {**inputs, "logits": logits.scatter(-1, other, -torch.inf)}


BOUNDED = (
    "losses are bounded",
    "Is a loss, a logit or a log-probability clamped? A hopeless model has a perplexity without bound.",
)
HALVES = ("float16", "bfloat16")
WRONG, IMPOSSIBLE = "a model that is wrong throughout", "an impossible target"
LONG = ("over two thousand positions", "over two thousand positions, many hidden")

FACTORS: Mapping[str, Factor] = {
    "lengths": {
        "several positions": {},
        "one token": {"S": (1, 1), "batch": 1},
        "one position of each sentence": {"S": (1, 1)},
        "many tokens in the vocabulary": {"V": 263},
        LONG[0]: {"S": (2053, 2063), "axes": 0, "V": 5},
        LONG[1]: {"S": (4127, 4129), "axes": 0, "V": 3, "hidden": "ends"},
    },
    "targets": {
        "all count": {},
        "padding": {"hidden": "ends"},
        "padding of token 0": {"hidden": "ends", "ignore_index": 0},
        "padding of a token beyond the vocabulary": {"hidden": "ends", "ignore_index": "V"},
        "an ignore_index that no target has": {"ignore_index": -1},
        "all but one hidden": {"hidden": "all but one"},
    },
    "scores": {
        "ordinary logits": {}, "lifted logits": _lifted, "a confident model": _towards_targets(30.0),
        "a hopeless target": ({"S": (19, 23)}, _one_hopeless), "forbidden tokens": _forbidden,
        WRONG: _wrong_throughout, IMPOSSIBLE: ({"S": (401, 409)}, _impossible),
    },
    "dtype": DTYPES,
    "axes": MODULE_AXES,
}  # fmt: skip


def _losses(logits: Tensor, targets: Tensor) -> Tensor:
    """The negative log-likelihoods (..., S), of hidden targets too: of token 0."""
    wanted = torch.where((targets < 0) | (targets >= logits.shape[-1]), 0, targets).unsqueeze(-1)
    return -logits.log_softmax(-1).gather(-1, wanted).squeeze(-1)


def _made(value: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A formula from losses (..., S), which of them count (..., S), and logits."""

    def formula(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
        return value(_losses(logits, targets), targets != ignore_index, logits)

    return formula


def _right(logits: Tensor, targets: Tensor, ignore_index: int = -100) -> Tensor:
    return perplexity(logits, targets, ignore_index)["perplexity"].value


def _per_sentence(losses: Tensor, counts: Tensor) -> Tensor:
    return torch.where(counts, losses, 0.0).sum(-1) / counts.sum(-1)


SLIPS: Slips = {
    "Perplexity is exp of the mean loss.": {"exp is missing": _made(lambda x, c, _: x[c].mean())},
    "Is the mean taken of log-likelihoods?": {"mean of probabilities": _made(lambda x, c, _: 1 / (-x[c]).exp().mean())},
    "The mean comes before exp.": {"mean of inverse probabilities": _made(lambda x, c, _: x[c].exp().mean())},
    "Is the sum divided by the number of tokens?": {"sum instead of mean": _made(lambda x, c, _: x[c].sum().exp())},
    "The loss is in nats: exp, or 2 with log2.": {"a power of 2": _made(lambda x, c, _: 2 ** x[c].mean())},
    "A perplexity is at least 1. Is it minus the log-probability?": {
        "sign of the loss": _made(lambda x, c, _: (-x[c].mean()).exp()),
    },
    "All tokens that count weigh alike, also those of long sentences.": {
        "sentences weigh alike": _made(lambda x, c, _: _per_sentence(x, c).mean().exp()),
    },
    "One mean over all tokens, then exp.": {
        "mean of the sentences' perplexities": _made(lambda x, c, _: _per_sentence(x, c).exp().mean()),
    },
    "Which targets equal ignore_index?": {"hidden targets count": _made(lambda x, c, _: x.mean().exp())},
    "Is the sum divided by the number of targets that count?": {
        "divided by all targets": _made(lambda x, c, _: torch.where(c, x, 0.0).sum().div(c.numel()).exp()),
    },
    "Is ignore_index passed on?": {
        "ignore_index is taken for -100": lambda logits, targets, ignore_index=-100: _right(logits, targets),
    },
    "Row t of the logits already predicts targets[t].": {
        "shifted once more": lambda logits, targets, **index: _right(logits[..., :-1, :], targets[..., 1:], **index),
    },
    "Logits are no log-probabilities yet. Where is log_softmax?": {
        "no softmax": _made(lambda x, c, logits: (x - logits.logsumexp(-1))[c].mean().exp()),
    },
    "One number for all.": {"perplexity of each sentence": _made(lambda x, c, _: _per_sentence(x, c).exp())},
}  # fmt: skip

PERPLEXITY = Exercise(
    name="perplexity",
    assignment="text_generation",
    target=Target("perplexity", ("perplexity",), perplexity),
    positional=("logits", "targets"),
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes=AXES,
        never=(
            {"lengths": LONG, "targets": tuple(without(FACTORS["targets"], "all count"))},
            {"scores": "a hopeless target", "dtype": HALVES},  # a sum of many terms, kept in them, loses much
            {"lengths": "many tokens in the vocabulary", "dtype": HALVES},
            {"scores": WRONG, "dtype": HALVES},  # which hold no such perplexity
            {"scores": (WRONG, IMPOSSIBLE), "gradient": GRADIENT},  # no number holds it to its last digits, or there is none
        ),
        groups=groups(
            "exp of the mean negative log-likelihood", 0.75,
            (Group("targets", "hidden targets do not count; all others weigh alike", 0.5, ("targets",)),),
            lengths=0.25, scores=0.25, dtypes=0.25, gradient=0.25, calls=0.25,
        ),
        names=dict.fromkeys((("scores", WRONG), ("scores", IMPOSSIBLE)), BOUNDED),
    ),
    recipes=(Recipe("no target counts", partial(_drawn, hidden="all")),),
    checks=(
        Check("refuses", "no target that counts raises ValueError", 0.25, ("no target counts",), raises_value_error(),
              "agrees with the formula"),
    ),
    mistakes=slips(_right, SLIPS, output="perplexity"),
    hints=(
        "A model that spreads its belief evenly over 50 tokens has perplexity 50. Which mean gives that?",
        "Select the rows whose target counts, take log_softmax, and look up each target's entry.",
        "`-log_softmax(logits[counts], -1).gather(-1, targets[counts].unsqueeze(-1))`, then mean, then exp.",
    ),
)  # fmt: skip
