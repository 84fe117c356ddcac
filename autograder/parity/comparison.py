"""One computation of attention against the float64 oracle: output, log-sum-exp and three gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from autograder.oracle import Comparison, Quantity, compare
from autograder.oracle.flash import flash_attention, flash_gradients
from autograder.oracle.quantity import TF32_ROUNDOFF, Rounder, elsewhere, exact, rounder
from autograder.oracle.tolerance import unit_roundoff
from autograder.parity.cases import Inputs, dtype_of

__all__ = ["GRADIENTS", "QUANTITIES", "Oracle"]

GRADIENTS = ("d_query", "d_key", "d_value")
SEEDS = (1, 2, 3, 4)
QUANTITIES = ("output", "log_sum_exp", *GRADIENTS)


@dataclass(frozen=True)
class Oracle:
    """What is right for one case in one precision, and what right computations may lose."""

    inputs: Inputs
    precision: str

    @cached_property
    def exact(self) -> Mapping[str, Quantity]:
        """The formulas' float64 results by name."""
        return self._formulas("fused", exact)

    @cached_property
    def _known(self) -> dict[str, list[Mapping[str, Tensor]]]:
        return {}

    def _formulas(self, baseline: str, round: Rounder) -> Mapping[str, Quantity]:
        tensors = (*self.inputs.tensors, self.inputs.upstream)
        query, key, value, upstream = (x.detach().cpu().double() for x in tensors)
        mask = None if self.inputs.attn_mask is None else self.inputs.attn_mask.cpu()
        return {
            **flash_attention(query, key, value, self.inputs.is_causal, mask, round, baseline),
            **flash_gradients(query, key, value, upstream, self.inputs.is_causal, mask, round, baseline),
        }

    def baselines(self, name: str) -> list[Mapping[str, Tensor]]:
        """The results of the named baseline, rounded to nearest first; in tf32 every kind rounds as tf32 does.

        Below float32 what one computation loses is a chance draw, where terms cancel above all: others that round
        elsewhere follow it.
        """
        kind = "tf32" if self.precision == "tf32" else name
        if kind not in self._known:
            dtype: torch.dtype | str = "tf32" if kind == "tf32" else dtype_of(self.precision)
            rounders = [rounder(dtype)]
            if self.precision != "float32":
                rounders += [elsewhere(dtype, seed) for seed in SEEDS]
            self._known[kind] = [
                {quantity: found.value for quantity, found in self._formulas(kind, round).items()}
                for round in rounders
            ]
        return self._known[kind]

    def compare(self, name: str, actual: Tensor, baseline: str = "fused") -> Comparison:
        """Compare the quantity `name` with the formula, allowing what the named baseline loses."""
        right, dtype = self.exact[name], dtype_of(self.precision)
        got = actual.detach().cpu().double()
        got = torch.where(
            (got - right.value).abs() <= self._vanishing * (right.magnitude > 0), right.value, got
        )
        rounded = [one[name] for one in self.baselines(baseline)]
        roundoff = TF32_ROUNDOFF if self.precision == "tf32" else unit_roundoff(dtype)
        if name != "log_sum_exp":
            return compare(got, right, rounded, dtype, roundoff)
        # It is kept in float32, and weights are exp(score - log-sum-exp): an absolute error of a unit roundoff in it is one
        # more rounding of the weights. A dead row's is -inf on both sides, which no difference can say.
        endless = torch.isinf(right.value)
        got = torch.where(endless & (got == right.value), 0.0, got)
        finite = Quantity(torch.where(endless, 0.0, right.value), right.magnitude)
        rounded = [torch.where(endless, 0.0, x) for x in (*rounded, right.value + roundoff)]
        return compare(got, finite, rounded, torch.float32)

    @cached_property
    def _vanishing(self) -> float:
        """What weights lose that are too small for float32, once they are multiplied and summed up."""
        largest = max(1.0, *(float(x.abs().max()) for x in (*self.inputs.tensors, self.inputs.upstream)))
        terms = max(self.inputs.query.shape[1:3].numel(), self.inputs.key.shape[-2])
        return float(torch.finfo(torch.float32).tiny) * terms * largest**2
