"""`attn regrade` replays a submission with the seed on record; `attn grade` says what it did without a sandbox."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbgrader.api import Gradebook

from autograder.cli import main
from autograder.engine.isolation import Isolation
from autograder.engine.store import Store
from autograder.weave import Course
from tests.engine.scenes import JAIL, WRONG, Class, results, sandbox, small_class, standing
from tests.nbgrader.small_class import ASSIGNMENT, NAME

Attn = Callable[..., tuple[object, str, str]]
STUDENTS = 4  # wrong, raising, without its solution cell, wrong


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> Class:
    made = small_class(tmp_path_factory.mktemp("regrade"), STUDENTS)
    made.grade()
    return made


@pytest.fixture
def class_(graded: Class, tmp_path: Path) -> Class:
    return graded.copy(tmp_path / "class")


@pytest.fixture
def attn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, graded: Class, tmp_path: Path
) -> Attn:
    def find_course(root: Path | None = None) -> Course:
        return graded.course

    monkeypatch.setattr("autograder.weave.find_course", find_course)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def regrade(attn: Attn, place: Path, student: str, *more: str) -> tuple[object, str, str]:
    return attn("regrade", student, ASSIGNMENT, "--dir", place, *sandbox(), *more)


def change(path: Path, source: str) -> None:
    notebook = nbformat.read(path, as_version=4)
    next(cell for cell in notebook.cells if cell.id == "dot_scores").source = source
    nbformat.write(notebook, path)


def test_a_regrade_replays_the_seed_and_shows_the_same_verdicts(attn: Attn, class_: Class) -> None:
    stored = Store(class_.place).find("s00", ASSIGNMENT)
    assert stored is not None
    code, out, err = regrade(attn, class_.place, "s00")
    assert (code, err) == (0, "")
    assert f"seed {stored.seed}: 2 of 2 exercises have the verdicts on record." in out
    assert f"seed {stored.seed})" in out, "in the report of dot_scores"
    assert "dot_scores: not yet" in out


def test_a_regrade_writes_nothing(attn: Attn, class_: Class) -> None:
    before = {path: path.stat().st_mtime_ns for path in class_.place.rglob("*")}
    assert regrade(attn, class_.place, "s00")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in class_.place.rglob("*")} == before


def test_a_submission_that_was_changed_is_told_and_ends_in_1(attn: Attn, class_: Class) -> None:
    change(class_.submission("s00"), WRONG.replace("/ 2", "/ 4"))
    code, out, _ = regrade(attn, class_.place, "s00")
    assert code == 1
    assert "1 of 2 exercises have the verdicts on record" in out
    assert "The submission has changed since it was graded: dot_scores." in out


def test_a_change_that_changes_no_verdict_is_told_too(attn: Attn, class_: Class) -> None:
    change(class_.submission("s00"), f"{WRONG}  # a remark")
    code, out, _ = regrade(attn, class_.place, "s00")
    assert code == 1
    assert "2 of 2 exercises have the verdicts on record" in out
    assert "The submission has changed since it was graded: dot_scores." in out


def test_a_broken_submission_can_be_regraded_too(attn: Attn, class_: Class) -> None:
    code, out, _ = regrade(attn, class_.place, "s01")
    assert code == 0
    assert "1 of 1 exercises have the verdicts on record" in out


ERRORS = [
    (("nobody", ASSIGNMENT), "no submission of nobody for 01_basic_attention; expected submitted/nobody"),
    (("s00", "02_other"), "no submission of s00 for 02_other"),
]


@pytest.mark.parametrize(("whom", "said"), ERRORS)
def test_what_is_not_there_is_one_line_and_2(
    attn: Attn, class_: Class, whom: tuple[str, str], said: str
) -> None:
    code, out, err = attn("regrade", *whom, "--dir", class_.place)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_what_has_not_been_graded_is_one_line_and_2(attn: Attn, class_: Class) -> None:
    shutil.rmtree(class_.place / ".attn")
    code, _, err = regrade(attn, class_.place, "s00")
    assert code == 2
    assert f"s00/{ASSIGNMENT} has not been graded yet; run: attn grade {class_.place}" in err


def test_what_cannot_be_read_any_more_is_one_line_and_2(attn: Attn, class_: Class) -> None:
    class_.submission("s00").write_text("{")
    code, _, err = regrade(attn, class_.place, "s00")
    assert code == 2
    assert "is broken JSON" in err


# Without a sandbox


@pytest.mark.parametrize("command", ["grade", "regrade"])
def test_a_machine_without_a_jail_refuses_in_one_line(
    attn: Attn, class_: Class, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr("autograder.engine.isolation.isolation", lambda: Isolation("unshare: no"))
    before = results(class_.place)
    what = (
        ("grade", class_.place)
        if command == "grade"
        else ("regrade", "s00", ASSIGNMENT, "--dir", class_.place)
    )
    code, out, err = attn(*what)
    assert (code, out) == (2, "")
    assert err.startswith("attn: this machine offers no jail for student code (unshare: no).")
    assert "--no-sandbox" in err
    assert err.count("\n") == 1
    assert results(class_.place) == before


def test_without_a_sandbox_every_report_says_so(
    attn: Attn, class_: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autograder.engine.isolation.isolation", lambda: Isolation("unshare: no"))
    before = standing(class_.place)
    code, _, _ = attn("grade", class_.place, "--no-sandbox", "--workers", 1)
    assert code == 0
    for student in class_.students:
        path = class_.place / "autograded" / student / ASSIGNMENT / NAME
        reports = [
            output.data["text/plain"]
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", ())
            if "attn-report" in output.get("data", {}).get("text/html", "")
        ]
        assert reports
        assert all("Graded without a sandbox" in report for report in reports)
        assert class_.page(student).count("Graded without a sandbox") == len(reports)
    assert {name: one[0] for name, one in standing(class_.place).items()} == {
        name: one[0] for name, one in before.items()
    }, "the points are the same"


def test_a_course_may_turn_the_sandbox_off_and_reports_say_so(class_: Class) -> None:
    class_.grade(jail=False)
    assert "Graded without a sandbox" in class_.page("s00")


@pytest.mark.skipif(not JAIL, reason="no jail here")
def test_with_a_sandbox_no_report_says_so(class_: Class) -> None:
    assert "without a sandbox" not in class_.page("s00")


# Grading again


def test_a_second_run_grades_nothing_again_and_changes_nothing(class_: Class) -> None:
    before = results(class_.place)
    again = class_.grade()
    assert not any(one.fresh for one in again)
    assert results(class_.place) == before


def test_a_changed_submission_is_graded_again_and_no_other(class_: Class) -> None:
    change(class_.submission("s01"), "def dot_scores(query, key):\n    return query @ key.transpose(-2, -1)")
    again = class_.grade()
    assert [one.submission.student for one in again if one.fresh] == ["s01"]
    assert standing(class_.place)["s01"][0] == 4.0


def test_a_mended_grader_grades_everybody_again(class_: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.engine.store._grader", lambda: "another one")
    assert all(one.fresh for one in class_.grade())


def test_a_gradebook_that_was_lost_is_filled_again_without_grading(class_: Class) -> None:
    from autograder.weave import generate

    before = results(class_.place)
    (class_.place / "gradebook.db").unlink()
    generate(class_.course, class_.place, gradebook=class_.place / "gradebook.db")
    again = class_.grade()
    assert not any(one.fresh for one in again)
    assert results(class_.place) == before


def test_a_mark_that_a_person_gave_reaches_csv_and_page(class_: Class) -> None:
    with Gradebook(f"sqlite:///{class_.place}/gradebook.db", "attention") as gradebook:
        gradebook.find_grade("in_words", "basic_attention", ASSIGNMENT, "s00").manual_score = 1.5
        gradebook.find_comment(
            "in_words", "basic_attention", ASSIGNMENT, "s00"
        ).manual_comment = "Nearly <all>."
        gradebook.db.commit()
    class_.grade()
    with (class_.place / "grades.csv").open(newline="") as file:
        row = next(
            row for row in csv.DictReader(file) if (row["student"], row["exercise"]) == ("s00", "in_words")
        )
    assert row["score"] == "1.5"
    assert "Nearly &lt;all&gt;." in class_.page("s00")
