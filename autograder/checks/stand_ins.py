"""Models that a check hands to a student's code: they answer from a seed, and remember what they were asked."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from autograder.observation import apart

__all__ = ["LONGEST", "PrefixModel", "Reader"]

LONGEST = 1024
"""Positions of the longest text that a model takes, as every model has such a number."""

MOST = 4096
"""Tokens that a model takes in one call, in all its texts together."""


def _mixed(seed: int, numbers: list[int]) -> int:
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**61 - 1)
    return seed


REMEMBERED = 4096
"""Answers that a model keeps: texts of a search share their beginnings."""


def _kind(value: Any) -> str:
    """What was handed over, in a few words."""
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"


def _as_tokens(tokens: Any, vocabulary: int) -> Tensor:
    """What a real model would take. Raises: ValueError, in the student's code, for anything else."""
    if not isinstance(tokens, Tensor) or tokens.dtype != torch.int64 or tokens.dim() not in (1, 2):
        raise ValueError(f"a model takes tokens of shape (S,) or (N, S), int64; it got {_kind(tokens)}")
    if math.prod(max(1, size) for size in tokens.shape) > MOST:
        raise ValueError(f"a model takes {MOST:,} tokens at most in one call; it got {tuple(tokens.shape)}")
    wrong = tokens[(tokens < 0) | (tokens >= vocabulary)]
    if wrong.numel():
        raise ValueError(f"a model of {vocabulary} tokens got token {int(wrong[0])}")
    return tokens


class PrefixModel:
    """A language model whose logits depend on every token of the text, in their order, and on nothing else.

    Calling it, `model(tokens, start=0)`, answers as the models of the lesson do, for tokens (S,) or, from start 0,
    (N, S). Tokens at positions that it does not know yet count as 0. `asked` lists (tokens, start) of all calls.
    always: the logits of every text, for a model that heeds none. lift: what is added to all logits.
    """

    def __init__(
        self, seed: int, vocabulary: int, always: tuple[float, ...] | None = None, lift: float = 0.0
    ):
        self.seed, self.vocabulary, self.always, self.lift = seed, vocabulary, always, lift
        self.asked: list[tuple[Tensor, int]] = []
        self.known: list[int] = []
        self.answers: dict[int, Tensor] = {}

    def __repr__(self) -> str:
        return f"<a model of {self.vocabulary} tokens>"

    def another(self, seed: int) -> PrefixModel:
        """A model of as many tokens that nobody has asked anything yet."""
        return PrefixModel(seed, self.vocabulary, self.always, self.lift)

    def following(self, text: list[int]) -> Tensor:
        """The float64 logits (V,) of the next token: multiples of 2^-10, so that float32 holds them exactly."""
        return self._answers(_mixed(self.seed, text))

    def _answers(self, mixed: int) -> Tensor:
        mixed = mixed if self.always is None else 0
        if self.always is not None and not self.answers:
            self.answers[mixed] = torch.tensor(self.always, dtype=torch.float64)
        if mixed not in self.answers:
            if len(self.answers) >= REMEMBERED:
                self.answers.clear()
            generator = torch.Generator().manual_seed(mixed)
            logits = torch.randn(self.vocabulary, generator=generator, dtype=torch.float64)
            self.answers[mixed] = (logits * 1536).round() / 1024 + self.lift
        return self.answers[mixed]

    def __call__(self, tokens: Any, start: Any = 0) -> Any:
        return apart(self._answer)(tokens, start)

    def _answer(self, tokens: Any, start: Any = 0) -> Tensor:
        asked, place = _as_tokens(tokens, self.vocabulary), max(0, int(start))
        if place + asked.shape[-1] > LONGEST:
            raise ValueError(
                f"a model for texts of {LONGEST:,} positions got {asked.shape[-1]:,} tokens from position {place} on"
            )
        self.asked.append((asked.clone(), place))
        if asked.dim() == 2:
            return torch.stack([self._rows(row.tolist(), []) for row in asked])
        before = (self.known + [0] * place)[:place]
        self.known = before + asked.reshape(-1).tolist()
        return self._rows(asked.reshape(-1).tolist(), before)

    def _rows(self, tokens: list[int], before: list[int]) -> Tensor:
        rows, mixed = list[Tensor](), _mixed(self.seed, before)
        for token in tokens:
            mixed = _mixed(mixed, [token])
            rows.append(self._answers(mixed))
        return torch.stack(rows).float() if rows else torch.zeros(0, self.vocabulary, dtype=torch.float32)

    @property
    def positions(self) -> int:
        """How many positions it has been asked to compute."""
        return sum(tokens.numel() for tokens, _ in self.asked)

    def forget(self) -> None:
        """Start a new record."""
        self.asked, self.known = [], []


