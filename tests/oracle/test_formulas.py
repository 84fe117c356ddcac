"""The oracle's formulas equal PyTorch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from autograder.case import Draw, Layer
from autograder.oracle import attention as formulas
from autograder.oracle import scores, whole
from autograder.oracle.sharing import layer_stack


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)  # both float64: rounding only


@pytest.fixture
def draw() -> Draw:
    return Draw(11)


def normal(draw: Draw, *shape: int) -> torch.Tensor:
    return draw.normal(*shape, dtype=torch.float64)


@pytest.mark.parametrize("dim", [0, 1, -1])
def test_softmax_is_torchs(draw: Draw, dim: int) -> None:
    x = normal(draw, 3, 4, 5) * 5
    close(formulas.softmax(x, dim).value, torch.softmax(x, dim))


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_torchs(draw: Draw, is_causal: bool, masked: bool) -> None:
    q, k, v = normal(draw, 2, 3, 5, 8), normal(draw, 2, 3, 7, 8), normal(draw, 2, 3, 7, 6)
    mask = draw.mask(2, 3, 5, 7) if masked else None
    if masked:
        mask[..., 0] = True  # torch gives nan for rows that allow no key
    together = formulas.allowed_keys((5, 7), mask, is_causal)
    close(
        formulas.attention(q, k, v, mask, is_causal)["output"].value,
        F.scaled_dot_product_attention(q, k, v, attn_mask=together),
    )


def test_a_dead_row_is_zero_with_finite_gradients(draw: Draw) -> None:
    q = normal(draw, 5, 8).requires_grad_()
    mask = draw.mask(5, 7, dead_rows=True)
    dead = ~mask.any(-1)
    result = formulas.attention(q, normal(draw, 7, 8), normal(draw, 7, 6), mask)
    assert int(dead.sum()) == 1
    assert (result["output"].value[dead] == 0).all()
    assert (result["weights"].value[dead] == 0).all()
    (gradient,) = torch.autograd.grad(result["output"].value.sum(), q)
    assert torch.isfinite(gradient).all()


def test_cosine_is_torchs(draw: Draw) -> None:
    q, k = normal(draw, 2, 5, 8), normal(draw, 2, 7, 8)
    close(scores.cosine(q, k).value, F.cosine_similarity(q.unsqueeze(-2), k.unsqueeze(-3), dim=-1))


def test_multiplicative_is_torchs_bilinear(draw: Draw) -> None:
    q, k, W = normal(draw, 5, 4), normal(draw, 5, 6), normal(draw, 4, 6)
    diagonal = scores.multiplicative(q, k, W).value.diagonal()
    close(diagonal, F.bilinear(q, k, W.unsqueeze(0)).squeeze(-1))


def test_self_attention_is_multi_head_attention_with_one_head(draw: Draw) -> None:
    theirs = nn.MultiheadAttention(6, 1, batch_first=True, dtype=torch.float64)
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    x = normal(draw, 2, 5, 6)
    parts = zip(
        ("q_proj", "k_proj", "v_proj"),
        theirs.in_proj_weight.chunk(3),
        theirs.in_proj_bias.chunk(3),
        strict=True,
    )
    weights = {name: w for name, w, _ in parts}
    biases = {f"{n}_bias": b for n, b in zip(weights, theirs.in_proj_bias.chunk(3), strict=True)}
    out = {"out_proj": theirs.out_proj.weight, "out_proj_bias": theirs.out_proj.bias}
    ours = formulas.self_attention(x, **weights, **biases, **out)
    output, attention = theirs(x, x, x)
    close(ours["output"].value, output)
    close(ours["weights"].value, attention)


def test_additive_is_the_formula_written_as_a_loop(draw: Draw) -> None:
    q, k = normal(draw, 3, 4), normal(draw, 5, 6)
    W_q, W_k, v = normal(draw, 7, 4), normal(draw, 7, 6), normal(draw, 7)
    loop = torch.stack([torch.stack([v @ torch.tanh(W_q @ a + W_k @ b) for b in k]) for a in q])
    close(scores.additive(q, k, W_q, W_k, v).value, loop)


@pytest.mark.parametrize(
    "layer",
    [
        Layer("Sequential", Layer("Linear", 4, 6), Layer("Dropout", 0.5), Layer("Linear", 6, 4, bias=False)),
        Layer("Residual", Layer("Sequential", Layer("Linear", 4, 4), Layer("Tanh")), 4),
        Layer("Centred"),
    ],
    ids=repr,
)
def test_a_stack_is_its_layer_called_time_and_again(draw: Draw, layer: Layer) -> None:
    module, x = layer.build().double().eval(), normal(draw, 3, 5, 4)
    close(layer_stack(x, layer, 2, **dict(module.named_parameters()))["output"].value, module(module(x)))


def test_a_whole_number_is_held_exactly_or_is_none_that_int64_holds() -> None:
    assert int(whole(2**62 + 1)) == 2**62 + 1
    assert int(whole(2**63)) == 2**63
    assert int(whole(10**400)) > 2**63
