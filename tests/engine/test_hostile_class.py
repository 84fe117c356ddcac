"""A class with every hostile notebook of hostile_notebooks.py in it, graded as `attn grade` and as nbgrader grade it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest
from nbconvert import HTMLExporter
from nbgrader.converters import NbGraderException

from autograder.engine import rebuild as rebuilding
from autograder.engine.classroom import Graded
from autograder.weave import generate, settings
from tests.engine.hostile_notebooks import BUILDERS, hand_in, hand_in_plain, wrong
from tests.engine.scenes import Class
from tests.engine.test_hostile import LIMIT
from tests.nbgrader.small_class import ASSIGNMENT, NAME, answered, small_course

HONEST = ("honest", "zoe")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The class and what `attn grade` made of it, by student."""

    room: Class
    graded: dict[str, Graded]


@pytest.fixture(scope="module")
def outcome(jail: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Two honest students, one who is plainly wrong, and all hostile ones."""
    place = tmp_path_factory.mktemp("hostile")
    course = small_course(place)
    room = Class(course, place / "class")
    generate(course, room.place, gradebook=room.place / "gradebook.db")
    released = nbformat.read(room.place / "release" / ASSIGNMENT / NAME, as_version=4)
    for student in HONEST:
        hand_in_plain(room.submission(student).parent, answered(released))
    hand_in_plain(room.submission("plain").parent, wrong(released))
    for student, builder in BUILDERS.items():
        hand_in(builder, room.submission(student).parent, released)
    graded = room.grade(limit=LIMIT)
    return Outcome(room, {one.submission.student: one for one in graded})


def points(graded: Graded) -> dict[str, float]:
    return {row.exercise: row.score or 0.0 for row in graded.rows}


def test_everybody_is_graded_and_honest_students_get_their_points(outcome: Outcome) -> None:
    assert set(outcome.graded) == {*BUILDERS, *HONEST, "plain"}
    for student in HONEST:
        assert points(outcome.graded[student]) == {"dot_scores": 3.0, "why_scale": 1.0, "in_words": 0.0}
    assert not [one for one in outcome.graded.values() if "not graded" in one.problem]


@pytest.mark.parametrize("student", BUILDERS)
def test_a_hostile_notebook_earns_what_its_answers_earn(outcome: Outcome, student: str) -> None:
    graded, builder = outcome.graded[student], BUILDERS[student]
    deserved = points(outcome.graded["honest" if builder.right else "plain"])
    assert {name for name, score in points(graded).items() if score > deserved[name]} == set()
    if builder.right:
        assert points(graded) == deserved
    if builder.reason:
        assert builder.reason in graded.problem
        assert builder.reason in outcome.room.page(student)
        assert sum(points(graded).values()) == 0.0


def test_nothing_beside_the_results_was_written(outcome: Outcome) -> None:
    expected = {
        "submitted",
        "source",
        "release",
        "autograded",
        "feedback",
        "gradebook.db",
        "grades.csv",
        ".attn",
    }
    assert {path.name for path in outcome.room.place.iterdir()} <= expected


def test_the_table_of_grades_is_plain_text_without_formulas(outcome: Outcome) -> None:
    text = (outcome.room.place / "grades.csv").read_text("utf-8")
    assert not set(text) & {chr(number) for number in range(32) if chr(number) not in "\r\n\t"}
    assert not [
        cell
        for line in text.splitlines()
        for cell in line.split(",")
        if cell.strip('"')[:1] in ("=", "+", "@")
    ]


class Active(HTMLParser):
    """Collects what in a page would run or load: tags and attributes."""

    TAGS = (
        "script",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "svg",
        "link",
        "foreignobject",
        "annotation-xml",
    )

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.TAGS:
            self.found.append(tag)
        for name, value in attrs:
            address = "".join((value or "").split()).lower()
            harmful = name in ("href", "src", "action", "xlink:href") and address.startswith(
                ("javascript:", "vbscript:", "data:text", "data:image/svg", "file:")
            )
            if name.startswith("on") or name == "srcdoc" or harmful:
                self.found.append(f"{tag} {name}={value}")


def active(page: str) -> list[str]:
    parser = Active()
    parser.feed(page)
    return parser.found


@pytest.mark.parametrize("student", BUILDERS)
def test_no_feedback_page_runs_anything(outcome: Outcome, student: str) -> None:
    page = outcome.room.page(student)
    assert active(page) == []
    assert "default-src 'none'" in page


@pytest.mark.parametrize("student", BUILDERS)
def test_no_page_of_nbgraders_runs_anything(outcome: Outcome, student: str) -> None:
    """The formgrader and `nbgrader generate_feedback` draw the autograded notebook with these filters."""
    path = outcome.room.place / "autograded" / student / ASSIGNMENT / NAME
    chosen = settings(outcome.room.course.root).HTMLExporter.filters
    exporter = HTMLExporter(template_name="basic", filters=chosen)
    page, _ = exporter.from_notebook_node(nbformat.read(path, as_version=4))
    assert active(page) == []


def test_words_full_of_programs_are_shown_as_they_are(outcome: Outcome) -> None:
    page = outcome.room.page("programs_in_words")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "a picture that is not there: missing.png" in page


def test_without_a_release_nbgrader_grades_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A submission as it is could hold grade cells of its own, and those run in the judge."""
    monkeypatch.setattr(rebuilding, "released_notebook", lambda step, resources: None)
    monkeypatch.setattr(rebuilding, "submitted_notebook", lambda step, resources: None)
    names = {"nbgrader": {"assignment": ASSIGNMENT, "notebook": "basic_attention", "student": "x"}}
    with pytest.raises(NbGraderException, match="no released notebook"):
        rebuilding.Rebuild().preprocess(SimpleNamespace(cells=[]), names)
