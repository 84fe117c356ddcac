"""The formulas of linear, low-rank, recurrent, fused, adaptive-span and latent attention equal PyTorch's, or plain loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from autograder.case import Draw
from autograder.oracle import compressed, linear, reach
from autograder.oracle.quantity import rounder


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)  # both float64: rounding only


@pytest.fixture
def draw() -> Draw:
    return Draw(11)


def normal(draw: Draw, *shape: int) -> torch.Tensor:
    return draw.normal(*shape, dtype=torch.float64)


def test_features_are_torchs_elu_plus_one(draw: Draw) -> None:
    x = normal(draw, 100) * 3
    close(linear.features(x).value, F.elu(x) + 1)


def test_linear_attention_is_the_average_by_products_of_features(draw: Draw) -> None:
    query, key, value = normal(draw, 5, 4), normal(draw, 7, 4), normal(draw, 7, 3)
    found = linear.linear_attention(query, key, value)["output"].value
    for i in range(5):
        weights = [float((F.elu(query[i]) + 1) @ (F.elu(key[j]) + 1)) for j in range(7)]
        close(found[i], sum(w * v for w, v in zip(weights, value, strict=True)) / sum(weights))


def test_the_last_causal_position_is_that_of_the_whole_piece(draw: Draw) -> None:
    query, key, value = normal(draw, 2, 6, 4), normal(draw, 2, 6, 4), normal(draw, 2, 6, 3)
    causal = linear.causal_linear_attention(query, key, value)["output"].value
    for length in range(1, 7):
        prefix = linear.linear_attention(query[:, :length], key[:, :length], value[:, :length])
        close(causal[:, length - 1], prefix["output"].value[:, -1])


@pytest.mark.parametrize("cut", [1, 3, 5])
def test_a_state_stands_for_the_positions_before(draw: Draw, cut: int) -> None:
    query, key, value = normal(draw, 2, 6, 4), normal(draw, 2, 6, 4), normal(draw, 2, 6, 3)
    whole = linear.causal_linear_attention(query, key, value)
    first = linear.causal_linear_attention(query[:, :cut], key[:, :cut], value[:, :cut])
    state = {name: first[name].value for name in ("kv", "z")}
    second = linear.causal_linear_attention(query[:, cut:], key[:, cut:], value[:, cut:], **state)
    close(second["output"].value, whole["output"].value[:, cut:])
    for name in ("kv", "z"):
        close(second[name].value, whole[name].value)


def test_the_rounded_recurrence_rounds_and_nothing_else(draw: Draw) -> None:
    inputs = [normal(draw, 6, 4), normal(draw, 6, 4), normal(draw, 6, 3)]
    exact = linear.causal_linear_attention(*inputs)
    rounded = linear.causal_linear_attention(*inputs, round=rounder(torch.float32))
    for name in exact:
        assert 0 < float((rounded[name].value - exact[name].value).abs().max()) < 1e-4


def test_low_rank_attention_is_torchs_over_the_mixtures(draw: Draw) -> None:
    query, key, value = normal(draw, 2, 5, 4), normal(draw, 2, 7, 4), normal(draw, 2, 7, 3)
    E, mixture = normal(draw, 3, 7), normal(draw, 3, 7)
    found = compressed.low_rank_attention(query, key, value, E, mixture)["output"].value
    close(found, F.scaled_dot_product_attention(query, E @ key, mixture @ value))


def test_a_long_memory_gives_what_the_whole_text_gives(draw: Draw) -> None:
    text, weights = normal(draw, 2, 12, 5), [normal(draw, 5, 4) for _ in range(3)]
    query, key, value = (text @ W for W in weights)
    whole = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    memory, rows = None, []
    for segment in text.split(5, 1):
        found = reach.recurrent_attention(segment, memory, *weights, 12)
        memory = found["new_memory"].value
        rows.append(found["output"].value)
    close(torch.cat(rows, 1), whole)
    close(memory, text)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_fusion_of_one_kind_is_attention_by_this_kind(draw: Draw, kind: int) -> None:
    query, key, value, W = normal(draw, 5, 4), normal(draw, 7, 4), normal(draw, 7, 3), normal(draw, 4, 4)
    mix = torch.full((3,), -60.0, dtype=torch.float64)
    mix[kind] = 60.0
    units = F.normalize(query, dim=-1), F.normalize(key, dim=-1)
    pairs = ((query / 2, key), units, (query @ W, key))
    found = reach.attention_fusion(query, key, value, W, mix)["output"].value
    close(found, F.scaled_dot_product_attention(*pairs[kind], value, scale=1.0))


def test_a_wide_span_is_causal_attention_and_a_span_of_nothing_the_own_value(draw: Draw) -> None:
    query, key, value = normal(draw, 2, 6, 4), normal(draw, 2, 6, 4), normal(draw, 2, 6, 3)
    span = torch.tensor([50.0, 0.0], dtype=torch.float64)
    found = reach.adaptive_span_attention(query, key, value, span, 0.5)["output"].value
    close(found[0], F.scaled_dot_product_attention(query, key, value, is_causal=True)[0])
    close(found[1], value[1])


def test_the_span_mask_is_one_up_to_the_span_and_falls_in_a_straight_line() -> None:
    mask = reach.span_mask(torch.tensor([2.0], dtype=torch.float64), 4.0, 9).value[0, 8]
    close(mask.flip(0), torch.tensor([1, 1, 1, 0.75, 0.5, 0.25, 0, 0, 0], dtype=torch.float64))


def test_latent_attention_is_torchs_with_keys_made_of_the_latents(draw: Draw) -> None:
    sizes = {"q_proj": (6, 6), "kv_down": (4, 6), "k_up": (6, 4), "v_up": (6, 4), "out_proj": (6, 6)}
    weights = {name: normal(draw, *size) for name, size in sizes.items()}
    x = normal(draw, 2, 5, 6)
    latent = x @ weights["kv_down"].mT
    parts = (x @ weights["q_proj"].mT, latent @ weights["k_up"].mT, latent @ weights["v_up"].mT)
    heads = [torch.stack(part.split(2, -1), 1) for part in parts]
    mixed = F.scaled_dot_product_attention(*heads, is_causal=True)
    expected = torch.cat(mixed.unbind(1), -1) @ weights["out_proj"].mT
    found = compressed.latent_attention(x, 3, **weights)
    close(found["output"].value, expected)
    close(found["cache"].value, latent)
    second = compressed.latent_attention(x[:, 3:], 3, latent[:, :3], **weights)
    close(second["output"].value, expected[:, 3:])
    close(second["cache"].value, latent)
