"""Reference solutions and oracle of `multi_head_attention` against torch's own modules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autograder.oracle import multi_head as oracle
from solutions.multi_head_attention import MultiHeadAttention, TransformerBlock

LAYERS = ("q_proj", "k_proj", "v_proj")
D_MODEL, HEADS, D_FF, RATE = 12, 3, 20, 0.3
EXACT = {"rtol": 0.0, "atol": 1e-12}


def ours_and_theirs(
    bias: bool, rate: float, training: bool
) -> tuple[MultiHeadAttention, nn.MultiheadAttention]:
    """Two modules in float64 with the same weights."""
    ours = MultiHeadAttention(D_MODEL, HEADS, bias, rate).double()
    theirs = nn.MultiheadAttention(D_MODEL, HEADS, rate, bias, batch_first=True).double()
    copy_attention(ours, theirs)
    return ours.train(training), theirs.train(training)


def copy_attention(ours: MultiHeadAttention, theirs: nn.MultiheadAttention) -> None:
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()  # torch starts biases at zero
        theirs.in_proj_weight.copy_(torch.cat([getattr(ours, name).weight for name in LAYERS]))
        theirs.out_proj.weight.copy_(ours.out_proj.weight)
        if theirs.in_proj_bias is not None:
            theirs.in_proj_bias.copy_(torch.cat([getattr(ours, name).bias for name in LAYERS]))
            theirs.out_proj.bias.copy_(ours.out_proj.bias)


def sequences(kind: str) -> list[Tensor]:
    """query, key and value as they are given: one for self-attention, two or three for cross-attention."""
    lengths = {"self": (5,), "cross": (5, 7), "all three": (5, 7, 7)}[kind]
    return [torch.randn(2, S, D_MODEL, dtype=torch.float64, requires_grad=True) for S in lengths]


def filled(given: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    return given[0], given[min(1, len(given) - 1)], given[-1]


def some_mask(S_q: int, S_k: int) -> Tensor:
    mask = torch.rand(2, HEADS, S_q, S_k) < 0.6
    mask[..., 0] = True  # torch makes nan of a row that allows no key
    return mask


@pytest.mark.parametrize("rate", [0.0, RATE])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "all three"])
@pytest.mark.parametrize("bias", [True, False])
def test_output_weights_and_every_gradient_equal_those_of_torch(
    bias: bool, kind: str, training: bool, rate: float
) -> None:
    """In train mode the same seed drops the same weights in both."""
    torch.manual_seed(7)
    ours, theirs = ours_and_theirs(bias, rate, training)
    given = sequences(kind)
    query, key, value = filled(given)
    mask = some_mask(query.shape[-2], key.shape[-2])
    torch.manual_seed(8)
    output, weights = ours(*given, attn_mask=mask, need_weights=True)
    torch.manual_seed(8)
    their_output, their_weights = theirs(
        query, key, value, attn_mask=~mask.flatten(0, 1), average_attn_weights=False
    )
    torch.testing.assert_close(output, their_output, **EXACT)
    torch.testing.assert_close(weights, their_weights, **EXACT)
    assert (rate > 0 and training) == bool((weights == 0).logical_and(mask).any())
    factors = torch.randn_like(output), torch.randn_like(weights)
    total = (output * factors[0]).sum() + (weights * factors[1]).sum()
    their_total = (their_output * factors[0]).sum() + (their_weights * factors[1]).sum()
    found = torch.autograd.grad(total, [*given, *ours.parameters()])
    wanted = torch.autograd.grad(their_total, [*given, *theirs.parameters()])
    for mine, his in zip(found[: len(given)], wanted, strict=False):
        torch.testing.assert_close(mine, his, **EXACT)
    mine = dict(zip([n for n, _ in ours.named_parameters()], found[len(given) :], strict=True))
    his = dict(zip([n for n, _ in theirs.named_parameters()], wanted[len(given) :], strict=True))
    for kind_of in ("weight", "bias")[: 1 + bias]:
        joined = torch.cat([mine[f"{name}.{kind_of}"] for name in LAYERS])
        torch.testing.assert_close(joined, his[f"in_proj_{kind_of}"], **EXACT)
        torch.testing.assert_close(mine[f"out_proj.{kind_of}"], his[f"out_proj.{kind_of}"], **EXACT)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["self", "cross", "all three"])
def test_the_oracle_equals_torch(bias: bool, kind: str) -> None:
    torch.manual_seed(9)
    ours, theirs = ours_and_theirs(bias, 0.0, False)
    given = [x.detach() for x in sequences(kind)]
    query, key, value = filled(given)
    mask = some_mask(query.shape[-2], key.shape[-2])
    weights = {
        n.replace(".weight", "").replace(".bias", "_bias"): p.detach() for n, p in ours.named_parameters()
    }
    found = oracle.module(*given, attn_mask=mask, need_weights=True, num_heads=HEADS, **weights)
    wanted = theirs(query, key, value, attn_mask=~mask.flatten(0, 1), average_attn_weights=False)
    for name, value in zip(("output", "weights"), wanted, strict=True):
        torch.testing.assert_close(found[name].value, value.detach(), **EXACT)


def test_with_one_head_and_unit_projections_it_is_plain_attention() -> None:
    query, key = torch.randn(4, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64)
    found = oracle.multi_head(query, key, key, 1)
    wanted = nn.functional.scaled_dot_product_attention(query[None], key[None], key[None])[0]
    torch.testing.assert_close(found["output"].value, wanted, **EXACT)


def test_is_causal_is_the_mask_that_torch_makes() -> None:
    torch.manual_seed(10)
    ours, theirs = ours_and_theirs(True, 0.0, True)
    x = torch.randn(2, 5, D_MODEL, dtype=torch.float64)
    hidden = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    wanted, _ = theirs(x, x, x, attn_mask=hidden, is_causal=True, need_weights=False)
    torch.testing.assert_close(ours(x, is_causal=True)[0], wanted, **EXACT)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm_first", [True, False])
def test_the_block_and_its_oracle_equal_the_layer_of_torch(
    norm_first: bool, training: bool, masked: bool
) -> None:
    torch.manual_seed(11)
    ours = TransformerBlock(D_MODEL, HEADS, D_FF, norm_first).double().train(training)
    theirs = nn.TransformerEncoderLayer(
        D_MODEL, HEADS, D_FF, dropout=0.0, batch_first=True, norm_first=norm_first
    ).double()
    theirs.train(training)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.normal_()
        for name in ("linear1", "linear2", "norm1", "norm2"):
            getattr(theirs, name).load_state_dict(getattr(ours, name).state_dict())
    copy_attention(ours.attention, theirs.self_attn)
    x = torch.randn(2, 5, D_MODEL, dtype=torch.float64, requires_grad=True)
    mask = some_mask(5, 5) if masked else None
    output = ours(x, mask)
    wanted = theirs(x, src_mask=None if mask is None else ~mask.flatten(0, 1))
    torch.testing.assert_close(output, wanted, rtol=0.0, atol=1e-10)
    factors = torch.randn_like(output)
    found = torch.autograd.grad((output * factors).sum(), [x, *ours.parameters()])
    names = [name for name, _ in ours.named_parameters()]
    mine = dict(zip(names, found[1:], strict=True))
    their_names = [name for name, _ in theirs.named_parameters()]
    gradients = torch.autograd.grad((wanted * factors).sum(), [x, *theirs.parameters()])
    his = dict(zip(their_names, gradients[1:], strict=True))
    torch.testing.assert_close(found[0], gradients[0], rtol=1e-10, atol=1e-10)
    for name in names:
        if name.startswith("attention.") and "out_proj" not in name:
            continue
        torch.testing.assert_close(
            mine[name], his[name.replace("attention.", "self_attn.")], rtol=1e-10, atol=1e-10
        )
    for kind in ("weight", "bias"):
        joined = torch.cat([mine[f"attention.{name}.{kind}"] for name in LAYERS])
        torch.testing.assert_close(joined, his[f"self_attn.in_proj_{kind}"], rtol=1e-10, atol=1e-10)
    weights = {
        n.replace(".weight", "").replace(".bias", "_bias"): p.detach() for n, p in ours.named_parameters()
    }
    exact = oracle.block(x.detach(), mask, num_heads=HEADS, norm_first=norm_first, **weights)
    torch.testing.assert_close(exact["output"].value, wanted.detach(), rtol=1e-10, atol=1e-10)
