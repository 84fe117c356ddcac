"""Agreement with the float64 formula, under the derived tolerance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["agrees", "as_float32", "raises_value_error"]


def agrees(*outputs: str) -> Probe:
    """The named results equal the formula's."""

    def probe(trial: Trial) -> None:
        results = trial()
        for name in outputs:
            narrow = trial.dtype == torch.float64 and as_float32(results[name], trial.expect()[name].value)
            trial.require(
                name,
                results[name],
                "is right in float32, not in float64 (is a part computed in another dtype?)"
                if narrow
                else "differs from the formula",
                mistake="less precise than its dtype" if narrow else None,
            )

    return probe


def as_float32(actual: Tensor, expected: Tensor) -> bool:
    """The right formula in float32: off by a millionth, where another formula is off by a per cent or more."""
    if not expected.numel():
        return False
    return bool((actual.detach() - expected).abs().max() < 1e-5 * expected.abs().max())


def raises_value_error(mistake: str = "sizes are not compared", takes: tuple[str, ...] = ()) -> Probe:
    """Inputs that do not fit together are refused with a ValueError; the case holds such inputs.

    mistake: the name for code that does not refuse them. takes: what else queries, keys and values are refused with:
    "attn_mask", "is_causal", "axes" (one more).
    """

    def probe(trial: Trial) -> None:
        for said, change in _variants(trial, takes):
            _require_refusal(trial, said, {**trial.inputs, **change}, mistake)

    return probe


def _variants(trial: Trial, takes: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """How inputs that do not fit are handed over: in words, and what is changed."""
    yield "", {}
    inputs = trial.inputs
    if "is_causal" in takes:
        yield " with is_causal", {"is_causal": True}
    if "attn_mask" in takes:
        sizes = inputs["query"].shape[-2], inputs["key"].shape[-2]
        yield " with a mask", {"attn_mask": torch.ones(sizes, dtype=torch.bool)}
    if "axes" in takes:
        yield " with one axis more", {n: inputs[n].unsqueeze(0) for n in ("query", "key", "value")}


def _require_refusal(trial: Trial, said: str, inputs: dict[str, Any], mistake: str) -> None:
    claim = f"inputs that do not fit must raise ValueError{said}{', too' if said else ''}"
    try:
        result = trial.subject.call(trial.case, inputs)
    except ValueError:
        return
    except Failure:
        raise
    except NotImplementedError as error:
        raise Failure("is not written yet: it raises NotImplementedError.", errored=True) from error
    except RuntimeError as error:
        raise Failure(
            f"{claim}; they raised {type(error).__name__}. Are the sizes compared before they are used?",
            mistake=mistake,
        ) from error
    except Exception as error:
        raise Failure(
            f"{claim}; they raised {type(error).__name__}. Is it `raise ValueError(...)`?",
            mistake="raises another exception than ValueError",
        ) from error
    raise Failure(f"{claim}; a {type(result).__name__} came back.", mistake=mistake)
