"""What nbgrader makes of a grade cell's output, pinned; and that our grade cells fall into none of its traps.

The left column of TRAPS is run in a real kernel by nbgrader's Execute, and scored by its determine_grade.
"""

from __future__ import annotations

import copy
import math

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from nbgrader.preprocessors import Execute
from nbgrader.utils import determine_grade

from autograder.engine.settle import Settle
from autograder.weave.cells import grade_cell

POINTS = 3.0
ABOVE = "raises ValueError and stops the batch"

TRAPS = {
    # source of a grade cell: (what nbgrader scores, what is left after Settle)
    "2.5": (2.5, 2.5),
    "0.0": (0.0, 0.0),
    "3": (3.0, 3.0),
    "2e-05": (2e-05, 2e-05),
    "raise ValueError('wrong')": (0.0, 0.0),
    "x = 0": (POINTS, 0.0),  # no output at all
    "None": (POINTS, 0.0),
    "False": (POINTS, 0.0),
    "object()": (POINTS, 0.0),
    "[0.0]": (POINTS, 0.0),
    "import torch; torch.tensor(0.0)": (POINTS, 0.0),
    "import numpy; numpy.float64(0.0)": (POINTS, 0.0),
    "float('nan')": (POINTS, 0.0),
    "float('inf')": (ABOVE, 0.0),
    "-1.0": (POINTS, 0.0),
    "99.0": (ABOVE, 0.0),
    "'2.5'": (POINTS, 0.0),
    "print(0.0)": (POINTS, 0.0),
    "display(0.0)": (POINTS, 0.0),
    "import sys; print('a warning', file=sys.stderr); 2.5": (0.0, 2.5),
    "import warnings; warnings.warn('beware'); 2.5": (0.0, 2.5),
}


@pytest.fixture(scope="module")
def executed() -> dict[str, NotebookNode]:
    """Each grade cell of the table after a run in one real kernel."""
    cells = []
    for index, source in enumerate(TRAPS):
        cell = grade_cell(f"trap{index}", POINTS)
        cell.source = source
        cells.append(cell)
    notebook, _ = Execute(timeout=120).preprocess(new_notebook(cells=cells), {"metadata": {}})
    return dict(zip(TRAPS, notebook.cells, strict=True))


@pytest.mark.parametrize(("source", "expected"), [(source, pair[0]) for source, pair in TRAPS.items()])
def test_nbgrader_scores_a_cell_by_what_it_shows(
    executed: dict[str, NotebookNode], source: str, expected: float | str
) -> None:
    if expected == ABOVE:
        with pytest.raises(ValueError, match="cannot be greater than maximum points"):
            determine_grade(executed[source])
    else:
        assert determine_grade(executed[source]) == (expected, POINTS)


@pytest.mark.parametrize(("source", "expected"), [(source, pair[1]) for source, pair in TRAPS.items()])
def test_after_settling_only_a_plain_number_in_range_earns_marks(
    executed: dict[str, NotebookNode], source: str, expected: float
) -> None:
    cell, _ = Settle().preprocess_cell(copy.deepcopy(executed[source]), {}, 0)
    assert determine_grade(cell) == (expected, POINTS)


def test_a_settled_cell_says_what_it_ended_in(executed: dict[str, NotebookNode]) -> None:
    cell, _ = Settle().preprocess_cell(copy.deepcopy(executed["float('nan')"]), {}, 0)
    assert cell.outputs[-1].evalue == "the grade cell ended in nan; expected a number from 0 to 3"


STUDENTS = {
    "right": "return query @ key.transpose(-2, -1)",
    "partly": "return (query @ key.transpose(-2, -1)).float()",
    "raises": "raise RuntimeError('no')",
    "returns_nan": "return query @ key.transpose(-2, -1) * float('nan')",
    "returns_an_object": "return object()",
    "returns_a_lying_float": "return Liar()",
    "prints_to_stderr": "import sys; print('x', file=sys.stderr); return query @ key.transpose(-2, -1)",
    "warns": "import warnings; warnings.warn('x'); return query @ key.transpose(-2, -1)",
    "writes_to_the_descriptor": "import os; os.write(2, b'x'); return query @ key.transpose(-2, -1)",
    "displays": "from IPython.display import display; display(99.0); return query @ key.transpose(-2, -1)",
    "exits": "raise SystemExit",
    "returns_nothing": "pass",
}
FULL_MARKS = {"right", "prints_to_stderr", "warns", "writes_to_the_descriptor", "displays"}
LIAR = "class Liar:\n    def __float__(self): return 99.0\n    def __repr__(self): return '99.0'"


@pytest.fixture(scope="module")
def graded() -> dict[str, NotebookNode]:
    """Real grade cells, each after a student's function that does something odd."""
    cells = [new_code_cell("import torch\n" + LIAR)]
    for body in STUDENTS.values():
        cells += [new_code_cell(f"def dot_scores(query, key):\n    {body}"), grade_cell("dot_scores", POINTS)]
    cells += [new_code_cell("dot_scores = ..."), grade_cell("dot_scores", POINTS)]
    cells += [new_code_cell("del dot_scores"), grade_cell("dot_scores", POINTS)]
    for index, cell in enumerate(cells):
        cell.id = f"cell-{index}"
    notebook, _ = Execute(timeout=120).preprocess(new_notebook(cells=cells), {"metadata": {}})
    return dict(zip([*STUDENTS, "unanswered", "deleted"], notebook.cells[2::2], strict=True))


@pytest.mark.parametrize("student", [*STUDENTS, "unanswered", "deleted"])
def test_a_grade_cell_ends_in_a_plain_finite_float_or_an_error(
    graded: dict[str, NotebookNode], student: str
) -> None:
    results = [output for output in graded[student].outputs if output.output_type == "execute_result"]
    errors = [output for output in graded[student].outputs if output.output_type == "error"]
    assert len(results) + len(errors) == 1
    for result in results:
        text = result.data["text/plain"]
        assert text == repr(float(text))
        assert math.isfinite(float(text))
        assert 0 <= float(text) <= POINTS


@pytest.mark.parametrize("student", [*STUDENTS, "unanswered", "deleted"])
def test_a_grade_cell_scores_what_the_grader_says(graded: dict[str, NotebookNode], student: str) -> None:
    cell, _ = Settle().preprocess_cell(copy.deepcopy(graded[student]), {}, 0)
    score, _ = determine_grade(cell)
    assert (score == POINTS) == (student in FULL_MARKS)
    if student == "partly":
        assert 0 < score < POINTS


def test_a_grade_cell_shows_its_report_three_ways(graded: dict[str, NotebookNode]) -> None:
    shown = [output for output in graded["partly"].outputs if output.output_type == "display_data"]
    report = "application/vnd.attention-coursework.report+json"
    assert set(shown[-1].data) == {"text/plain", "text/html", report}
    assert shown[-1].data[report]["exercise"] == "dot_scores"
    nbformat.validate(new_notebook(cells=[graded["partly"]]))
