"""Agreement with the float64 formula, under the derived tolerance."""

from __future__ import annotations

from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.trial import Trial

__all__ = ["agrees", "raises_value_error"]


def agrees(*outputs: str) -> Probe:
    """The named results equal the formula's."""

    def probe(trial: Trial) -> None:
        results = trial()
        for name in outputs:
            trial.require(name, results[name], "differs from the formula")

    return probe


def raises_value_error() -> Probe:
    """Inputs that do not fit together are refused with a ValueError; the case holds such inputs."""

    def probe(trial: Trial) -> None:
        inputs = dict(trial.inputs)
        try:
            result = trial.subject.call(trial.case, inputs)
        except ValueError:
            return
        except NotImplementedError as error:
            raise Failure("is not written yet: it raises NotImplementedError.", errored=True) from error
        except Exception as error:
            raise Failure(
                f"inputs that do not fit must raise ValueError; they raised {type(error).__name__}. "
                "Are the widths compared before they are used?",
                mistake="sizes are not compared",
            ) from error
        raise Failure(
            f"inputs that do not fit must raise ValueError; a {type(result).__name__} came back.",
            mistake="sizes are not compared",
        )

    return probe
