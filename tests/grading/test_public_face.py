"""check, grade, hint and exercises: what notebooks out in the world rely on."""

from __future__ import annotations

import math
import re
import time
import warnings
from pathlib import Path

import pytest
import torch

import autograder
import solutions.basic_attention as reference
from autograder import Report, check, exercises, grade, hint, inputs
from autograder.case import CASES_PER_SEED, Layer
from autograder.exercises import IN_WORDS, Exercise, find
from autograder.grading import run
from autograder.verdict import Verdict


def wrong_attention(query, key, value, attn_mask=None, is_causal=False):
    return reference.attention(query * query.shape[-1] ** 0.5, key, value, attn_mask, is_causal)


def test_the_public_names_are_these() -> None:
    assert set(autograder.__all__) == {"Report", "check", "exercises", "grade", "hint", "inputs"}
    with pytest.raises(AttributeError, match="has no attribute 'chekc'"):
        _ = autograder.chekc


def test_exercises_are_listed_in_course_order() -> None:
    names = exercises()
    assert names[0] == "softmax"
    assert names.index("masked_softmax") < names.index("attention") < names.index("CrossAttention")
    assert len(set(names)) == len(names)


def test_a_right_answer_passes_with_all_points() -> None:
    report = check("attention", reference.attention)
    assert isinstance(report, Report)
    assert report.passed is True
    assert report.points == report.max_points == 10.0
    assert report.score == 1.0
    assert report.mistakes == ()


def test_a_wrong_answer_is_told_its_mistake_and_how_to_repeat_the_case() -> None:
    report = check("attention", wrong_attention, seed=17)
    assert report.passed is False
    assert 0 < report.points < report.max_points
    assert report.mistakes[0] == "not scaled"
    text = str(report)
    assert "attention: not yet" in text
    assert "seed 17" in text
    assert 'Run it again: check("attention", attention, case=17011)' in text.replace("\n", " ").replace(
        "  ", ""
    )
    assert "Likely cause: not scaled." in text
    assert "?" in text.split("Likely cause: not scaled.")[1]


def test_the_tensors_of_a_case_can_be_had() -> None:
    failed = next(v for v in check("attention", wrong_attention, seed=17).verdicts if v.status == "failed")
    assert failed.case is not None
    assert failed.case_number is not None
    assert f'inputs("attention", {failed.case_number})' in failed.case
    given = inputs("attention", failed.case_number)
    assert f"query {tuple(given['query'].shape)} " in failed.case
    again = inputs("attention", failed.case_number)
    assert torch.equal(given["query"], again["query"])
    output, _ = reference.attention(**given)
    assert output.shape[-2] == given["query"].shape[-2]


def test_the_tensors_of_a_class_come_with_its_constructor_arguments() -> None:
    given = inputs("CrossAttention", 3 * CASES_PER_SEED)
    init = given.pop("init")
    output, _ = reference.CrossAttention(*init.values())(**given)
    assert output.shape == given["x"].shape


def test_a_question_has_no_tensors_and_neither_has_a_case_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="score_variance is a question"):
        inputs("score_variance", 300)
    with pytest.raises(ValueError, match="case=3999 does not exist"):
        inputs("attention", 3999)


def test_every_case_of_every_exercise_can_be_had() -> None:
    for name in exercises():
        exercise = find(name)
        space = exercise.situations if isinstance(exercise, Exercise) else None
        written = len(exercise.recipes) if isinstance(exercise, Exercise) else 0
        for place in range(written + (space.places if space is not None else 0)):
            given = inputs(name, 3 * CASES_PER_SEED + place)
            assert not [one for one in given.values() if isinstance(one, Layer)], name


def test_checks_run_in_one_thread_and_leave_the_number_as_it_was() -> None:
    seen: list[int] = []

    def softmax(scores: torch.Tensor, dim: int = -1) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return torch.softmax(scores, dim)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        check("softmax", softmax, seed=3)
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_what_a_ready_made_function_did_does_not_count() -> None:
    def attention(query, key, value, attn_mask=None, is_causal=False):
        output, weights = reference.attention(query, key, value, attn_mask, is_causal)
        ready = torch.nn.functional.scaled_dot_product_attention(query, key, value) * 0
        return output + torch.nan_to_num(ready), weights

    report = check("attention", attention, seed=3)
    assert [one.check for one in report.verdicts if one.status == "failed"] == ["own work"]
    first, *others = report.verdicts
    assert report.points == first.points
    assert {one.message for one in others if one.status == "skipped"} == {'counts once "own work" passes.'}


def test_a_case_number_repeats_the_same_numbers() -> None:
    failed = next(v for v in check("attention", wrong_attention, seed=17).verdicts if v.status == "failed")
    again = check("attention", wrong_attention, case=failed.case_number)
    same = next(v for v in again.verdicts if v.check == failed.check)
    assert same.message == failed.message
    assert again.seed == 17
    assert len(again.verdicts) < len(check("attention", wrong_attention, seed=17).verdicts)


def test_a_seed_repeats_a_whole_run_and_no_seed_draws_a_fresh_one() -> None:
    one, two = (check("attention", wrong_attention, seed=5).to_dict() for _ in range(2))
    assert one == two
    assert len({check("dot_scores", reference.dot_scores).seed for _ in range(8)}) > 1


