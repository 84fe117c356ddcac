"""The teacher's notebook: cells in the right order, all that nbgrader asks for, always the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbformat import NotebookNode

from autograder.weave import WeaveError
from autograder.weave.weaving import to_bytes, weave
from tests.weave.tiny import LESSON, POINTS, SOLUTIONS, write_course


def woven(place: Path, lesson: str = LESSON, solutions: str = SOLUTIONS) -> NotebookNode:
    course = write_course(place, lesson, solutions)
    return weave(course.lesson("tiny"), course.solution("tiny"), POINTS)


def graded(notebook: NotebookNode) -> dict[str, NotebookNode]:
    return {
        cell.metadata.nbgrader.grade_id: cell for cell in notebook.cells if cell.metadata.get("nbgrader", {})
    }


def test_every_solution_cell_is_followed_by_its_grade_cell(tmp_path: Path) -> None:
    ids = list(graded(woven(tmp_path)))
    assert ids == [
        "setup", "halves", "check-halves", "letter", "check-letter", "count", "check-count",
        "Twice", "check-Twice", "why_halves",
    ]  # fmt: skip


def test_a_grade_cell_is_the_agreed_text_and_locked(tmp_path: Path) -> None:
    cell = graded(woven(tmp_path))["check-halves"]
    assert cell.source == 'from autograder import check, grade, inputs\n\ngrade("halves", halves, seed=None)'
    assert cell.metadata.nbgrader == {
        "grade": True, "grade_id": "check-halves", "locked": True, "points": 4.0,
        "schema_version": 3, "solution": False, "task": False,
    }  # fmt: skip


def test_every_graded_cell_has_all_keys_that_nbgrader_needs(tmp_path: Path) -> None:
    for cell in graded(woven(tmp_path)).values():
        keys = set(cell.metadata.nbgrader)
        assert {"grade", "grade_id", "locked", "schema_version", "solution", "task"} <= keys
        assert ("points" in keys) == cell.metadata.nbgrader.grade


def test_an_answer_in_words_is_graded_by_a_person(tmp_path: Path) -> None:
    cell = graded(woven(tmp_path))["why_halves"]
    assert cell.cell_type == "markdown"
    assert cell.metadata.nbgrader.grade
    assert cell.metadata.nbgrader.solution
    assert cell.metadata.nbgrader.points == 3.0
    assert "**Rubric**" in cell.source


def test_the_setup_cell_is_read_only_and_stands_before_all_other_code(tmp_path: Path) -> None:
    code = [cell for cell in woven(tmp_path).cells if cell.cell_type == "code"]
    assert code[0].metadata.nbgrader.grade_id == "setup"
    assert code[0].metadata.nbgrader.locked
    assert code[0].source == "import math\nfrom torch import Tensor, nn"
    assert code[1].source == 'print("a demonstration")'


def test_a_lesson_that_begins_with_imports_gets_them_as_its_setup_completed(tmp_path: Path) -> None:
    lesson = LESSON.replace('print("a demonstration")', "import math\nimport torch")
    code = [cell for cell in woven(tmp_path, lesson).cells if cell.cell_type == "code"]
    assert code[0].source == "import math\nimport torch\nfrom torch import Tensor, nn"
    assert code[1].metadata.nbgrader.grade_id == "halves"


def test_prose_and_demonstrations_go_to_the_student_as_they_are(tmp_path: Path) -> None:
    sources = [cell.source for cell in woven(tmp_path).cells]
    assert "# Halves\n\nSome prose with $x^2$." in sources
    assert 'print("a demonstration")' in sources
    assert "Closing words." in sources
    assert not any("from solutions" in source for source in sources)


def test_cell_ids_come_from_grade_ids_and_headings(tmp_path: Path) -> None:
    ids = [cell.id for cell in woven(tmp_path).cells]
    assert ids == [
        "halves-1", "setup", "halves-2", "halves", "check-halves", "questions-1", "letter", "check-letter",
        "count", "check-count", "Twice", "check-Twice", "why_halves", "questions-2",
    ]  # fmt: skip


def test_weaving_twice_gives_the_same_bytes_without_outputs(tmp_path: Path) -> None:
    first, second = to_bytes(woven(tmp_path / "a")), to_bytes(woven(tmp_path / "b"))
    assert first == second
    assert b'"outputs": []' in first
    assert b'"version"' not in first  # of Python: it would differ between machines


BROKEN = [
    (
        "from solutions.tiny import halves",
        "x = 1\nfrom solutions.tiny import halves",
        20,
        "beside other code",
    ),
    ("from solutions.tiny import halves", "import solutions.tiny", 19, "beside other code"),
    (
        "from solutions.tiny import halves",
        "from solutions.other import halves",
        19,
        "imports from solutions.other",
    ),
    (
        "from solutions.tiny import halves",
        "from solutions.tiny import halves, letter",
        19,
        "halves is an exercise; pose it in a cell of its own",
    ),
    (
        "from solutions.tiny import halves",
        "from solutions.tiny import halves as h",
        19,
        "each name as itself",
    ),
    ("from solutions.tiny import halves", "from solutions.tiny import halves, halves", 19, "a name twice"),
    (
        "from solutions.tiny import halves",
        "from solutions.tiny import thirds",
        19,
        "tiny.py defines no thirds",
    ),
    (
        "from solutions.tiny import letter",
        "from solutions.tiny import halves",
        25,
        "was posed before, at line 19",
    ),
    ('print("a demonstration")', "print(", 15, "this cell is not Python"),
    ('"points": 3', '"points": 4', 38, "is worth 4 points, but its rubric adds up to 3"),
    ("- 2 points: says", "- says", 43, "names no points"),
    ("**Rubric**", "Rubric", 38, "has no rubric"),
    (
        '{"answer": "why_halves", "points": 3}',
        '{"answer": "why_halves"}',
        38,
        "needs its name and its points",
    ),
    ('"answer": "why_halves"', '"answer": "why halves"', 38, "must be a Python name"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), BROKEN)
def test_a_lesson_that_does_not_fit_is_refused_with_file_and_line(
    tmp_path: Path, old: str, new: str, line: int, message: str
) -> None:
    assert LESSON.count(old) == 1
    with pytest.raises(WeaveError) as caught:
        woven(tmp_path, LESSON.replace(old, new))
    assert str(caught.value).startswith(f"{tmp_path / 'course/lessons/tiny.md'}:{line}: ")
    assert message in str(caught.value)


def test_a_name_that_is_no_exercise_is_refused(tmp_path: Path) -> None:
    course = write_course(tmp_path)
    fewer = {name: points for name, points in POINTS.items() if name != "letter"}
    with pytest.raises(
        WeaveError, match=r"tiny\.md:25: letter is no exercise of tiny; its exercises are halves,"
    ):
        weave(course.lesson("tiny"), course.solution("tiny"), fewer)


def test_an_exercise_that_is_never_posed_is_refused(tmp_path: Path) -> None:
    course = write_course(tmp_path)
    with pytest.raises(
        WeaveError, match=r"tiny\.md: the exercise thirds is never posed; add a cell `from sol"
    ):
        weave(course.lesson("tiny"), course.solution("tiny"), {**POINTS, "thirds": 1.0})


def test_a_solution_that_uses_a_later_one_is_refused(tmp_path: Path) -> None:
    lesson = LESSON.replace("import halves", "import X").replace("import Twice", "import halves")
    with pytest.raises(
        WeaveError, match="the solution Twice uses halves, which the lesson does not pose above it"
    ):
        woven(tmp_path, lesson.replace("import X", "import Twice"))


SEVERAL = LESSON.replace("import halves", "import STEPS, half, halves")
PARTS = """
# What to halve with.
STEPS = [2.0, 2.0]


