"""Ways to compute attention on this machine: torch's fused kernels, FlexAttention, and kernels handed in as a file.

Each backend has a name, says why it cannot take a case (`why_not`), and runs it (`run`).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from autograder.oracle.attention import allowed_keys
from autograder.parity.cases import Inputs

__all__ = ["Backend", "Flex", "Result", "Sdpa", "precise", "torch_backends"]

TF32_NEEDS_GPU = "tf32 is how a GPU's tensor cores take float32; a CPU has none"


@dataclass(frozen=True)
class Result:
    """output (B, H_q, S_q, D) in the inputs' dtype; log_sum_exp (B, H_q, S_q), natural, where the backend gives it."""

    output: Tensor
    log_sum_exp: Tensor | None = None


class Backend(Protocol):
    """A way to compute attention. baseline names where it rounds; slow ones are tried on fewer cases."""

    name: str
    baseline: str
    slow: bool

    def why_not(self, inputs: Inputs, precision: str) -> str | None:
        """Why this case cannot be run, in words; None if it can. The inputs lie on the device that is meant."""

    def why_no_gradients(self, inputs: Inputs) -> str | None:
        """Why gradients cannot be had, in words; None if they can."""

    def run(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Result:
        """Attention of query (B, H_q, S_q, D), key and value (B, H_kv, S_k, D); causal is top left. Carries a gradient."""

    def run_masked(self, inputs: Inputs) -> Result:
        """The same for all that a case holds: its mask, too."""


@contextlib.contextmanager
def precise(precision: str) -> Iterator[None]:
    """A block in which matrix products of float32 use tf32 if that is the precision, and never otherwise."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Sdpa:
    """One backend of torch's scaled_dot_product_attention, and no other."""

    slow = False

    def __init__(self, backend: SDPBackend):
        self.backend, self.name = backend, f"SDPA {backend.name}"
        # MATH computes half precision in float32, and rounds the result only; that loses less than either baseline.
        self.baseline = "eager" if backend == SDPBackend.MATH else "fused"

    def why_not(self, inputs: Inputs, precision: str) -> str | None:
        """What torch itself says."""
        device = inputs.query.device.type
        if precision == "tf32" and device == "cpu":
            return TF32_NEEDS_GPU
        if device == "cpu" and self.backend not in (SDPBackend.MATH, SDPBackend.FLASH_ATTENTION):
            return "torch has no such kernel for a CPU"
        mask, is_causal = self._mask(inputs)
        query, key, value = (x.detach().requires_grad_() for x in inputs.tensors)
        grouped = self._grouped(inputs)
        refused: str | None = None
        with warnings.catch_warnings(record=True) as said, sdpa_kernel([self.backend]):
            warnings.simplefilter("always")
            try:
                choice = torch._fused_sdp_choice(query, key, value, mask, 0.0, is_causal, enable_gqa=grouped)
                refused = None if choice == self.backend.value else "torch chooses another kernel"
            except RuntimeError as error:
                refused = _first_line(str(error))
            if refused and device == "cuda" and (explain := self._explain()):
                params = torch.backends.cuda.SDPAParams(query, key, value, mask, 0.0, is_causal, grouped)
                explain(params, debug=True)  # which warns about what is in the way
        if refused is None:
            return None
        lines = [_first_line(str(one.message)) for one in said]
        # The same warnings tell that all other kernels are switched off, as they are.
        told = [one for one in lines if "not used because" not in one and "runtime disabled" not in one]
        return told[0] if told else refused

    def _explain(self) -> Callable[..., bool] | None:
        """torch's function that knows why this kernel cannot be used on a GPU."""
        return {
            SDPBackend.FLASH_ATTENTION: torch.backends.cuda.can_use_flash_attention,
            SDPBackend.EFFICIENT_ATTENTION: torch.backends.cuda.can_use_efficient_attention,
            SDPBackend.CUDNN_ATTENTION: torch.backends.cuda.can_use_cudnn_attention,
        }.get(self.backend)

    def why_no_gradients(self, inputs: Inputs) -> str | None:
        """All of them have some."""
        return None

    @staticmethod
    def _grouped(inputs: Inputs) -> bool:
        return inputs.query.shape[1] != inputs.key.shape[1]

    @staticmethod
    def _mask(inputs: Inputs) -> tuple[Tensor | None, bool]:
        """attn_mask and is_causal as torch takes them: not both."""
        mask, is_causal = inputs.attn_mask, inputs.is_causal
        if mask is not None and is_causal:
            mask = allowed_keys(mask.shape, mask.cpu(), True).to(mask.device)
        return mask, is_causal and mask is None

    def run(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Result:
        """The output alone: torch keeps the log-sum-exp to itself."""
        return self._run(query, key, value, None, is_causal)

    def run_masked(self, inputs: Inputs) -> Result:
        """With the mask, and with the log-sum-exp where torch's own operator hands it out."""
        mask, is_causal = self._mask(inputs)
        result = self._run(*inputs.tensors, mask, is_causal)
        with torch.no_grad():
            return Result(result.output, self._log_sum_exp(inputs, mask, is_causal))

    def _run(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, is_causal: bool) -> Result:
        with sdpa_kernel([self.backend]):
            return Result(
                torch.nn.functional.scaled_dot_product_attention(
                    query,
                    key,
                    value,
                    mask,
                    is_causal=is_causal,
                    enable_gqa=query.shape[1] != key.shape[1],
                )
            )

    def _log_sum_exp(self, inputs: Inputs, mask: Tensor | None, is_causal: bool) -> Tensor | None:
        """(B, H_q, S_q), by the operator below scaled_dot_product_attention; None where it is of no use here."""
        query, key, value = inputs.tensors
        if self.backend == SDPBackend.MATH or self._grouped(inputs):
            return None
        aten, S_q = torch.ops.aten, query.shape[-2]
        if mask is not None:
            return None  # torch's operators leave dead rows undefined
        if query.device.type == "cpu":
            return aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal)[1]
        if query.shape[-1] % 8:
            return None  # torch pads these first
        found: Any = {
            SDPBackend.FLASH_ATTENTION: partial(
                aten._scaled_dot_product_flash_attention, query, key, value, 0.0, is_causal
            ),
            SDPBackend.EFFICIENT_ATTENTION: partial(
                aten._scaled_dot_product_efficient_attention, query, key, value, None, True, 0.0, is_causal
            ),
            SDPBackend.CUDNN_ATTENTION: partial(
                aten._scaled_dot_product_cudnn_attention, query, key, value, None, True, 0.0, is_causal
            ),
        }[self.backend]()[1]
        return found.reshape(*found.shape[:2], -1)[..., :S_q]


class Flex:
    """FlexAttention: eager as it is written, or compiled into one kernel."""

    def __init__(self, compiled: bool):
        self.compiled = self.slow = compiled
        self.name = f"FlexAttention {'compiled' if compiled else 'eager'}"
        self.baseline = "fused" if compiled else "eager"
        self._last: tuple[Any, ...] | None = None

    def why_not(self, inputs: Inputs, precision: str) -> str | None:
        """tf32 needs a GPU; compiling needs a compiler."""
        if precision == "tf32" and inputs.query.device.type == "cpu":
            return TF32_NEEDS_GPU
        return None

    def why_no_gradients(self, inputs: Inputs) -> str | None:
        """It has none on a CPU."""
        return "FlexAttention has no backward on a CPU" if inputs.query.device.type == "cpu" else None

    def run(self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool = False) -> Result:
        """Output, and the log-sum-exp but for the compiled one on a CPU."""
        return self.run_masked(Inputs(query, key, value, query, None, is_causal))

    def run_masked(self, inputs: Inputs) -> Result:
        """The mask becomes a mask_mod."""
        query, key, value = inputs.tensors
        attend, block_mask = self._prepared(inputs)
        wants_lse = not (self.compiled and query.device.type == "cpu")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that eager is slow
            result = attend(
                query,
                key,
                value,
                block_mask=block_mask,
                enable_gqa=query.shape[1] != key.shape[1],
                return_lse=wants_lse,
            )
        return Result(*result) if wants_lse else Result(result)

    def _prepared(self, inputs: Inputs) -> tuple[Any, Any]:
        """The function and its block mask: those of the last call, where nothing has changed but the numbers."""
        from torch.nn.attention import flex_attention as flex

        query, key, _ = inputs.tensors
        mask, (S_q, S_k), device = inputs.attn_mask, (query.shape[-2], key.shape[-2]), str(query.device)
        kind = (query.shape, key.shape, query.dtype, device, inputs.is_causal, query.requires_grad)
        if self._last is None or self._last[:2] != (kind, id(mask)):
            attend: Any = flex.flex_attention
            if self.compiled:
                # Dynamo falls back to eager, silently, after a few masks: each compilation starts afresh.
                torch._dynamo.reset()
                attend = torch.compile(attend, dynamic=False)
            block_mask = None
            if mask is not None or inputs.is_causal:
                shown = _mask_mod(mask, inputs.is_causal)
                block_mask = flex.create_block_mask(shown, None, None, S_q, S_k, device=device)
            self._last = (
                kind,
                id(mask),
                mask,
                (attend, block_mask),
            )  # the mask stays alive, and its id its own
        prepared: tuple[Any, Any] = self._last[3]
        return prepared


def _mask_mod(mask: Tensor | None, is_causal: bool) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """(batch, head, query, key) -> whether it is allowed."""
    if mask is None:
        return lambda b, h, i, j: i >= j
    allowed = mask & torch.ones_like(mask).tril() if is_causal else mask
    return lambda b, h, i, j: allowed[i, j]


def torch_backends() -> tuple[Backend, ...]:
    """All that torch knows, whether this machine has them or not."""
    kinds = (
        SDPBackend.MATH,
        SDPBackend.FLASH_ATTENTION,
        SDPBackend.EFFICIENT_ATTENTION,
        SDPBackend.CUDNN_ATTENTION,
    )
    return (*map(Sdpa, kinds), Flex(compiled=False), Flex(compiled=True))


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0].split(" (Triggered internally")[0][:200]
