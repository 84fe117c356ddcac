"""nbgrader's own converters, pointed at submissions that have been run already.

nbgrader finds its work by globbing and stops a batch at the first odd notebook. These take exactly the work
they are given, one submission at a time; everything else (gradebook, late penalties, permissions, pages) is
nbgrader's.
"""

import warnings
from typing import Any

from nbgrader.converters import Autograde, GenerateFeedback, NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import Execute
from traitlets.config import Config
from traitlets.utils.importstring import import_item

from autograder.engine.log import collected
from autograder.engine.outcome import Outcome
from autograder.engine.submissions import Submission


class GradeOutcome(Autograde):  # type: ignore[misc]
    """Autograde for one submission that has been run already: the later steps, and the gradebook."""

    def __init__(self, outcome: Outcome, **options: Any):
        super().__init__(**options)
        self.outcome = outcome
        self.force = True

    def init_notebooks(self) -> None:
        """The one submission, whether or not its file exists."""
        self.assignments = _only(self, self.outcome.submission)

    def _init_preprocessors(self) -> None:
        self.exporter._preprocessors = []
        for step in self.autograde_preprocessors:
            step = import_item(step) if isinstance(step, str) else step
            if step is not Execute:
                self.exporter.register_preprocessor(step)

    def convert_single_notebook(self, notebook_filename: str) -> None:
        """Run the steps after the run on the outcome's notebook, and write it to autograded/."""
        resources = self.init_single_notebook_resources(notebook_filename)
        self._init_preprocessors()
        output, resources = self.exporter.from_notebook_node(self.outcome.notebook, resources)
        self.write_single_notebook(output, resources)


class PageFor(GenerateFeedback):  # type: ignore[misc]
    """GenerateFeedback for one submission."""

    def __init__(self, submission: Submission, **options: Any):
        super().__init__(**options)
        self.submission = submission
        self.force = True

    def init_notebooks(self) -> None:
        """The one autograded notebook."""
        self.assignments = _only(self, self.submission)


def save(outcome: Outcome, directory: CourseDirectory, config: Config) -> str:
    """Write the outcome to the gradebook, to autograded/ and to feedback/; "" or why nbgrader would not."""
    directory.assignment_id = outcome.submission.assignment
    with collected() as log, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nbgrader's database layer warns about its own habits
        try:
            GradeOutcome(outcome, coursedir=directory, config=config, log=log.logger).start()
            PageFor(outcome.submission, coursedir=directory, config=config, log=log.logger).start()
        except NbGraderException as error:
            return log.reason() or str(error)
    return ""


def _only(converter: Any, submission: Submission) -> dict[str, list[str]]:
    folder = converter._format_source(submission.assignment, submission.student)
    return {folder: [f"{folder}/{submission.path.name}"]}