def test_unknown_names_and_cases_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"no exercise 'atention'\. Did you mean 'attention'"):
        check("atention", reference.attention)
    with pytest.raises(ValueError, match="last three digits must be below"):
        check("attention", reference.attention, case=17 * CASES_PER_SEED + 999)
    with pytest.raises(ValueError, match="belongs to seed 17, not to seed=3"):
        check("attention", reference.attention, case=17000, seed=3)
    for wrong in (-1, "x", 1.5, True):
        with pytest.raises(ValueError, match=f"seed={wrong!r}: a seed is a whole number from 0"):
            check("attention", reference.attention, seed=wrong)
        with pytest.raises(ValueError, match=f"case={wrong!r}: a case is a whole number from 0"):
            check("attention", reference.attention, case=wrong)
    with pytest.raises(ValueError, match="why_scale is a question and has no cases"):
        check("why_scale", "a", case=1700)


def test_an_unknown_name_is_answered_with_a_few_and_with_the_way_to_all() -> None:
    with pytest.raises(ValueError, match="no exercise 'atention'") as refused:
        check("atention", reference.attention)
    assert "autograder.exercises() lists them all" in str(refused.value)
    assert len(str(refused.value)) < 250


def test_questions_in_words_are_known_as_what_they_are() -> None:
    lessons = (Path(__file__).parents[2] / "course/lessons").glob("*.md")
    held = {
        name: lesson.stem
        for lesson in lessons
        for name in re.findall(r'"answer": "(\w+)"', lesson.read_text(encoding="utf-8"))
    }
    assert held == dict(IN_WORDS)
    with pytest.raises(
        ValueError, match=r"answered in words, for a person .* course/lessons/gpu_kernels\.md"
    ):
        hint("explain_flash_attention")


def test_points_stand_in_one_column_however_long_they_are() -> None:
    verdicts = [Verdict("one", "claim", "passed", p, p) for p in (1.0, 0.25)]
    wrong = Verdict("two", "claim", "failed", 0.0, 0.25, "the message")
    short, long, _, message = str(Report("softmax", 1, (*verdicts, wrong))).splitlines()[1:]
    assert short.index("one") == long.index("one") == message.index("the message") + 2


def test_grade_returns_a_plain_finite_float_and_prints_the_report(capsys: pytest.CaptureFixture[str]) -> None:
    points = grade("attention", wrong_attention, seed=17)
    captured = capsys.readouterr()
    assert type(points) is float
    assert math.isfinite(points)
    assert points == check("attention", wrong_attention, seed=17).points
    assert "not scaled" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("nothing", [None, ..., 3, "a", [], torch.zeros(2), object()])
@pytest.mark.parametrize("name", ["attention", "SelfAttention", "dot_product_cost", "attention_flops"])
def test_nonsense_earns_nothing_and_breaks_nothing(name: str, nothing: object) -> None:
    if (name, nothing) == ("dot_product_cost", "a"):
        nothing = "z"
    report = check(name, nothing)
    assert report.points == 0.0
    assert not report.passed
    assert report.max_points > 0


def test_what_student_code_prints_and_warns_stays_out_of_the_grade_cell(
    capfd: pytest.CaptureFixture[str],
) -> None:
    def noisy(query, key):
        print("hello from the student")
        warnings.warn("beware", stacklevel=1)
        return reference.dot_scores(query, key)

    report = check("dot_scores", noisy)
    captured = capfd.readouterr()
    assert report.passed
    assert captured.err == ""
    assert captured.out == ""
    assert "hello from the student" in str(report)
    assert len(report.printed) < 600


def test_a_stub_is_told_to_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    def stub(query, key):
        raise NotImplementedError

    report = check("dot_scores", stub)
    assert report.points == 0
    assert "is not written yet" in str(report)
    assert [v.status for v in report.verdicts].count("errored") == 1


def test_a_solution_that_never_ends_is_cut_off_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SECONDS_PER_CHECK", 0.2)

    def endless(query, key):
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    report = check("dot_scores", endless)
    assert report.points == 0
    assert "never finishes" in report.mistakes
    assert [v.status for v in report.verdicts].count("errored") == 1


def test_sys_exit_in_student_code_is_a_failed_check() -> None:
    def leaves(query, key):
        raise SystemExit(0)

    report = check("dot_scores", leaves)
    assert report.points == 0
    assert "raised SystemExit" in str(report)


def test_a_report_survives_the_trip_through_json() -> None:
    report = check("attention", wrong_attention, seed=17)
    assert Report.from_dict(report.to_dict()) == report
    assert report.to_dict()["mistakes"] == list(report.mistakes)


def test_html_escapes_whatever_the_student_wrote() -> None:
    def hostile(query, key):
        raise RuntimeError("<script>alert(1)</script>")

    page = check("dot_scores", hostile)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_hints_go_from_nudge_to_near_answer_and_begin_again() -> None:
    shown = [hint("attention") for _ in range(4)]
    assert [text.split(":")[0] for text in shown[:3]] == [f"attention, hint {n} of 3" for n in (1, 2, 3)]
    first = shown[0].removeprefix("attention, hint 1 of 3: ")
    assert shown[3] == f"attention, hint 1 of 3: these were all 3 hints, so here is the first again. {first}"
    assert len(set(shown[:3])) == 3
    with pytest.raises(ValueError, match="no exercise"):
        hint("nothing")


@pytest.mark.parametrize("name", exercises())
def test_every_exercise_has_three_different_hints(name: str) -> None:
    hints = autograder.exercises.find(name).hints
    assert len(set(hints)) == 3
    assert all(len(text) > 20 for text in hints)
