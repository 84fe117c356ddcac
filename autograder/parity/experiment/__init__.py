"""The experiment behind the tolerance: right implementations, planted bugs, competing rules."""

from autograder.parity.experiment.run import Experiment, run_experiment

__all__ = ["Experiment", "run_experiment"]