def half(number: float) -> float:
    \"\"\"One step.\"\"\"
    return number / STEPS[0]
"""


def test_a_cell_of_several_names_holds_their_texts_and_grades_the_last(tmp_path: Path) -> None:
    cells = graded(woven(tmp_path, SEVERAL, SOLUTIONS + PARTS))
    source = cells["halves"].source
    assert source.startswith("# What to halve with.\nSTEPS = [2.0, 2.0]\n\n\ndef half(")
    assert source.index("def half(") < source.index("def halves(")
    assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") == 2
    assert 'grade("halves", halves, seed=None)' in cells["check-halves"].source
    assert "half" not in cells


def test_a_part_that_stands_below_what_uses_it_is_refused(tmp_path: Path) -> None:
    turned = SEVERAL.replace("STEPS, half", "half, STEPS")
    with pytest.raises(
        WeaveError, match="the solution half uses STEPS, which the lesson does not pose above"
    ):
        woven(tmp_path, turned, SOLUTIONS + PARTS)


def test_imports_may_be_told_something_by_the_environment(tmp_path: Path) -> None:
    told = 'import os\n\nos.environ.setdefault("X", "1")\nimport torch'
    code = [cell for cell in woven(tmp_path, LESSON.replace('print("a demonstration")', told)).cells
            if cell.cell_type == "code"]  # fmt: skip
    assert code[0].source == f"{told}\nimport math\nfrom torch import Tensor, nn"
    assert code[0].metadata.nbgrader.grade_id == "setup"


def test_a_missing_lesson_is_refused_with_its_name(tmp_path: Path) -> None:
    course = write_course(tmp_path)
    course.lesson("tiny").unlink()
    with pytest.raises(WeaveError, match=r"tiny\.md: there is no such lesson"):
        weave(course.lesson("tiny"), course.solution("tiny"), POINTS)


def test_a_lesson_in_plain_markdown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeaveError, match="is it a MyST Markdown notebook"):
        woven(tmp_path, "# A title\n\n```python\nx = 1\n```\n")
