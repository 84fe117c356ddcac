"""Grade submissions: at this stage in one kernel per submission, through nbgrader's gradebook."""

from autograder.engine.classroom import Graded, grade_class
from autograder.engine.results import Row
from autograder.engine.submissions import (
    GradingError,
    Submission,
    class_folder,
    find_submissions,
    unknown_folders,
)

__all__ = [
    "Graded",
    "GradingError",
    "Row",
    "Submission",
    "class_folder",
    "find_submissions",
    "grade_class",
    "unknown_folders",
]
