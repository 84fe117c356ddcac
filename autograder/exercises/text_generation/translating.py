"""Exercise `Seq2SeqGenerator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.decoding import same_text_elsewhere, text_agrees
from autograder.checks.objects import invoke
from autograder.checks.scripted import UsedObject
from autograder.checks.stand_ins import Reader
from autograder.exercises.exercise import Exercise, Mistake
from autograder.oracle.generation import whole
from autograder.oracle.quantity import Quantity, Rounder, exact

__all__ = ["SEQ2SEQ_GENERATOR"]

CLEAR = 1e-2
"""Smallest gap between the two largest logits of a step: the parts answer in float32, which errs by less than 1e-5."""


def _script(make: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    reader = inputs["reader"]
    reader.asked.clear()
    translator = make(*(reader.part(name) for name in ("encoder", "decoder", "attention")))
    source = inputs["source"].clone()
    return invoke(
        translator, "generate", source, *(inputs[name] for name in ("bos", "eos", "max_new_tokens"))
    )


def _decode(
    reader: Reader,
    source: Tensor,
    bos: int,
    eos: int,
    max_new_tokens: int,
    *,
    feeds: Callable[[int, int], int] = lambda token, bos: token,
    stays: bool = False,
    looks: bool = True,
    late: bool = False,
    choose: Callable[[Tensor], Tensor] = torch.argmax,
    stops: Callable[[int, int], bool] = lambda token, eos: token == eos,
    steps: Callable[[int, int], int] = lambda most, length: most,
    finish: Callable[[list[int], int, int], list[int]] = lambda tokens, bos, eos: tokens,
    rows: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Mapping[str, Tensor]:
    """Greedy translation with knobs; each hands on float32, as the parts do."""
    memory, state = reader.encoder(source)
    token, tokens, looked, gap = bos, list[int](), list[Tensor](), torch.inf
    for _ in range(steps(max_new_tokens, len(source))):
        context, weights = reader.attention(state.unsqueeze(0), memory, memory)
        seen = context.squeeze(0) if looks else torch.zeros_like(state)
        logits, new = reader.decoder(torch.tensor(feeds(token, bos)), state, seen)
        if late:
            weights = reader.attention(new.unsqueeze(0), memory, memory)[1]
        state = state if stays else new
        token = int(choose(logits))
        best = logits.topk(2).values
        gap = min(gap, float(best[0] - best[1]))
        tokens.append(token)
        looked.append(weights.squeeze(0))
        if stops(token, eos):
            break
    kept = finish(tokens, bos, eos)
    return {
        "tokens": torch.tensor(kept).double(),
        "attention_map": rows(torch.stack(looked[: len(kept)])).double(),
        "gap": torch.tensor(gap),
    }


def _inputs(
    draw: Draw, *, ends: bool = True, new: tuple[int, int] = (7, 10), zero: bool = False
) -> dict[str, Any]:
    """ends: whether eos comes before max_new_tokens, after at least two tokens. zero: eos is token 0."""
    while True:
        vocabulary, width = draw.sizes(2, 5, 9)
        source = (draw.uniform(draw.integer(3, 6)) * vocabulary).long()
        inputs: dict[str, Any] = {
            "reader": Reader(draw.integer(0, 2**31), vocabulary, width),
            "source": source,
            "bos": draw.integer(1, vocabulary - 1),
            "eos": 0 if zero else draw.integer(1, vocabulary - 1),
            "max_new_tokens": draw.integer(*new),
        }
        found = _decode(**inputs)
        length = len(found["tokens"])
        ended = 3 <= length < inputs["max_new_tokens"] - 1 and length != len(source)
        right = ended if ends else length == inputs["max_new_tokens"] and inputs["eos"] not in found["tokens"]
        right = right and length - len(source) not in (0, 1)
        varied = len(set(found["tokens"].tolist())) >= min(3, length)
        if right and varied and inputs["bos"] != inputs["eos"] and found["gap"] > CLEAR:
            return inputs


def _formula(reader: Reader, round: Rounder = exact, **inputs: Any) -> dict[str, Quantity]:
    found = _decode(reader, **inputs)
    # The weights are handed through: what is at stake is the rounding of numbers up to 1.
    looked = found["attention_map"]
    return {"tokens": whole(found["tokens"]), "attention_map": Quantity(looked, torch.ones_like(looked))}


def _map_agrees(trial: Trial) -> None:
    trial.require(
        "attention_map", trial()["attention_map"], "row t must hold the weights that led to tokens[t]"
    )


def _asks_once(trial: Trial) -> None:
    """The source is encoded once; attention and decoder are called once a token."""
    while True:
        reader = trial.inputs["reader"].another(trial.draw.integer(0, 2**31))
        if _decode(**trial.changed(reader=reader))["gap"] > CLEAR:
            break
    tokens, asked = same_text_elsewhere(trial, "reader", reader), reader.asked
    counts = {name: asked.count(name) for name in ("encoder", "attention", "decoder")}
    if counts["encoder"] != 1:
        raise Failure(
            f"the source was encoded {counts['encoder']} times for one translation; it does not change.",
            mistake="encodes at every step",
        )
    if max(counts["attention"], counts["decoder"]) > len(tokens):
        raise Failure(
            f"{len(tokens)} tokens took {counts['attention']} calls of the attention and {counts['decoder']} of the "
            "decoder; one of each a token is enough.",
            mistake="asks more often than once a token",
        )


def _mistake(name: str, question: str, **knobs: Any) -> Mistake:
    def formula(**inputs: Any) -> Mapping[str, Tensor]:
        found = _decode(**inputs, **knobs)
        return {name: found[name] for name in ("tokens", "attention_map")}

    return Mistake(name, question, formula)


MISTAKES = (
    _mistake(
        "nothing is fed back",
        "The decoder gets bos at every step. Should it get the token chosen last?",
        feeds=lambda token, bos: bos,
    ),
    _mistake("the state is not carried on", "The decoder returns the next state. Is it kept?", stays=True),
    _mistake(
        "the decoder does not look",
        "Is the attention's output handed to the decoder, as context?",
        looks=False,
    ),
    _mistake(
        "the map is one step late",
        "Row t holds the weights that were used to choose tokens[t], so the query is the state before the step.",
        late=True,
    ),
    _mistake("the least likely token is chosen", "argmax or argmin?", choose=torch.argmin),
    _mistake("does not stop at eos", "What ends the loop?", stops=lambda token, eos: False),
    _mistake(
        "eos 0 counts as none",
        "Token 0 is a token. Is it compared with ==?",
        stops=lambda token, eos: bool(eos) and token == eos,
    ),
    _mistake(
        "eos is left out",
        "Does eos stay in the result?",
        finish=lambda tokens, bos, eos: [t for t in tokens if t != eos],
    ),
    _mistake(
        "bos is in the result", "bos only starts the decoder.", finish=lambda tokens, bos, eos: [bos, *tokens]
    ),
    _mistake(
        "as long as the source",
        "The loop runs over the source. What should the length of the output depend on?",
        steps=lambda most, length: length,
        stops=lambda token, eos: False,
    ),
    _mistake("one token too few", "How often may the loop run?", steps=lambda most, length: most - 1),
    _mistake(
        "map is transposed",
        "Rows are target tokens, columns source tokens: (T, S).",
        rows=lambda rows: rows.mT,
    ),
    _mistake(
        "one row for all tokens",
        "Each token has weights of its own: (T, S).",
        rows=lambda rows: rows[-1:].expand_as(rows),
    ),
)

RECIPES = (
    Recipe("ends by itself", partial(_inputs, new=(8, 12))),
    Recipe("cut off", partial(_inputs, ends=False, new=(4, 7))),
    Recipe("eos is token 0", partial(_inputs, zero=True, new=(8, 12))),
    Recipe("one token", partial(_inputs, ends=False, new=(1, 1))),
)

TOKENS = "tokens"

SEQ2SEQ_GENERATOR = Exercise(
    name="Seq2SeqGenerator",
    assignment="text_generation",
    target=Target("Seq2SeqGenerator", ("tokens", "attention_map"), _formula),
    positional=(),
    parameters=(),
    used_as=lambda obj, *_: UsedObject(obj, _script),
    recipes=RECIPES,
    checks=(
        Check(
            TOKENS,
            "each token follows from the source and from the tokens before it",
            1.5,
            ("cut off",),
            text_agrees(),
        ),
        Check(
            "eos",
            "stops at eos, and keeps it",
            0.75,
            ("ends by itself", "eos is token 0"),
            text_agrees(),
            TOKENS,
        ),
        Check("length", "at most max_new_tokens", 0.25, ("one token",), text_agrees(), TOKENS),
        Check(
            "attention map",
            "row t holds the weights that led to tokens[t]",
            0.75,
            ("cut off", "ends by itself"),
            _map_agrees,
            (TOKENS, "eos"),
        ),
        Check(
            "cost",
            "encodes once, and asks once a token",
            0.75,
            ("cut off", "ends by itself"),
            _asks_once,
            (TOKENS, "eos"),
        ),
    ),
    mistakes=MISTAKES,
    hints=(
        "Which of the three parts depends on what has been written so far, and which does not?",
        (
            "Encode once, before the loop. In each step: the state asks, the memory answers, the decoder gets the last "
            "token, the state and the context, and returns logits and the next state."
        ),
        (
            "`context, weights = self.attention(state.unsqueeze(0), memory, memory)`; `logits, state = "
            "self.decoder(token, state, context.squeeze(0))`; `token = logits.argmax(-1)`; keep token and weights; stop at eos."
        ),
    ),
)
