"""The formulas of a fused kernel are those of attention, and each baseline rounds where it says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from autograder.case import Draw
from autograder.oracle.flash import BASELINES, flash_attention, flash_gradients
from autograder.oracle.quantity import TF32_ROUNDOFF, elsewhere, rounder, tf32

GRADIENTS = ("d_query", "d_key", "d_value")


def drawn(seed: int = 0) -> tuple[Tensor, ...]:
    draw = Draw(seed)
    sizes = ((2, 6, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4), (2, 6, 5, 4))
    return tuple(draw.normal(*size, dtype=torch.float64) for size in sizes)


@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_the_formulas_are_those_of_torch_in_float64(is_causal: bool, masked: bool) -> None:
    query, key, value, upstream = drawn()
    mask = Draw(3).mask(5, 7) if masked else None
    leaves = [x.clone().requires_grad_() for x in (query, key, value)]
    allowed = torch.ones(5, 7, dtype=torch.bool).tril() if is_causal else torch.ones(5, 7, dtype=torch.bool)
    allowed[:, 0] = True
    if mask is not None:
        mask[:, 0] = True  # no dead rows here
        allowed = allowed & mask
    output = torch.nn.functional.scaled_dot_product_attention(*leaves, attn_mask=allowed, enable_gqa=True)
    wanted = torch.autograd.grad(output, leaves, upstream)
    found = flash_attention(query, key, value, is_causal, mask)
    assert torch.allclose(found["output"].value, output, atol=1e-12)
    scores = query @ key.repeat_interleave(2, 1).mT / 8**0.5
    sums = scores.masked_fill(~allowed, -torch.inf).exp().sum(-1).log()
    assert torch.allclose(found["log_sum_exp"].value, sums, atol=1e-12)
    gradients = flash_gradients(query, key, value, upstream, is_causal, mask)
    for name, gradient in zip(GRADIENTS, wanted, strict=True):
        assert torch.allclose(gradients[name].value, gradient, atol=1e-12), name
        assert bool((gradients[name].magnitude >= gradients[name].value.abs() - 1e-12).all()), name


def test_a_dead_row_is_zero_and_its_log_sum_exp_minus_infinity() -> None:
    query, key, value, upstream = drawn()
    mask = torch.ones(5, 7, dtype=torch.bool)
    mask[2] = False
    found = flash_attention(query, key, value, attn_mask=mask)
    assert not found["output"].value[:, :, 2].any()
    assert not found["output"].magnitude[:, :, 2].any()
    assert bool((found["log_sum_exp"].value[:, :, 2] == -torch.inf).all())
    gradients = flash_gradients(query, key, value, upstream, attn_mask=mask)
    assert not gradients["d_query"].value[:, :, 2].any()
    assert all(bool(gradients[name].value.isfinite().all()) for name in GRADIENTS)


def errors(baseline: str) -> dict[str, float]:
    """How far each quantity of a baseline is from the formula, at most."""
    query, key, value, upstream = (x.half().double() for x in drawn())
    round = tf32 if baseline == "tf32" else rounder(torch.float16)
    exact = flash_attention(query, key, value) | flash_gradients(query, key, value, upstream)
    rounded = flash_attention(query, key, value, round=round, baseline=baseline) | flash_gradients(
        query, key, value, upstream, round=round, baseline=baseline
    )
    return {name: float((rounded[name].value - exact[name].value).abs().max()) for name in exact}


def test_fused_rounds_weights_and_results_but_no_score() -> None:
    found = errors("fused")
    assert found["log_sum_exp"] == 0.0
    assert all(1e-5 < found[name] < 1e-2 for name in ("output", *GRADIENTS))


def test_eager_rounds_scores_too() -> None:
    assert errors("eager")["log_sum_exp"] > 1e-4


def test_fused_rounds_weights_and_the_gradient_of_scores_before_their_products() -> None:
    query, _, _, upstream = (x.half().double() for x in drawn())
    key, value = (x.half().double().repeat_interleave(2, 1) for x in drawn()[1:3])
    round = rounder(torch.float16)
    weights = torch.softmax(query @ key.mT / 8**0.5, -1)
    output = flash_attention(query, key, value, round=round)["output"].value
    d_scores = weights * (upstream @ value.mT - (upstream * output).sum(-1, keepdim=True))
    found = flash_gradients(query, key, value, upstream, round=round)
    wanted = {
        "d_query": round(d_scores) @ key / 8**0.5,
        "d_key": round(d_scores).mT @ query / 8**0.5,
        "d_value": round(weights).mT @ upstream,
    }
    for name, exact in wanted.items():
        # But for where the last bit of float64 decides.
        assert float((found[name].value != round(exact)).double().mean()) < 0.01, name


def test_eager_rounds_each_heads_share_of_a_gradient() -> None:
    query, key, value, upstream = (x.half().double() for x in drawn())
    round = rounder(torch.float16)
    apart = (x.repeat_interleave(2, 1) for x in (key, value))
    shares = flash_gradients(query, *apart, upstream, round=round, baseline="eager")
    summed = flash_gradients(query, key, value, upstream, round=round, baseline="eager")
    for name in ("d_key", "d_value"):
        assert torch.equal(round(shares[name].value.unflatten(1, (3, 2)).sum(2)), summed[name].value)


def test_tf32_rounds_operands_only() -> None:
    # Numbers of float16 are numbers of tf32, too: the scores are exact, the weights are not.
    found = errors("tf32")
    assert found["log_sum_exp"] == 0.0
    assert 0.0 < found["output"] < errors("fused")["output"] * 2


def test_an_unknown_baseline_is_an_error() -> None:
    assert set(BASELINES) == {"fused", "eager", "tf32"}
    with pytest.raises(KeyError):
        flash_attention(*drawn()[:3], baseline="fast")


def test_tf32_keeps_ten_bits() -> None:
    values = torch.cat(
        [torch.randn(1000, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, 3e38])]
    )
    # To nearest: half of the last kept bit added, then 13 bits cut off. (Ties, which this rounds up, do not occur.)
    cut = ((values.view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    assert torch.equal(tf32(values), cut)
    assert tf32(values).dtype == torch.float32
    assert torch.equal(rounder("tf32")(values.double()), cut.double())
    assert not torch.equal(rounder("tf32", 5)(values.double()), cut.double())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, "tf32"])
def test_rounding_elsewhere_is_as_large_and_different(dtype: torch.dtype | str) -> None:
    values = drawn()[0]
    unit = TF32_ROUNDOFF if isinstance(dtype, str) else torch.finfo(dtype).eps / 2
    nearest, other = rounder(dtype)(values), elsewhere(dtype, 1)(values)
    assert float(((other - values) / values).abs().max()) <= unit * 1.001
    assert 0.8 < float((other - values).norm() / (nearest - values).norm()) < 1.2
    assert not torch.equal(nearest, other)
    assert torch.equal(other, elsewhere(dtype, 1)(values))
