"""Checks: executable claims about a student's function or module, in families that any exercise can use."""

from autograder.checks.check import Check, Probe
from autograder.checks.failure import Failure
from autograder.checks.subject import FunctionSubject, ModuleSubject, Parameter, Subject
from autograder.checks.trial import Target, Trial

__all__ = [
    "Check",
    "Failure",
    "FunctionSubject",
    "ModuleSubject",
    "Parameter",
    "Probe",
    "Subject",
    "Target",
    "Trial",
]
