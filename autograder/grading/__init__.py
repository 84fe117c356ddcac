"""Running an exercise's checks, naming mistakes, and the public face of it all."""

from autograder.grading.api import MIME_TYPE, check, grade, hint, show, showing
from autograder.grading.run import examine

__all__ = ["MIME_TYPE", "check", "examine", "grade", "hint", "show", "showing"]
