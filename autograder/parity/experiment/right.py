"""Right implementations: torch's own, and the made-up kernel in many ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from autograder.oracle.attention import allowed_keys
from autograder.parity.cases import Inputs
from autograder.parity.comparison import GRADIENTS
from autograder.parity.experiment.kernel import Kernel, Plan

__all__ = ["RIGHT", "Implementation", "made_up", "run_eager"]

Results = Mapping[str, Tensor]


@dataclass(frozen=True)
class Implementation:
    """A way to compute attention and its gradients; baseline names where it rounds."""

    name: str
    run: Callable[[Inputs, str], Results]
    baseline: str = "fused"
    emulated: bool = True


def made_up(name: str, plan: Plan) -> Implementation:
    """The made-up kernel with that plan."""
    return Implementation(name, lambda inputs, precision: dict(Kernel(inputs, precision, plan).run()))


def _by_autograd(name: str, attend: Callable[[Inputs], Tensor]) -> Implementation:
    """torch's own arithmetic and gradients."""

    def run(inputs: Inputs, precision: str) -> Results:
        return _differentiated(inputs, lambda leaves: (attend(leaves), None))

    return Implementation(name, run, "eager", emulated=False)


def _differentiated(inputs: Inputs, attend: Callable[[Inputs], tuple[Tensor, Tensor | None]]) -> Results:
    """What `attend` yields, and its gradients."""
    with torch.enable_grad():
        leaves = [x.clone().requires_grad_() for x in inputs.tensors]
        output, log_sum_exp = attend(replace(inputs, query=leaves[0], key=leaves[1], value=leaves[2]))
        gradients = torch.autograd.grad(output, leaves, inputs.upstream)
    known = {} if log_sum_exp is None else {"log_sum_exp": log_sum_exp.detach()}
    return {"output": output.detach(), **known, **dict(zip(GRADIENTS, gradients, strict=True))}


def _eager(inputs: Inputs) -> tuple[Tensor, Tensor]:
    query, key, value = inputs.tensors
    group = query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, 1) for x in (key, value))
    scores = query @ key.mT / math.sqrt(query.shape[-1])  # (B, H_q, S_q, S_k)
    allowed = allowed_keys(scores.shape, inputs.attn_mask, inputs.is_causal)
    dead = ~allowed.any(-1, keepdim=True)
    weights = scores.masked_fill(~(allowed | dead), -torch.inf).softmax(-1).masked_fill(dead, 0.0)
    return weights @ value, scores.masked_fill(~allowed, -torch.inf).float().logsumexp(-1)


def run_eager(inputs: Inputs) -> Results:
    """All five quantities of eager attention in the inputs' dtype; the log-sum-exp is float32, of rounded scores."""
    return _differentiated(inputs, _eager)


def _sdpa(backend: SDPBackend) -> Callable[[Inputs], Tensor]:
    def attend(inputs: Inputs) -> Tensor:
        query = inputs.query
        mask = inputs.attn_mask
        if mask is not None and inputs.is_causal:
            mask = allowed_keys((query.shape[-2], inputs.key.shape[-2]), mask, True)
        with sdpa_kernel([backend]):
            return torch.nn.functional.scaled_dot_product_attention(
                *inputs.tensors, mask, is_causal=inputs.is_causal and mask is None, enable_gqa=True
            )

    return attend


RIGHT = (
    Implementation("eager", lambda inputs, precision: run_eager(inputs), "eager", emulated=False),
    _by_autograd("SDPA MATH", _sdpa(SDPBackend.MATH)),
    _by_autograd("SDPA FLASH_ATTENTION", _sdpa(SDPBackend.FLASH_ATTENTION)),
    made_up("one block", Plan(block=1 << 20)),
    made_up("blocks of 16", Plan()),
    made_up("blocks of 64, last first", Plan(block=64, order="backward")),
    made_up("blocks of 24, shuffled", Plan(block=24, order="shuffled")),
    made_up("exp2", Plan(block=32, base2=True)),
    made_up("three splits, merged", Plan(splits=3)),
    made_up("lazy maximum", Plan(lazy=4.0)),
    made_up("two passes", Plan(passes=2)),
)
