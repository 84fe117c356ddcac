"""The derived tolerance: how far a right computation in a given precision may be from the float64 formula.

For each of three measures (relative Frobenius, worst row, worst element scaled by the magnitude of its terms)

    error <= max(F * error of the baseline, C * u) + 32 * u_sum * (1 + T) * amplification

where the baseline is the same formula with every step rounded to the output's dtype (in half precision the worst of
a few such computations that round differently: one alone is a chance draw), u the dtype's unit roundoff,
u_sum that of the precision that sums are kept in (float32 for half precision), T the growth of the quantity,
and amplification the magnitude over the result (1 for the element). F = 2, 3, 2 and C = 1.5, 1.5, 3; a result of one
row has the F of a row for the whole, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autograder.oracle.quantity import Quantity

__all__ = ["Comparison", "compare", "unit_roundoff", "within_rounding"]

FACTORS = {"whole": 2.0, "row": 3.0, "element": 2.0}
FLOORS = {"whole": 1.5, "row": 1.5, "element": 3.0}
SUM_STEPS = 32


@dataclass(frozen=True)
class Comparison:
    """How a result compares with the formula: the worst ratio of error to allowance, and where it stands.

    ratio is dimensionless: at most 1 is right. where is the index of the worst element, got and expected its values,
    and slack how far apart rounding alone may put them. measure is the one with the worst ratio ("whole", "row" or
    "element"), with its error and allowance, both relative.
    """

    ratio: float
    where: tuple[int, ...]
    got: float
    expected: float
    slack: float
    measure: str = "whole"
    error: float = 0.0
    allowance: float = 0.0

    @property
    def close(self) -> bool:
        """True if the error is within the allowance."""
        return self.ratio <= 1.0


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number of `dtype`."""
    return torch.finfo(dtype).eps / 2


def _rows(values: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1] if values.dim() else 1).norm(dim=-1)


def _errors(actual: Tensor, result: Quantity) -> dict[str, tuple[Tensor, Tensor]]:
    """For each measure the error and the amplification, both per whole, row or element."""
    gap = (actual - result.value).abs()
    tiny = torch.finfo(torch.float64).tiny
    size, rows = result.value.norm().clamp_min(tiny), _rows(result.value).clamp_min(tiny)
    return {
        "whole": (gap.norm() / size, result.magnitude.norm() / size),
        "row": (_rows(gap) / rows, _rows(result.magnitude) / rows),
        "element": (gap / result.magnitude.clamp_min(tiny), torch.ones_like(gap)),
    }


def _smallest(dtype: torch.dtype) -> float:
    """What may be lost to underflow: float32 and bfloat16 flush below the smallest normal, float16 keeps subnormals."""
    limits = torch.finfo(dtype)
    return 4 * limits.tiny * limits.eps if dtype == torch.float16 else limits.tiny


def within_rounding(actual: Tensor, result: Quantity, dtype: torch.dtype) -> bool:
    """Whether each element is within the rounding of its own sum, and its own; then `compare` finds it close by every measure.

    Most results of right code are, and this costs a tenth. False says nothing. Shapes as in `compare`.
    """
    allowance = SUM_STEPS * _sum_roundoff(dtype) * (1.0 + result.growth) * result.magnitude
    allowance += min(FLOORS.values()) * unit_roundoff(dtype) * result.value.abs()
    got = actual.detach().to("cpu", torch.float64)
    gap = torch.where(
        got == result.value, 0.0, (got - result.value).abs()
    )  # inf is inf, and nothing else is near it
    return bool(((gap <= allowance) & (gap < math.inf)).all())


def _sum_roundoff(dtype: torch.dtype) -> float:
    """That of the precision that sums are kept in: float32 for half precision."""
    return min(unit_roundoff(dtype), unit_roundoff(torch.float32))


def compare(
    actual: Tensor,
    result: Quantity,
    baselines: Sequence[Tensor],
    dtype: torch.dtype,
    roundoff: float | None = None,
) -> Comparison:
    """Compare a result of precision `dtype` with the formula.

    roundoff: the unit roundoff, where it is not the dtype's: that of tf32, whose results are float32.

    Shapes: actual, result.value, result.magnitude and each of the baselines are all alike.
    actual may have any dtype; it is compared in float64. Elements whose magnitude is zero must be exactly zero, and
    those that are infinite exactly that.
    """
    got = actual.detach().to("cpu", torch.float64)
    if got.numel() == 0:
        return Comparison(0.0, (), 0.0, 0.0, 0.0)
    endless = result.value.isinf()
    if bool(endless.any()):  # to be met exactly; the rest is compared without them
        missed = endless & (got != result.value)
        got = torch.where(endless, torch.where(missed, torch.inf, 0.0), got)
        result = replace(result, value=result.value.masked_fill(endless, 0.0))
        baselines = [one.masked_fill(endless, 0.0) for one in baselines]
    u, u_sum = roundoff or unit_roundoff(dtype), _sum_roundoff(dtype)
    # Underflow is no error, but what must be zero must be zero.
    lost = torch.where(result.magnitude > 0, _smallest(dtype), 0.0)
    gap = ((got - result.value).abs() - lost).clamp_min(0.0)
    shrunk = result.value + torch.where(got >= result.value, gap, -gap)
    shrunk = torch.where(torch.isfinite(got), shrunk, torch.full_like(got, torch.inf))
    errors = _errors(shrunk, result)
    references = [_errors(baseline, result) for baseline in baselines]
    worst, worst_measure, allowance = -1.0, ("whole", 0.0, 0.0), torch.zeros_like(got)
    for measure, (error, amplification) in errors.items():
        floor = torch.full_like(error, FLOORS[measure] * u)
        rounding = SUM_STEPS * u_sum * (1.0 + result.growth) * amplification
        reference = max((float(one[measure][0].max()) for one in references), default=0.0)
        factor = FACTORS["row" if measure == "whole" and errors["row"][0].numel() == 1 else measure]
        allowance = (factor * floor.new_tensor(reference)).maximum(floor) + rounding
        ratio = torch.where(error == 0, 0.0, error / allowance)  # nan, on either side, is never close
        flat = ratio.nan_to_num(nan=torch.inf, posinf=torch.inf).flatten()
        at = int(flat.argmax())
        if float(flat[at]) > worst:
            worst = float(flat[at])
            worst_measure = measure, float(error.flatten()[at]), float(allowance.flatten()[at])
    # `allowance` is now that of the last measure, the element's.
    scaled = errors["element"][0].nan_to_num(nan=torch.inf, posinf=torch.inf).flatten()
    place = int(scaled.argmax())
    index = tuple(int(i) for i in torch.unravel_index(torch.tensor(place), got.shape)) if got.dim() else ()
    return Comparison(
        ratio=worst,
        where=index,
        got=float(got.flatten()[place]),
        expected=float(result.value.flatten()[place]),
        slack=float((allowance * result.magnitude + lost).flatten()[place]),
        measure=worst_measure[0],
        error=worst_measure[1],
        allowance=worst_measure[2],
    )
