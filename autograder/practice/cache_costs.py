"""What a cache saves: seconds and counted operations of generating n tokens. `python -m autograder.practice.cache_costs`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from autograder.observation import observe
from autograder.practice.models import LanguageModel, RememberingAttention

__all__ = ["costs"]

PROMPT = 8


def costs(
    new_tokens: int, cached: bool, attention: Callable[..., nn.Module] = RememberingAttention
) -> tuple[float, int]:
    """Seconds (best of three), and operations of the matrix products, of `new_tokens` tokens after a prompt of 8."""
    torch.manual_seed(0)
    model = LanguageModel(64, max_length=PROMPT + new_tokens, attention=attention).eval()

    def run(_: object) -> None:
        text = torch.arange(PROMPT)
        for _step in range(new_tokens):
            start = len(text) - 1 if cached and len(text) > PROMPT else 0
            token = model(text[start:], start)[-1].argmax()
            text = torch.cat([text, token.reshape(1)])

    with torch.no_grad():
        return min(_seconds(run) for _ in range(3)), observe(run, {}).flops


def _seconds(run: Callable[[None], None]) -> float:
    begun = time.perf_counter()
    run(None)
    return time.perf_counter() - begun


def main() -> None:
    """Print the table for 64, 256 and 1024 new tokens."""
    sys.stdout.write("new tokens   seconds with, without, ratio      operations with, without, ratio\n")
    for new_tokens in (64, 256, 1024):
        (with_, few), (without, many) = costs(new_tokens, True), costs(new_tokens, False)
        sys.stdout.write(
            f"{new_tokens:10} {with_:10.2f} {without:10.2f} {without / with_:8.1f} {few:18,} {many:18,} {many / few:8.1f}\n"
        )


if __name__ == "__main__":
    main()
