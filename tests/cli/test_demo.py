"""The made-up class, end to end: made, graded, explained. One slow run, looked at from many sides."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from autograder.cli import main
from autograder.cli.demo import CLASS
from autograder.cli.demo.handing_in import WORK, definitions
from autograder.weave import find_course

COLUMNS = ["student", "assignment", "exercise", "score", "points", "mistakes", "reason"]


class Demo:
    """The folder, what was printed, and the rows of grades.csv."""

    def __init__(self, place: Path, printed: str, code: object):
        self.place, self.printed, self.code = place, printed, code
        with (place / "grades.csv").open(newline="", encoding="utf-8") as file:
            self.header, *values = list(csv.reader(file))
        self.rows = {(row[0], row[2]): dict(zip(COLUMNS, row, strict=True)) for row in values}

    def score(self, student: str, exercise: str) -> float:
        return float(self.rows[student, exercise]["score"])

    def full(self, student: str, exercise: str) -> bool:
        row = self.rows[student, exercise]
        return row["score"] == row["points"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    import contextlib
    import io

    place = tmp_path_factory.mktemp("demo")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
        main(["demo", str(place)])
    return Demo(place, printed.getvalue(), end.value.code)


WORDS = {
    "basic_attention": ["what_is_attention"],
    "shared_attention": ["what_is_shared_attention"],
    "multi_head_attention": ["what_are_heads"],
    "text_generation": ["how_to_generate"],
    "efficient_attention": ["why_flash_is_faster", "attention_for_long_texts"],
    "gpu_kernels": ["explain_flash_attention"],
}
NAMED = {student.name: student for student in CLASS}


def exercises(student: str) -> list[str]:
    """All exercises that a student hands in, but those that are answered in words."""
    course = find_course().assignments
    return [name for stem in course if NAMED[student].hands_in(stem) for name in course[stem]]


def test_the_demo_succeeds_though_half_the_class_is_broken(demo: Demo) -> None:
    assert demo.code == 0


def test_every_student_has_a_row_for_every_exercise_in_the_agreed_columns(demo: Demo) -> None:
    assert demo.header == COLUMNS
    words = [word for words in WORDS.values() for word in words]
    wanted = {(student.name, name) for student in CLASS for name in [*exercises("ada"), *words]}
    assert set(demo.rows) == wanted


@pytest.mark.parametrize("student", ["ada", "bruno", "chidi"])
def test_right_solutions_in_every_writing_earn_full_marks(demo: Demo, student: str) -> None:
    lost = [name for name in exercises(student) if not demo.full(student, name)]
    assert lost == []


MISTAKES = [
    ("dana", "attention", "not scaled"),
    ("dana", "scaled_dot_scores", "not scaled"),
    ("emil", "attention", "softmax over the queries"),
    ("emil", "masked_softmax", "mask applied after the softmax"),
    ("farah", "masked_softmax", "mask turned round"),
    ("farah", "attention", "mask turned round"),
    ("farah", "softmax", "overflows"),
    ("goran", "AdditiveScores", "no tanh"),
    ("goran", "SelfAttention", "never applied"),
    ("goran", "CrossAttention", "out_proj never applied"),
    ("dana", "grouped_query_attention", "not scaled"),
    ("dana", "multi_head_attention", "divided by the root of the whole width"),
    ("dana", "perplexity", "exp is missing"),
    ("emil", "grouped_query_attention", "heads tiled instead of interleaved"),
    ("emil", "merge_heads", "heads merged by a reshape alone"),
    ("emil", "causal_mask", "aligned at the top left"),
    ("goran", "SymmetricAttention", "out_proj never applied"),
    ("goran", "SharedLayerStack", "a copy of the layer for each depth"),
    ("goran", "KVCache", "keys has the wrong shape"),
    ("ivan", "attention", "keys not transposed"),
    ("emil", "chunked_attention", "earlier blocks not rescaled"),
    ("dana", "flash_forward", "the accumulator is not rescaled"),
]


@pytest.mark.parametrize(("student", "exercise", "mistake"), MISTAKES)
def test_a_typical_mistake_is_named(demo: Demo, student: str, exercise: str, mistake: str) -> None:
    assert mistake in demo.rows[student, exercise]["mistakes"]
    assert not demo.full(student, exercise)
    assert mistake in " ".join(demo.rows[student, exercise]["mistakes"].split(";"))


REASONS = [
    ("hana", "attention", "is not written yet"),
    ("hana", "why_scale", "no answer yet"),
    ("hana", "what_is_attention", "no answer"),
    ("jade", "attention", "the solution cell failed: SyntaxError"),
    ("lena", "masked_softmax", "the solution cell was deleted"),
    ("mira", "softmax", "is broken JSON"),
    ("dana", "softmax_rows", "the process ended: a segmentation fault"),
    ("emil", "softmax_rows", "nothing was handed in"),
]


@pytest.mark.parametrize(("student", "exercise", "reason"), REASONS)
def test_what_could_not_be_graded_says_why(demo: Demo, student: str, exercise: str, reason: str) -> None:
    assert reason in demo.rows[student, exercise]["reason"]
    assert demo.score(student, exercise) == 0.0


def test_a_loop_without_end_costs_its_own_exercise_only(demo: Demo) -> None:
    assert not demo.full("kofi", "cosine_scores")
    lost = [name for name in exercises("kofi") if name != "cosine_scores" and not demo.full("kofi", name)]
    assert lost == []


def test_a_kernel_that_crashes_costs_its_own_exercise_only(demo: Demo) -> None:
    """dana's flash_attention holds a wrong flash_forward of her own, which only several tiles show."""
    assert demo.full("dana", "flash_backward")
    assert demo.score("dana", "flash_attention") > 6


def test_every_student_has_a_feedback_page(demo: Demo) -> None:
    course = find_course()
    for student in CLASS:
        for stem in filter(student.hands_in, course.stems):
            page = demo.place / "feedback" / student.name / course.relative(stem).with_suffix(".html")
            text = page.read_text(encoding="utf-8")
            if student.cut < 1:
                assert text.count("broken JSON") == 1
                assert "was deleted" not in text
            else:
                assert len(text) > 10_000


def test_the_table_and_the_places_of_the_results_are_printed(demo: Demo) -> None:
    for student in CLASS:
        assert student.name in demo.printed
    assert "not scaled" in demo.printed
    assert str(demo.place / "grades.csv") in demo.printed
    assert str(demo.place / "feedback") in demo.printed
    assert "need a person" in demo.printed
    assert "A class of 13 made-up students, 67 notebooks; 2 of them hand in gpu_kernels:" in demo.printed


def test_every_piece_of_the_students_work_answers_an_exercise() -> None:
    used = {student.work for student in CLASS if student.work}
    assert used == {path.stem for path in WORK.glob("*.py")} - {"__init__"}
    for work in used:
        assert set(definitions(work)) <= set(exercises("ada"))
