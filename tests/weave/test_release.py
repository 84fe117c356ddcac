"""The release: made by nbgrader, without a line of solution, the same bytes each time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

from autograder.weave import Course, WeaveError, build, differences, find_course, generate, settings
from autograder.weave.settings import refresh_source
from autograder.weave.solutions import read_solutions
from tests.weave.tiny import LESSON, SOLUTIONS, write_course


@pytest.fixture
def course(tmp_path: Path) -> Course:
    made = write_course(tmp_path)
    build(made)
    return made


def sources(course: Course) -> dict[str, str]:
    notebook = nbformat.read(course.release("tiny"), as_version=4)
    return {cell.id: cell.source for cell in notebook.cells}


def test_functions_and_classes_get_nbgraders_stub(course: Course) -> None:
    released = sources(course)
    assert released["halves"].endswith('    """\n    # YOUR CODE HERE\n    raise NotImplementedError()')
    assert released["Twice"].count("raise NotImplementedError()") == 2
    assert "        super().__init__()\n        # YOUR CODE HERE" in released["Twice"]


def test_a_one_value_answer_keeps_its_name_and_says_that_it_is_open(course: Course) -> None:
    assert sources(course)["letter"] == "letter = ...  # your answer"
    assert sources(course)["count"] == "count = ...  # your answer"


def test_an_answer_in_words_is_released_empty(course: Course) -> None:
    assert sources(course)["why_halves"] == "YOUR ANSWER HERE"


def test_no_solution_rubric_or_marker_reaches_the_release(course: Course) -> None:
    text = course.release("tiny").read_text(encoding="utf-8")
    for secret in ("SOLUTION", "secret", "hidden", "Rubric", '\\"c\\"', "2 * 32", "from solutions", "attn"):
        assert secret not in text


def test_grade_cells_cannot_be_edited_or_deleted_in_jupyter(course: Course) -> None:
    notebook = nbformat.read(course.release("tiny"), as_version=4)
    for cell in notebook.cells:
        if cell.id.startswith("check-"):
            assert cell.metadata.editable is False
            assert cell.metadata.deletable is False
            assert cell.metadata.nbgrader.checksum


def test_a_rebuild_gives_the_same_bytes_and_reports_no_change(course: Course) -> None:
    before = course.release("tiny").read_bytes()
    assert differences(course) == []
    assert build(course) == []
    assert course.release("tiny").read_bytes() == before


def test_a_changed_release_is_named_and_left_alone_by_a_comparison(course: Course) -> None:
    course.release("tiny").write_text("{}")
    stray = course.root / "release" / "01_tiny" / "stray.csv"
    stray.write_text("1")
    assert differences(course) == [stray, course.release("tiny")]
    assert course.release("tiny").read_text() == "{}"
    assert build(course) == [stray, course.release("tiny")]
    assert not stray.exists()


def test_building_never_touches_a_gradebook(course: Course) -> None:
    assert not list(course.root.rglob("*.db"))


def test_only_notebooks_lie_in_source(course: Course) -> None:
    files = [path for path in (course.root / "source").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["tiny.ipynb"]


def test_generating_into_a_gradebook_registers_the_assignment(course: Course, tmp_path: Path) -> None:
    from nbgrader.api import Gradebook

    place = tmp_path / "class"
    place.mkdir()
    generate(course, place, gradebook=place / "gradebook.db")
    with Gradebook(f"sqlite:///{place}/gradebook.db") as gradebook:
        cells = gradebook.find_notebook("tiny", "01_tiny").grade_cells
        assert {cell.name: cell.max_score for cell in cells} == {
            "check-halves": 4.0,
            "check-letter": 1.0,
            "check-count": 1.0,
            "check-Twice": 2.5,
            "why_halves": 3.0,
        }


def test_a_course_without_nbgrader_settings_is_refused(course: Course) -> None:
    (course.root / "nbgrader_config.py").unlink()
    with pytest.raises(WeaveError, match=r"nbgrader_config\.py: this file is missing"):
        settings(course.root)


def test_a_folder_that_is_no_course_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeaveError, match="no course is here: a course holds a folder lessons/"):
        find_course(tmp_path)


