"""Exercise `Seq2SeqGenerator`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from autograder.case import Draw, Recipe
from autograder.checks import Check, Failure, Target, Trial
from autograder.checks.decoding import require_text, same_text_elsewhere, text_of
from autograder.checks.objects import invoke
from autograder.checks.scripted import UsedObject
from autograder.checks.stand_ins import Reader
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle.generation import whole
from autograder.oracle.quantity import Quantity, Rounder, exact
from autograder.situations import Factor, Group, Situations, groups, without

__all__ = ["SEQ2SEQ_GENERATOR"]

CLEAR = 1e-2
"""Smallest gap between the two largest logits of a step: the parts answer in float32, which errs by less than 1e-5."""
PARTS = ("encoder", "decoder", "attention")
OUTPUTS = ("tokens", "attention_map")


def _script(make: Callable[..., Any], inputs: Mapping[str, Any]) -> Any:
    """A translation, after one of `earlier` by the same object, whose parts have changed since where `learns` is set."""
    reader = inputs["reader"]
    parts = [reader.part(name) for name in PARTS]
    translator = make(*parts)
    given = [inputs[name] for name in ("bos", "eos", "max_new_tokens")]
    if "earlier" in inputs:
        for part in parts if inputs.get("learns") else ():
            part.reader = reader.another(reader.seed + 1)
        invoke(translator, "generate", inputs["earlier"].clone(), *given)
        for part in parts:
            part.reader = reader
    reader.asked.clear()
    return invoke(translator, "generate", inputs["source"], *given)


def decoded(
    reader: Reader,
    source: Tensor,
    bos: int,
    eos: int,
    max_new_tokens: int,
    *,
    earlier: Tensor | None = None,
    learns: bool = False,
    feeds: Callable[[int, int], int] = lambda token, bos: token,
    stays: bool = False,
    looks: bool = True,
    late: bool = False,
    choose: Callable[[Tensor], Tensor] = torch.argmax,
    stops: Callable[[int, int, int], bool] = lambda token, eos, bos: token == eos,
    steps: Callable[[int, int], int] = lambda most, length: most,
    finish: Callable[[list[int], int, int], list[int]] = lambda tokens, bos, eos: tokens,
    rows: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Mapping[str, Tensor]:
    """Greedy translation in steps; each hands on float32, as the parts do."""
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
        best, second = logits.topk(2).values.tolist()
        gap = min(gap, best - second)
        tokens.append(token)
        looked.append(weights.squeeze(0))
        if stops(token, eos, bos):
            break
    kept = finish(tokens, bos, eos)
    shown = rows(torch.stack(looked[: len(kept)])).double()
    return {"tokens": torch.tensor(kept), "attention_map": shown, "gap": torch.tensor(gap)}


def _drawn(
    draw: Draw,
    *,
    ends: str = "",
    new: tuple[int, int] = (6, 8),
    S: tuple[int, int] = (3, 6),
    width: int = 0,
    V: int = 0,
    earlier: str = "",
) -> dict[str, Any]:
    """ends: where eos comes: nowhere, "early" (after at least two tokens), "zero" (the same, token 0), "bos" (eos is bos),
    "first" (at once), "last" (with the last token of all). earlier: another sentence before, "longer", "as long", or "the same"
    by parts that are others then."""
    while True:
        vocabulary, wide = draw.sizes(2, 6, 10)
        vocabulary = V or vocabulary
        source = (draw.uniform(draw.integer(*S)) * vocabulary).long()
        reader = Reader(draw.integer(0, 2**31), vocabulary, width or wide)
        bos, most = draw.integer(1, vocabulary - 1), draw.integer(*new)
        found = decoded(reader, source, bos, -1, most)
        tokens = found["tokens"].tolist()
        varied = len(set(tokens)) >= min(3, most) and (most == 1 or most - len(source) not in (0, 1))
        if found["gap"] <= CLEAR or not (varied or width):
            continue
        places = {"": [], "first": [0], "last": range(min(2, most - 1), most)}.get(
            ends, range(min(2, most - 1), most - 2)
        )
        stops = [
            place
            for place in places
            if (token := tokens[place]) not in tokens[:place]
            and (token == 0) == (ends == "zero")
            and (token == bos) == (ends == "bos")
            and (ends == "first" or place + 1 - len(source) not in (0, 1))
        ]
        unused = [token for token in range(vocabulary) if token not in tokens and token != bos]
        if not (unused if not ends else stops):
            continue
        given = {
            "reader": reader,
            "source": source,
            "bos": bos,
            "eos": tokens[stops[0]] if ends else unused[0],
        }
        given["max_new_tokens"] = stops[0] + 1 if ends == "last" else most
        if earlier:
            length = len(source) + 2 * (earlier == "longer")
            other = (draw.uniform(length) * vocabulary).long()
            given |= {"earlier": source, "learns": True} if earlier == "the same" else {"earlier": other}
        return given


def _formula(reader: Reader, round: Rounder = exact, **inputs: Any) -> dict[str, Quantity]:
    found = decoded(reader, **inputs)
    # The weights are handed through: what is at stake is the rounding of numbers up to 1.
    looked = found["attention_map"]
    return {"tokens": whole(found["tokens"]), "attention_map": Quantity(looked, torch.ones_like(looked))}


def _right(trial: Trial, results: Mapping[str, Tensor]) -> None:
    require_text(trial, text_of(results["tokens"]))
    looked, shape = results["attention_map"], trial.expect()["attention_map"].value.shape
    if looked.shape != shape:
        raise Failure(
            f"attention_map has shape {tuple(looked.shape)}; expected {tuple(shape)}.",
            mistake="attention_map has the wrong shape",
        )
    trial.require("attention_map", looked, "row t must hold the weights that led to tokens[t]")


def _asks_once(trial: Trial) -> None:
    """The source is encoded once; attention and decoder are called once a token."""
    while True:
        reader = trial.inputs["reader"].another(trial.draw.integer(0, 2**31))
        if decoded(**trial.changed(reader=reader))["gap"] > CLEAR:
            break
    tokens, asked = same_text_elsewhere(trial, "reader", reader), reader.asked
    counts = {name: asked.count(name) for name in PARTS}
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


SLIPS: Slips = {
    "The decoder gets bos at every step. Should it get the token chosen last?": {
        "nothing is fed back": {"feeds": lambda token, bos: bos},
    },
    "The decoder returns the next state. Is it kept?": {"the state is not carried on": {"stays": True}},
    "Is the attention's output handed to the decoder, as context?": {"the decoder does not look": {"looks": False}},
    "Row t holds the weights that were used to choose tokens[t], so the query is the state before the step.": {
        "the map is one step late": {"late": True},
    },
    "argmax or argmin?": {"the least likely token is chosen": {"choose": torch.argmin}},
    "Token 0 is a token. Is it compared with ==?": {
        "eos 0 counts as none": {"stops": lambda token, eos, bos: bool(eos) and token == eos},
    },
    "What ends the loop?": {"does not stop at eos": {"stops": lambda token, eos, bos: False}},
    "Does eos stay in the result?": {"eos is left out": {"finish": lambda tokens, bos, eos: [t for t in tokens if t != eos]}},
    "bos only starts the decoder.": {"bos is in the result": {"finish": lambda tokens, bos, eos: [bos, *tokens]}},
    "The loop runs over the source. What should the length of the output depend on?": {
        "as long as the source": {"steps": lambda most, length: length, "stops": lambda token, eos, bos: False},
    },
    "How often may the loop run?": {"one token too few": {"steps": lambda most, length: most - 1}},
    "Rows are target tokens, columns source tokens: (T, S).": {"map is transposed": {"rows": lambda rows: rows.mT}},
    "Each token has weights of its own: (T, S).": {
        "one row for all tokens": {"rows": lambda rows: rows[-1:].expand_as(rows)},
    },
}  # fmt: skip

LONG, ONE = "over fifty tokens", "one token"
FACTORS: Mapping[str, Factor] = {
    "eos": {
        "cut off": {}, "ends by itself": {"ends": "early", "new": (6, 9)}, "eos is token 0": {"ends": "zero", "new": (6, 9)},
        "bos equals eos": {"ends": "bos", "new": (6, 9)}, "eos comes first": {"ends": "first"},
        "eos comes last": {"ends": "last"},
    },
    "lengths": {"several tokens": {}, ONE: {"new": (1, 1)}, LONG: {"new": (53, 56), "V": 40}},
    "source": {
        "a source of several tokens": {}, "a source of one token": {"S": (1, 1)}, "a long source": {"S": (11, 13)},
    },
    "width": {"wide": {}, "width one": {"width": 1}},
    "earlier": {
        "a new object": {}, "after a longer sentence": {"earlier": "longer"}, "after another sentence": {"earlier": "as long"},
        "after the same sentence, before the parts were trained": {"earlier": "the same"},
    },
}  # fmt: skip

SEQ2SEQ_GENERATOR = Exercise(
    name="Seq2SeqGenerator",
    assignment="text_generation",
    target=Target("Seq2SeqGenerator", OUTPUTS, _formula),
    positional=(),
    parameters=(),
    used_as=lambda obj, *_: UsedObject(obj, _script),
    situations=Situations(
        draw=_drawn,
        factors=FACTORS,
        axes={"source": "S"},
        groups=groups(
            "each token follows from the source and the tokens before it; row t of the map led to it", 1.25,
            (
                Group("eos", "stops at eos, and keeps it; bos does not count", 0.75, ("eos",)),
                Group("lengths", "right for sources and texts of any lengths, and parts of any width", 0.5,
                      ("lengths", "source", "width")),
                Group("second sentence", "what came before changes nothing", 0.5, ("earlier",)),
            ), calls=0.25,
        ),
        never=(
            {"lengths": ONE, "eos": tuple(without(FACTORS["eos"], "cut off", "eos comes first"))},
            *({"lengths": LONG, name: tuple(FACTORS[name])[1:]} for name in FACTORS if name != "lengths"),
            {"width": "width one", "eos": tuple(without(FACTORS["eos"], "cut off", "eos comes first"))},
        ),
        left_out={
            "device": "the parts that are handed over answer on the CPU",
            "layout: expanded": "a source has no leading axis",
            "gradient: a gradient asked": "a token has no gradient",
            "gradient: a gradient of one input": "a token has no gradient",
            "gradient: activation checkpointing": "a token has no gradient",
        },
        right=_right,
    ),
    recipes=(Recipe("cut off", _drawn), Recipe("ends by itself", lambda draw: _drawn(draw, ends="early", new=(6, 9)))),
    checks=(
        Check("cost", "encodes once, and asks once a token", 0.75, ("cut off", "ends by itself"), _asks_once,
              ("agrees with the formula", "eos")),
    ),
    mistakes=slips(lambda **given: {name: decoded(**given)[name] for name in OUTPUTS}, SLIPS),
    hints=(
        "Which of the three parts depends on what has been written so far, and which does not?",
        "Encode once, before the loop. In each step: the state asks, the memory answers, the decoder gets the last "
        "token, the state and the context, and returns logits and the next state.",
        "`context, weights = self.attention(state.unsqueeze(0), memory, memory)`; `logits, state = "
        "self.decoder(token, state, context.squeeze(0))`; `token = logits.argmax(-1)`; keep token and weights; stop at eos.",
    ),
)  # fmt: skip
