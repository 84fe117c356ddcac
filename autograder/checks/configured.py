"""Modules whose formula depends on how they were made: a number of heads, an order of the norms."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autograder.case import Case
from autograder.checks.check import Probe
from autograder.checks.failure import Failure
from autograder.checks.subject import ModuleSubject
from autograder.checks.trial import Trial
from autograder.observation import Observation

__all__ = ["ConfiguredModule", "biases_as_asked", "refused_when_made", "refuses"]


class ConfiguredModule(ModuleSubject):
    """A module for which inputs may bear names of constructor arguments: the formula gets them, forward does not.

    The weights of vectors, such as a layer norm's, are drawn around 1 and not around 0.
    """

    def prepare(self, case: Case) -> dict[str, Tensor]:
        """Fresh weights by canonical name."""
        weights = super().prepare(case)
        vectors = {parameter.name for parameter in self.parameters if len(parameter.shape) == 1}
        return {name: 1.0 + weight if name in vectors else weight for name, weight in weights.items()}

    def call_with(self, case: Case, inputs: Mapping[str, Any], state: Mapping[str, Tensor]) -> Any:
        """The module's raw result on the inputs that are not constructor arguments."""
        return super().call_with(case, _without(inputs, case), state)

    def observe(self, case: Case, inputs: Mapping[str, Any]) -> Observation:
        """What the module's forward does on those inputs."""
        return super().observe(case, _without(inputs, case))


def _without(inputs: Mapping[str, Any], case: Case) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name not in case.init}


def refuses(**numbers: Callable[[Mapping[str, Any]], int]) -> Probe:
    """Inputs that do not fit are refused with a ValueError whose message holds these numbers of the case, given by name."""

    def probe(trial: Trial) -> None:
        said = {name: number(trial.inputs) for name, number in numbers.items()}
        _require_refusal(lambda: trial.subject.call(trial.case, dict(trial.inputs)), said)

    return probe


def refused_when_made(width: str = "d_model", parts: str = "num_heads") -> Probe:
    """The constructor refuses a width that its parts do not divide, with a ValueError that names both numbers.

    For a case that fits: its number of parts is raised until it does not divide the width.
    """

    def probe(trial: Trial) -> None:
        if not isinstance(trial.subject, ModuleSubject):
            return
        init = dict(trial.case.init)
        init[parts] = next(n for n in range(init[parts] + 1, init[width] + 2) if init[width] % n)
        made = trial.subject.module_class
        _require_refusal(lambda: made(*init.values()), {name: init[name] for name in (width, parts)})

    return probe


def _require_refusal(call: Callable[[], Any], said: Mapping[str, int]) -> None:
    shown = " and ".join(f"{name}={number}" for name, number in said.items())
    try:
        call()
    except ValueError as error:
        words = "".join(c if c.isdigit() else " " for c in str(error)).split()
        if missing := [n for n in said.values() if str(n) not in words]:
            raise Failure(
                f"the ValueError does not say why: its message does not hold {missing[0]}. "
                f"Does it name both, {shown}?",
                mistake="the refusal does not say why",
            ) from error
        return
    except Failure:
        raise
    except NotImplementedError as error:
        raise Failure("is not written yet: it raises NotImplementedError.", errored=True) from error
    except Exception as error:
        raise Failure(
            f"{shown} do not fit and must raise ValueError; they raised {type(error).__name__}. "
            "Are the sizes compared before they are used, and is it `raise ValueError(...)`?",
            mistake="raises another exception than ValueError",
        ) from error
    raise Failure(
        f"{shown} do not fit and must raise ValueError; nothing was raised. "
        "Is the remainder of the division looked at?",
        mistake="sizes are not compared",
    )


def biases_as_asked(names: tuple[str, ...], asked: str = "bias") -> Probe:
    """Each layer has a bias if the constructor is asked for one, or told nothing, and else none."""

    def probe(trial: Trial) -> None:
        wanted = bool(trial.case.init.get(asked, True))
        for name in names:
            if (f"{name}_bias" in trial.weights) != wanted:
                told = (
                    f"{asked}={trial.case.init[asked]}" if asked in trial.case.init else f"no {asked} given"
                )
                raise Failure(
                    f"with {told}, {name} must have {'a' if wanted else 'no'} bias. "
                    "Is a bias left out, or `bias=bias` not passed on to nn.Linear?",
                    mistake="bias is not passed on",
                )

    return probe
