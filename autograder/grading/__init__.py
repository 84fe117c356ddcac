"""Running an exercise's checks, naming mistakes, and the public face of it all."""

from autograder.grading.api import check, grade, hint, inputs, show, showing
from autograder.grading.follow import Failures
from autograder.grading.run import examine

__all__ = ["Failures", "check", "examine", "grade", "hint", "inputs", "show", "showing"]
