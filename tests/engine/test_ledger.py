"""The gradebook: nbgrader's own entries, one transaction a submission, and a person's marks are sacred."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode
from nbgrader.api import Gradebook, MissingEntry
from sqlalchemy import event
from traitlets.config import Config

from autograder.engine import ledger as module
from autograder.engine.ledger import Ledger, LedgerError, gradebook_url
from autograder.engine.settle import refusal
from autograder.weave import generate, settings
from tests.engine.scenes import Standing, standing
from tests.nbgrader.small_class import ASSIGNMENT, NAME, ROOT, answered, small_course

STEM = "basic_attention"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A released assignment in a fresh gradebook."""
    place = tmp_path_factory.mktemp("ledger")
    generate(small_course(place), place / "class", gradebook=place / "class" / "gradebook.db")
    return place / "class"


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "class")


@pytest.fixture
def ledger(place: Path) -> Iterator[Ledger]:
    ledger = Ledger(gradebook_url(Config(), place), "attention", Config())
    yield ledger
    ledger.close()


def graded(place: Path, points: float = 2.5, letter: float = 1.0, **sources: str) -> NotebookNode:
    """A notebook whose grade cells show these points."""
    released = nbformat.read(place / "release" / ASSIGNMENT / NAME, as_version=4)
    notebook = answered(released, **sources)
    for cell in notebook.cells:
        shown = {"check-dot_scores": points, "check-why_scale": letter}.get(cell.id)
        if shown is not None:
            result = nbformat.v4.new_output("execute_result", {"text/plain": repr(shown)})
            cell.outputs = [refusal("no such thing") if shown < 0 else result]
    return notebook


def enter(ledger: Ledger, place: Path, student: str, notebook: NotebookNode, stamp: str = "") -> None:
    folder = place / "submitted" / student
    folder.mkdir(parents=True, exist_ok=True)
    if stamp:
        (folder / "timestamp.txt").write_text(stamp)
    ledger.enter(student, ASSIGNMENT, STEM, notebook, folder)


def test_marks_are_what_the_grade_cells_show(ledger: Ledger, place: Path) -> None:
    enter(ledger, place, "ada", graded(place))
    entry = ledger.read("ada", ASSIGNMENT, STEM)
    assert (entry.score, entry.max_score, entry.late_penalty) == (3.5, 6.0, 0.0)
    assert (entry.marks["check-dot_scores"].score, entry.marks["check-dot_scores"].max_score) == (2.5, 3.0)
    assert (entry.marks["in_words"].waits, entry.marks["check-dot_scores"].waits) == (True, False)


def test_an_error_is_worth_nothing_and_an_unchanged_answer_needs_nobody(ledger: Ledger, place: Path) -> None:
    released = nbformat.read(place / "release" / ASSIGNMENT / NAME, as_version=4)
    blank = next(cell.source for cell in released.cells if cell.id == "in_words")
    enter(ledger, place, "ada", graded(place, points=-1, in_words=blank))
    marks = ledger.read("ada", ASSIGNMENT, STEM).marks
    assert (marks["check-dot_scores"].score, marks["check-dot_scores"].waits) == (0.0, False)
    assert (marks["in_words"].score, marks["in_words"].waits) == (0.0, False)
    assert marks["in_words"].comment == "No response."


def test_a_second_entry_replaces_the_first(ledger: Ledger, place: Path) -> None:
    enter(ledger, place, "ada", graded(place, points=1.0))
    enter(ledger, place, "ada", graded(place, points=2.0))
    assert ledger.read("ada", ASSIGNMENT, STEM).score == 3.0
    assert list(standing(place)) == ["ada"]


def test_a_cell_that_is_gone_is_worth_nothing(ledger: Ledger, place: Path) -> None:
    notebook = graded(place)
    notebook.cells = [cell for cell in notebook.cells if cell.id != "check-dot_scores"]
    enter(ledger, place, "ada", notebook)
    assert ledger.read("ada", ASSIGNMENT, STEM).marks["check-dot_scores"].score == 0.0


