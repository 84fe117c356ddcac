"""Small models for the lessons, written to be read: a decoder-only Transformer and the three parts of a translator."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "Decoder",
    "Encoder",
    "LanguageModel",
    "RememberingAttention",
    "Translator",
    "continue_text",
    "look",
    "teacher_forced",
]


class RememberingAttention(nn.Module):
    """Causal self-attention with a cache: x (..., S, d_model) at positions start .. -> output (..., S, d_model).

    It stands in for the student's own until that is solved.
    """

    def __init__(self, d_model: int, num_heads: int, max_length: int):
        super().__init__()
        self.num_heads = num_heads
        self.project, self.out = nn.Linear(d_model, 3 * d_model), nn.Linear(d_model, d_model)
        self.past: list[Tensor] = []

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """The outputs for the new positions; start=0 forgets the old ones."""
        query, *new = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(-3, -2)  # (..., H, S, D)
            for part in self.project(x).chunk(3, -1)
        )
        if start:
            new = [torch.cat([old, more], -2) for old, more in zip(self.past, new, strict=True)]
        self.past = [part.detach() for part in new]
        scores = query @ new[0].mT / query.shape[-1] ** 0.5  # (..., H, S_q, S_k)
        S_q, S_k = scores.shape[-2:]
        hidden = torch.arange(S_k) > torch.arange(S_k - S_q, S_k).unsqueeze(-1)
        output = torch.softmax(scores.masked_fill(hidden, -torch.inf), -1) @ new[1]
        result: Tensor = self.out(output.transpose(-3, -2).flatten(-2))
        return result


class LanguageModel(nn.Module):
    """A decoder-only Transformer: tokens (..., S) at positions start .. start + S - 1 -> logits (..., S, V).

    attention: a class whose objects are made of (d_model, num_heads, max_length) and called with (x, start).
    """

    def __init__(
        self,
        vocabulary: int,
        d_model: int = 64,
        num_heads: int = 4,
        layers: int = 2,
        max_length: int = 32,
        attention: Callable[..., nn.Module] = RememberingAttention,
    ):
        super().__init__()
        self.words = nn.Embedding(vocabulary, d_model)
        self.places = nn.Embedding(max_length, d_model)
        self.attentions = nn.ModuleList(attention(d_model, num_heads, max_length) for _ in range(layers))
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(d_model),
                nn.Linear(d_model, 4 * d_model),
                nn.GELU(),
                nn.Linear(4 * d_model, d_model),
            )
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(layers + 1))
        self.out = nn.Linear(d_model, vocabulary)

    def forward(self, tokens: Tensor, start: int = 0) -> Tensor:
        """Logits for the token after each position."""
        place = torch.arange(start, start + tokens.shape[-1])
        x = self.words(tokens) + self.places(place)  # (..., S, d_model)
        for attention, network, norm in zip(self.attentions, self.networks, self.norms, strict=False):
            x = x + attention(norm(x), start)
            x = x + network(x)
        logits: Tensor = self.out(self.norms[-1](x))
        return logits


def look(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Dot-product attention: query (..., S_q, D), key and value (..., S_k, D) -> output, weights."""
    weights = torch.softmax(query @ key.mT / key.shape[-1] ** 0.5, -1)
    return weights @ value, weights


class Encoder(nn.Module):
    """A recurrent reader in both directions: source (..., S) -> memory (..., S, D), state (..., D)."""

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.words, self.read = (
            nn.Embedding(vocabulary, width),
            nn.GRU(width, width // 2, batch_first=True, bidirectional=True),
        )
        self.begin = nn.Linear(width, width)

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder may read, and the state it starts from."""
        memory, _ = self.read(self.words(source))
        return memory, torch.tanh(self.begin(memory.mean(-2)))


class Decoder(nn.Module):
    """A recurrent writer: token (...), state (..., D), context (..., D) -> logits (..., V), state (..., D)."""

    def __init__(self, vocabulary: int, width: int):
        super().__init__()
        self.words, self.step = nn.Embedding(vocabulary, width), nn.GRUCell(2 * width, width)
        self.out = nn.Linear(2 * width, vocabulary)

    def forward(self, token: Tensor, state: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Scores of the next token, and the next state."""
        new = self.step(torch.cat([self.words(token), context], -1), state)
        return self.out(torch.cat([new, context], -1)), new


def teacher_forced(encoder: Encoder, decoder: Decoder, source: Tensor, target: Tensor, bos: int) -> Tensor:
    """Loss of the right translations, each step being given the right token before it: source (B, S), target (B, T)."""
    memory, state = encoder(source)
    before = torch.full_like(target[:, 0], bos)
    losses = []
    for token in target.unbind(1):
        context, _ = look(state.unsqueeze(1), memory, memory)  # (B, 1, D)
        logits, state = decoder(before, state, context.squeeze(1))
        losses.append(F.cross_entropy(logits, token))
        before = token
    return torch.stack(losses).mean()


# Stand-ins for what the lesson asks for, so that its demonstrations run before it is solved.


def continue_text(
    model: Callable[..., Tensor],
    prompt: Tensor,
    max_new_tokens: int,
    eos: int | None = None,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """A text continued token by token; it knows temperature, but neither top_k nor top_p."""
    text, start = prompt, 0
    for _ in range(max_new_tokens):
        logits, start = model(text[start:], start)[-1], len(text)
        if temperature:
            uniform = torch.rand(logits.shape, generator=generator).clamp(1e-9, 1 - 1e-7)
            logits = logits / temperature - torch.log(-torch.log(uniform))
        text = torch.cat([text, logits.argmax(-1, keepdim=True)])
        if eos is not None and int(text[-1]) == eos:
            break
    return text


class Translator:
    """Greedy translation, with the weights of each step."""

    def __init__(self, encoder: Encoder, decoder: Decoder, attention: Callable[..., tuple[Tensor, Tensor]]):
        self.encoder, self.decoder, self.attention = encoder, decoder, attention

    def generate(self, source: Tensor, bos: int, eos: int, max_new_tokens: int) -> tuple[Tensor, Tensor]:
        """source (S,) -> tokens (T,), weights (T, S)."""
        memory, state = self.encoder(source)
        tokens, rows = [torch.tensor(bos)], []
        while len(tokens) <= max_new_tokens and (len(tokens) == 1 or int(tokens[-1]) != eos):
            context, weights = self.attention(state[None], memory, memory)
            logits, state = self.decoder(tokens[-1], state, context[0])
            tokens.append(logits.argmax())
            rows.append(weights[0])
        return torch.stack(tokens[1:]), torch.stack(rows)
