"""What a mask_mod and a score_mod say to FlexAttention is what the explicit tables say to plain attention."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from solutions.efficient_attention import (
    alibi_bias,
    alibi_score,
    sliding_window_attention,
    sliding_window_mask,
)
from tests.exercises import catalogue

catalogue.load("efficient_attention")
H, S, D = 8, 40, 8


def right(exercise: str) -> list[Any]:
    return [one for one in catalogue.RIGHT if one.exercise == exercise]


def mutants(exercise: str) -> list[Any]:
    return [one for one in catalogue.MUTANTS if one.exercise == exercise]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return tuple(torch.randn(2, H, S, D) for _ in range(3))  # type: ignore[return-value]


def plain(query: Tensor, key: Tensor, value: Tensor, table: Tensor) -> Tensor:
    return torch.softmax(query @ key.mT / D**0.5 + table, -1) @ value


def window_table() -> Tensor:
    ones = torch.ones(S, S, dtype=torch.bool)
    return torch.zeros(S, S).masked_fill(~(ones.tril() & ~ones.tril(-16)), -torch.inf)


def flexed(score_mod: Callable[..., Tensor] | None, mask_mod: Callable[..., Tensor] | None) -> Tensor:
    block_mask = (
        None
        if mask_mod is None
        else create_block_mask(mask_mod, None, None, S, S, device="cpu", BLOCK_SIZE=16)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is not compiled
        return flex_attention(*inputs(), score_mod=score_mod, block_mask=block_mask)


@pytest.mark.parametrize("one", right("sliding_window_mask"), ids=str)
def test_every_right_mask_gives_the_explicit_mask_under_vmap(one: Any) -> None:
    torch.testing.assert_close(flexed(None, one.obj), plain(*inputs(), window_table()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("one", right("alibi_score"), ids=str)
def test_every_right_score_gives_the_explicit_bias_under_vmap(one: Any) -> None:
    expected = plain(*inputs(), alibi_bias(H, S, S))
    torch.testing.assert_close(flexed(one.obj, None), expected, atol=1e-5, rtol=1e-5)


def test_score_and_mask_together_are_the_sum_of_the_tables() -> None:
    expected = plain(*inputs(), alibi_bias(H, S, S) + window_table())
    found = flexed(alibi_score, sliding_window_mask)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_window_is_that_of_sliding_window_attention() -> None:
    expected = sliding_window_attention(*inputs(), 16)
    torch.testing.assert_close(flexed(None, sliding_window_mask), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "one",
    [
        one
        for one in mutants("sliding_window_mask") + mutants("alibi_score")
        if one.named in ("a Python if on tensors", "indexing by a mask")
    ],
    ids=str,
)
def test_what_the_grader_calls_untraceable_fails_under_vmap(one: Any) -> None:
    places: dict[str, tuple[Any, ...]] = {
        "sliding_window_mask": (torch.tensor(0), torch.tensor(1), torch.arange(4), torch.tensor(2)),
        "alibi_score": (torch.zeros(4), torch.tensor(0), torch.arange(4), torch.arange(4), torch.tensor(2)),
    }
    given = places[one.exercise]
    axes = tuple(0 if value.dim() else None for value in given)
    with pytest.raises((RuntimeError, IndexError, TypeError)):
        torch.vmap(one.obj, in_dims=axes)(*given)