def test_source_is_woven_afresh_when_the_lesson_is_newer(tmp_path: Path) -> None:
    """What nbgrader_config.py calls; in the real course, whose exercises are known."""
    real = find_course()
    root = tmp_path / "course"
    (root / "lessons").mkdir(parents=True)
    for stem in real.stems:
        (root / "lessons" / f"{stem}.md").write_bytes(real.lesson(stem).read_bytes())
    written = refresh_source(root)
    assert [path.name for path in written] == [f"{stem}.ipynb" for stem in real.stems]
    assert refresh_source(root) == []
    assert refresh_source(tmp_path) == []


class TestThisCourse:
    """The committed notebooks of this project."""

    def test_the_committed_release_is_what_a_rebuild_gives(self) -> None:
        assert differences(find_course()) == []

    def test_no_line_of_a_solution_reaches_the_release(self) -> None:
        course = find_course()
        for stem in course.stems:
            text = _code_and_text(course.release(stem))
            source = read_solutions(course.solution(stem))
            settings = {n for n in source.definitions if source.is_setting(n)} - set(course.assignments[stem])
            woven = {name: source.woven(name) for name in source.definitions if name not in settings}
            shown = "\n".join(_without_secrets(one) for one in woven.values())  # signatures and docstrings
            for name, one in woven.items():
                for line in _secret_lines(one):
                    assert line in shown or line not in text, f"{name}: {line}"

    def test_no_model_answer_rubric_or_marker_reaches_the_release(self) -> None:
        course = find_course()
        for stem in course.stems:
            text = _code_and_text(course.release(stem))
            lesson = course.lesson(stem).read_text(encoding="utf-8")
            assert not re.search(r"(BEGIN|END) SOLUTION|from solutions|\*\*Rubric\*\*|\"attn\"", text)
            for answer in re.findall(r'^\+\+\+ \{"attn".*?$(.*?)^\+\+\+', lesson, re.MULTILINE | re.DOTALL):
                for line in answer.strip().split("\n"):
                    assert not line.strip() or line not in text


def _code_and_text(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) + "\n" + json.dumps(cell["metadata"]) for cell in cells)


def _without_secrets(woven: str) -> str:
    """What a student sees of it."""
    return re.sub(r"### BEGIN SOLUTION.*?### END SOLUTION", "", woven, flags=re.DOTALL)


def _secret_lines(woven: str) -> list[str]:
    """The lines between the markers that say something: longer than a bare `return x`."""
    lines, inside = [], False
    for line in woven.split("\n"):
        if "BEGIN SOLUTION" in line or "END SOLUTION" in line:
            inside = "BEGIN" in line
        elif inside and len(line.strip()) > 12:
            lines.append(line.strip())
    return lines


def test_the_parts_of_a_solution_are_hidden_and_its_settings_handed_out(tmp_path: Path) -> None:
    lesson = LESSON.replace("import halves", "import STEPS, half, halves")
    parts = "\n\nSTEPS = [2.0]\n\n\ndef half(number):\n    return number / STEPS[0]\n"
    course = write_course(tmp_path, lesson, SOLUTIONS + parts)
    build(course)
    text = _code_and_text(course.release("tiny"))
    assert (
        "STEPS = [2.0]\n\n\ndef half(number):\n    # YOUR CODE HERE\n    raise NotImplementedError()" in text
    )
    assert "number / STEPS" not in text
    assert text.count("raise NotImplementedError()") == 4


def test_the_tiny_course_is_whole() -> None:
    """The cases above rest on it."""
    assert LESSON.count("from solutions.tiny import") == 4
    assert "secret" in SOLUTIONS
