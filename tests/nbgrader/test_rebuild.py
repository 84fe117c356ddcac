"""The notebook that runs is the teacher's: of a submission only source text survives."""

from __future__ import annotations

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from autograder.engine.rebuild import rebuild
from autograder.weave.cells import answer_cell, grade_cell, notebook, plain_cell, setup_cell, solution_cell


def released() -> NotebookNode:
    return notebook(
        [
            plain_cell("markdown", "# Title", "title-1", {}),
            setup_cell("import torch"),
            plain_cell("code", "demo = 1", "title-2", {}),
            solution_cell("f", "def f():\n    raise NotImplementedError()"),
            grade_cell("f", 2.0),
            answer_cell("words", "YOUR ANSWER HERE", 3.0),
        ]
    )


def sources(made: NotebookNode) -> list[str]:
    return [cell.source for cell in made.cells]


def graded_ids(made: NotebookNode) -> list[str]:
    return [cell.metadata.nbgrader.grade_id for cell in made.cells if "nbgrader" in cell.metadata]


def test_an_untouched_submission_comes_back_as_released() -> None:
    assert sources(rebuild(released(), released())) == sources(released())
    assert graded_ids(rebuild(released(), released())) == graded_ids(released())


def test_a_students_text_replaces_the_stub_and_nothing_else_of_the_cell() -> None:
    given = released()
    given.cells[3].source = "def f():\n    return 1"
    given.cells[3].metadata.nbgrader.update(points=99, locked=True, grade=True)
    given.cells[3].metadata.tags = ["skip-execution"]
    made = rebuild(released(), given)
    assert made.cells[3].source == "def f():\n    return 1"
    assert made.cells[3].metadata == released().cells[3].metadata


def test_locked_cells_come_back_as_released() -> None:
    given = released()
    given.cells[1].source = "import os"
    given.cells[4].source = "2.0"
    given.cells[4].metadata.nbgrader.points = 100
    made = rebuild(released(), given)
    assert made.cells[1] == released().cells[1]
    assert made.cells[4] == released().cells[4]


def test_added_cells_stay_where_the_student_put_them_without_metadata_or_outputs() -> None:
    given = released()
    mine = new_code_cell("helper = 1", id="mine", metadata={"tags": ["skip-execution"], "nbgrader": {"x": 1}})
    mine.outputs = [nbformat.v4.new_output("stream", text="old")]
    given.cells.insert(3, mine)
    made = rebuild(released(), given)
    assert made.cells[3].source == "helper = 1"
    assert made.cells[3].metadata == {}
    assert made.cells[3].outputs == []
    assert len({cell.id for cell in made.cells}) == len(made.cells)


def test_of_two_copies_of_a_solution_cell_both_run_and_the_last_is_graded() -> None:
    given = released()
    given.cells.insert(3, solution_cell("f", "def f():\n    return 'first'"))
    given.cells[4].source = "def f():\n    return 'second'"
    made = rebuild(released(), given)
    assert sources(made)[3:5] == ["def f():\n    return 'first'", "def f():\n    return 'second'"]
    assert graded_ids(made).count("f") == 1
    assert "nbgrader" not in made.cells[3].metadata


def test_a_copied_grade_cell_is_dropped() -> None:
    given = released()
    given.cells.append(grade_cell("f", 2.0))
    assert graded_ids(rebuild(released(), given)).count("check-f") == 1


def test_a_deleted_solution_cell_stays_deleted_and_its_grade_cell_comes_back() -> None:
    given = released()
    given.cells = [cell for cell in given.cells if cell.id not in ("f", "check-f")]
    made = rebuild(released(), given)
    assert graded_ids(made) == ["setup", "check-f", "words"]


def test_a_deleted_answer_in_words_comes_back_unanswered() -> None:
    given = released()
    given.cells.pop()
    assert rebuild(released(), given).cells[-1] == released().cells[-1]


def test_pictures_in_an_answer_are_kept() -> None:
    given = released()
    given.cells[-1].source = "![mine](attachment:a.png)"
    given.cells[-1].attachments = {"a.png": {"image/png": "AAAA"}}
    assert rebuild(released(), given).cells[-1].attachments == {"a.png": {"image/png": "AAAA"}}


def test_metadata_of_any_shape_is_survived() -> None:
    given = released()
    for value in ("text", None, 3, [], {"grade_id": 5}):
        cell = new_markdown_cell("odd")
        cell.metadata["nbgrader"] = value
        given.cells.append(cell)
    made = rebuild(released(), given)
    assert sources(made).count("odd") == 5


def test_nothing_handed_in_leaves_the_teachers_graded_cells() -> None:
    assert graded_ids(rebuild(released(), None)) == ["setup", "check-f", "words"]


def test_the_kernel_is_the_teachers() -> None:
    given = released()
    given.metadata.kernelspec = {"name": "evil", "display_name": "Evil", "language": "python"}
    assert rebuild(released(), given).metadata.kernelspec.name == "python3"
