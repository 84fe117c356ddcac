"""Models that a check hands to a student's code: they answer from a seed, and remember what they were asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autograder.observation import apart

__all__ = ["PrefixModel", "Reader"]


def _mixed(seed: int, numbers: list[int]) -> int:
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**61 - 1)
    return seed


class PrefixModel:
    """A language model whose logits depend on every token of the text, in their order, and on nothing else.

    Calling it, `model(tokens, start=0)`, answers as the models of the lesson do, for tokens (S,) or, from start 0,
    (N, S). Tokens at positions that it does not know yet count as 0. `asked` lists (tokens, start) of all calls.
    bias: added to the logits of a token, by token.
    """

    def __init__(self, seed: int, vocabulary: int, bias: dict[int, float] | None = None, spread: float = 1.5):
        self.seed, self.vocabulary, self.bias, self.spread = seed, vocabulary, bias or {}, spread
        self.asked: list[tuple[Tensor, int]] = []
        self.known: list[int] = []

    def __repr__(self) -> str:
        return f"<a model of {self.vocabulary} tokens>"

    def following(self, text: list[int]) -> Tensor:
        """The float64 logits (V,) of the next token: multiples of 2^-10, so that float32 holds them exactly."""
        generator = torch.Generator().manual_seed(_mixed(self.seed, text))
        logits = torch.randn(self.vocabulary, generator=generator, dtype=torch.float64) * self.spread
        for token, more in self.bias.items():
            logits[token] += more
        return (logits * 1024).round() / 1024

    def __call__(self, tokens: Any, start: Any = 0) -> Any:
        return apart(self._answer)(tokens, start)

    def _answer(self, tokens: Any, start: Any = 0) -> Tensor:
        asked = torch.as_tensor(tokens).long()
        place = max(0, int(start))
        self.asked.append((asked.clone(), place))
        if asked.dim() == 2:
            return torch.stack([self._rows(row.tolist(), []) for row in asked])
        before = (self.known + [0] * place)[:place]
        self.known = before + asked.reshape(-1).tolist()
        return self._rows(asked.reshape(-1).tolist(), before)

    def _rows(self, tokens: list[int], before: list[int]) -> Tensor:
        rows = [self.following(before + tokens[: n + 1]) for n in range(len(tokens))]
        return torch.stack(rows).float() if rows else torch.zeros(0, self.vocabulary)

    @property
    def positions(self) -> int:
        """How many positions it has been asked to compute."""
        return sum(tokens.numel() for tokens, _ in self.asked)

    def forget(self) -> None:
        """Start a new record."""
        self.asked, self.known = [], []


class Reader:
    """An encoder, a decoder and an attention over tokens, seeded; the three parts of a translator.

    The formulas are in float64 and their results are handed over in float32. `asked` lists the names of the parts in
    the order in which they were called.
    """

    def __init__(self, seed: int, vocabulary: int, width: int, bias: dict[int, float] | None = None):
        self.vocabulary, self.width, self.bias = vocabulary, width, bias or {}
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        self.words, self.places = draw(vocabulary, width), draw(64, width)
        self.turn, self.out = draw(3 * width, width) / width**0.5, draw(3 * width, vocabulary)
        self.asked: list[str] = []

    def encode(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """source (S,) -> memory (S, D), state (D,)."""
        memory = self.words[source] + self.places[: len(source)]
        return memory, torch.tanh(memory.sum(0))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """query (S_q, D), key and value (S, D) -> output (S_q, D), weights (S_q, S)."""
        weights = torch.softmax(query @ key.mT, -1)
        return weights @ value, weights

    def decode(self, token: int, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """token, state (D,), context (D,) -> logits (V,), state (D,)."""
        given = torch.cat([self.words[token], state, context])
        logits = given @ self.out
        for one, more in self.bias.items():
            logits[one] += more
        return logits, torch.tanh(given @ self.turn)

    def part(self, name: str) -> Part:
        """One of "encoder", "decoder", "attention", to be handed to a student's code."""
        return Part(self, name)


class Part:
    """A part of a Reader as a function of float32 tensors that is on the record."""

    def __init__(self, reader: Reader, name: str):
        self.reader, self.name = reader, name

    def __repr__(self) -> str:
        return f"<the {self.name}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return apart(self._answer)(*args, **kwargs)

    def _answer(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        self.reader.asked.append(self.name)
        parts: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
            "encoder": lambda source: self.reader.encode(source.long()),
            "attention": lambda query, key, value: self.reader.attend(
                query.double(), key.double(), value.double()
            ),
            "decoder": lambda token, state, context: self.reader.decode(
                int(token), state.double(), context.double()
            ),
        }
        return tuple(result.float() for result in parts[self.name](*args, **kwargs))
