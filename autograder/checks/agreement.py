"""Agreement with the float64 formula, under the derived tolerance."""

from __future__ import annotations

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


def raises_value_error(mistake: str = "sizes are not compared") -> Probe:
    """Inputs that do not fit together are refused with a ValueError; the case holds such inputs.

    mistake: the name for code that does not refuse them.
    """

    def probe(trial: Trial) -> None:
        inputs = dict(trial.inputs)
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
                f"inputs that do not fit must raise ValueError; they raised {type(error).__name__}. "
                "Are the sizes compared before they are used?",
                mistake=mistake,
            ) from error
        except Exception as error:
            raise Failure(
                f"inputs that do not fit must raise ValueError; they raised {type(error).__name__}. "
                "Is it `raise ValueError(...)`?",
                mistake="raises another exception than ValueError",
            ) from error
        raise Failure(
            f"inputs that do not fit must raise ValueError; a {type(result).__name__} came back.",
            mistake=mistake,
        )

    return probe