class Reader:
    """An encoder, a decoder and an attention over tokens, seeded; the three parts of a translator.

    Results are float32. `asked` lists the names of the parts in the order in which they were called.
    """

    def __init__(self, seed: int, vocabulary: int, width: int):
        self.seed, self.vocabulary, self.width = seed, vocabulary, width
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.words, self.places = draw(vocabulary, width), draw(64, width)
        self.turn, self.out = draw(3 * width, width) / width**0.5, draw(3 * width, vocabulary)
        self.asked: list[str] = []

    def __repr__(self) -> str:
        return f"<encoder, decoder and attention of width {self.width}, {self.vocabulary} tokens>"

    def another(self, seed: int) -> Reader:
        """A reader of the same sizes that nobody has asked anything yet."""
        return Reader(seed, self.vocabulary, self.width)

    def encoder(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (S,) -> memory (S, D), state (D,)."""
        if not isinstance(source, Tensor) or source.dim() != 1 or len(source) > len(self.places):
            raise ValueError(
                f"the encoder takes tokens of shape (S,), {len(self.places)} at most; it got {_kind(source)}"
            )
        memory = self.words[source.long()] + self.places[: len(source)]
        return memory.float(), torch.tanh(memory.sum(0)).float()

    def attention(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """query (S_q, D), key and value (S, D) -> output (S_q, D), weights (S_q, S)."""
        for name, given in (("query", query), ("key", key), ("value", value)):
            if not isinstance(given, Tensor) or given.dim() != 2 or len(given) > len(self.places):
                shape = "(1, D)" if name == "query" else "(S, D)"
                raise ValueError(f"attention takes a {name} of shape {shape}; it got {_kind(given)}")
            if given.shape[-1] != self.width:
                raise ValueError(
                    f"attention has width {self.width}; the {name} it got has width {given.shape[-1]}"
                )
        weights = torch.softmax(query.double() @ key.double().mT, -1)
        return (weights @ value.double()).float(), weights.float()

    def decoder(self, token: Any, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """token (), state (D,), context (D,) -> logits (V,), state (D,)."""
        shapes = [tuple(part.shape) if isinstance(part, Tensor) else None for part in (token, state, context)]
        if shapes != [(), (self.width,), (self.width,)]:
            got = ", ".join(map(_kind, (token, state, context)))
            raise ValueError(
                f"the decoder takes a token (), a state (D,) and a context (D,), tensors; it got {got}"
            )
        if not 0 <= int(token) < self.vocabulary:
            raise ValueError(f"a decoder of {self.vocabulary} tokens got token {int(token)}")
        given = torch.cat([self.words[int(token)], state.double(), context.double()])
        return (given @ self.out).float(), torch.tanh(given @ self.turn).float()

    def part(self, name: str) -> Part:
        """One of "encoder", "decoder", "attention", on the record, to be handed to a student's code."""
        return Part(self, name)


class Part:
    """A part of a Reader whose calls are on the record."""

    def __init__(self, reader: Reader, name: str):
        self.reader, self.name = reader, name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.reader.asked.append(self.name)
        return apart(getattr(self.reader, self.name))(*args, **kwargs)