def test_a_persons_mark_stays_and_is_flagged_for_another_look(ledger: Ledger, place: Path) -> None:
    enter(ledger, place, "ada", graded(place))
    with Gradebook(gradebook_url(Config(), place), "attention") as gradebook:
        gradebook.find_grade("in_words", STEM, ASSIGNMENT, "ada").manual_score = 1.5
        gradebook.find_comment("in_words", STEM, ASSIGNMENT, "ada").manual_comment = "Nearly."
        gradebook.db.commit()
    ledger.gradebook.db.expire_all()
    enter(ledger, place, "ada", graded(place, points=1.0))
    mark = ledger.read("ada", ASSIGNMENT, STEM).marks["in_words"]
    assert (mark.score, mark.by_hand, mark.waits, mark.comment) == (1.5, True, False, "Nearly.")
    with Gradebook(gradebook_url(Config(), place), "attention") as gradebook:
        assert gradebook.find_grade("in_words", STEM, ASSIGNMENT, "ada").needs_manual_grade


def test_what_has_not_been_entered_is_missing(ledger: Ledger) -> None:
    with pytest.raises(MissingEntry):
        ledger.read("nobody", ASSIGNMENT, STEM)


def test_an_entry_that_fails_on_the_way_leaves_nothing(
    ledger: Ledger, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(ledger, place, "ada", graded(place))
    before = standing(place)

    def fail(*args: object) -> None:
        raise RuntimeError("in the middle")

    monkeypatch.setattr(ledger, "_penalise", fail)
    for student in ("ada", "bob"):
        with pytest.raises(RuntimeError, match="in the middle"):
            enter(ledger, place, student, graded(place, points=0.0))
    assert standing(place) == before


# Lateness


def due(place: Path, when: str) -> None:
    with Gradebook(gradebook_url(Config(), place), "attention") as gradebook:
        gradebook.update_or_create_assignment(ASSIGNMENT, duedate=when)


LATE = "2030-01-02 12:00:00 UTC"


def zero(place: Path) -> Config:
    return Config({"LateSubmissionPlugin": {"penalty_method": "zero"}})


def test_a_late_submission_loses_what_the_course_says(place: Path) -> None:
    due(place, "2030-01-01 12:00:00 UTC")
    ledger = Ledger(gradebook_url(Config(), place), "attention", zero(place))
    enter(ledger, place, "late", graded(place), LATE)
    enter(ledger, place, "early", graded(place), "2029-12-31 12:00:00 UTC")
    enter(ledger, place, "unstamped", graded(place))
    enter(ledger, place, "scribbled", graded(place), "yesterday, I think")
    lost = {
        one: ledger.read(one, ASSIGNMENT, STEM).late_penalty
        for one in ("late", "early", "unstamped", "scribbled")
    }
    ledger.close()
    assert lost == {"late": 3.5, "early": 0.0, "unstamped": 0.0, "scribbled": 0.0}


def test_a_stamp_that_is_corrected_takes_the_penalty_back(place: Path) -> None:
    due(place, "2030-01-01 12:00:00 UTC")
    ledger = Ledger(gradebook_url(Config(), place), "attention", zero(place))
    enter(ledger, place, "ada", graded(place), LATE)
    assert ledger.read("ada", ASSIGNMENT, STEM).late_penalty == 3.5
    enter(ledger, place, "ada", graded(place), "2029-12-31 12:00:00 UTC")
    assert ledger.read("ada", ASSIGNMENT, STEM).late_penalty == 0.0
    ledger.close()


# The same as nbgrader's own


def test_entries_equal_those_of_nbgraders_own_preprocessors(place: Path, tmp_path: Path) -> None:
    """SaveAutoGrades and AssignLatePenalties, fed the same notebooks, leave the same gradebook behind."""
    from nbgrader.preprocessors import AssignLatePenalties, SaveAutoGrades

    due(place, "2030-01-01 12:00:00 UTC")
    theirs = shutil.copytree(place, tmp_path / "theirs")
    kinds: dict[str, tuple[NotebookNode, str]] = {
        "right": (graded(place, 3.0), ""),
        "partial": (graded(place, 0.75, 0.0), LATE),
        "failed": (graded(place, -1, -1), ""),
        "blank": (graded(place, in_words="YOUR ANSWER HERE"), ""),
    }
    ledger = Ledger(gradebook_url(Config(), place), "attention", zero(place))
    for student, (notebook, stamp) in kinds.items():
        enter(ledger, place, student, notebook, stamp)
    ledger.close()
    url = gradebook_url(Config(), theirs)
    for student, (notebook, stamp) in kinds.items():
        with Gradebook(url, "attention") as gradebook:
            gradebook.update_or_create_student(student)
            gradebook.update_or_create_submission(
                ASSIGNMENT, student, timestamp=module._parsed(stamp) if stamp else None
            )
        names = {"assignment": ASSIGNMENT, "notebook": STEM, "student": student, "db_url": url}
        resources: dict[str, Any] = {"nbgrader": names}
        for step in (SaveAutoGrades(), AssignLatePenalties(config=zero(place))):
            step.preprocess(nbformat.from_dict(notebook), resources)
    assert standing(place) == standing(theirs)
    assert (
        penalties(place) == penalties(theirs) == {"right": 0.0, "partial": 0.75, "failed": 0.0, "blank": 0.0}
    )


def penalties(place: Path) -> dict[str, float]:
    with Gradebook(gradebook_url(Config(), place), "attention") as gradebook:
        submissions = gradebook.find_assignment(ASSIGNMENT).submissions
        return {one.student_id: float(one.late_submission_penalty) for one in submissions}


# Trouble


def test_the_gradebook_is_where_the_course_says(tmp_path: Path) -> None:
    named = Config({"CourseDirectory": {"db_url": "postgresql://host/grades"}})
    assert gradebook_url(named, tmp_path) == "postgresql://host/grades"
    assert gradebook_url(Config(), tmp_path).startswith(f"sqlite:///{tmp_path}/gradebook.db")


HOLD = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE course SET id = id")
print("locked", flush=True)
sys.stdin.readline()
connection.execute("COMMIT")
"""


def hold(path: Path) -> subprocess.Popen[str]:
    """Another program that has the gradebook locked, until it reads a line."""
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    return other


def test_a_gradebook_that_is_locked_for_a_moment_is_waited_for(ledger: Ledger, place: Path) -> None:
    enter(ledger, place, "ada", graded(place))
    other, written = hold(place / "gradebook.db"), []

    @event.listens_for(ledger.gradebook.engine, "before_cursor_execute")
    def let_go(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if statement.startswith("INSERT") and not written:  # the first that needs the lock
            written.append(statement)
            other.stdin.write("\n")  # type: ignore[union-attr]
            other.stdin.flush()  # type: ignore[union-attr]

    enter(ledger, place, "bob", graded(place, points=1.0))
    other.communicate()
    assert written
    assert {student: one[0] for student, one in standing(place).items()} == {"ada": 3.5, "bob": 2.0}


def test_a_gradebook_that_stays_locked_is_one_clear_line_and_loses_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    ledger = Ledger(gradebook_url(Config(), place), "attention", Config())
    enter(ledger, place, "ada", graded(place))
    before: Standing = standing(place)
    other = hold(place / "gradebook.db")
    with pytest.raises(
        LedgerError, match=r"gradebook\.db: the gradebook cannot be used \(database is locked\)"
    ) as said:
        enter(ledger, place, "bob", graded(place))
    assert "\n" not in str(said.value)
    other.communicate("\n")
    assert standing(place) == before
    enter(ledger, place, "bob", graded(place))
    assert set(standing(place)) == {"ada", "bob"}
    ledger.close()


def test_a_gradebook_that_is_none_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "gradebook.db").write_text("this is no database, whatever its name says " * 100)
    with pytest.raises(LedgerError, match="file is not a database"):
        Ledger(gradebook_url(Config(), tmp_path), "attention", Config())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_gradebook_that_may_not_be_written_is_one_clear_line(place: Path) -> None:
    (place / "gradebook.db").chmod(0o400)
    ledger = Ledger(gradebook_url(Config(), place), "attention", Config())
    with pytest.raises(LedgerError, match="readonly"):
        enter(ledger, place, "ada", graded(place))


def test_the_courses_own_settings_name_no_other_gradebook() -> None:
    config = settings(ROOT / "course")
    assert gradebook_url(config, Path("/somewhere")).startswith("sqlite:////somewhere/gradebook.db")
