"""`attn bench`: its figures are what their names say, and its command runs from end to end on the smallest class."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autograder.cli.bench.grading import Measured, _graded_at, _growth
from autograder.cli.bench.made_class import make
from autograder.cli.bench.picture import draw
from autograder.cli.bench.timing import BenchError, Run, watch

MEASURED = Measured(
    "basic_attention",
    students=40,
    stock_students=10,
    machine={"cores": 2},
    seconds={"stock": 80.0, "front": 32.0, "attn": 16.0, "stock_feedback": 5.0},
    floor_per_submission=0.25,
    engine_per_submission=0.5,
)


def test_ratios_compare_a_submission_with_a_submission() -> None:
    assert MEASURED.ratios() == {
        "speedup_vs_nbgrader": pytest.approx(20.0),
        "speedup_nbgrader_front": pytest.approx(10.0),
        "ratio_to_floor": pytest.approx(2.0),
    }
    assert MEASURED.to_dict()["speedup_vs_nbgrader"] == pytest.approx(20.0)
    assert json.loads(json.dumps(MEASURED.to_dict()))["students"] == 40


def test_growth_is_measured_between_the_first_and_the_last_submission() -> None:
    lines = [
        (0.5, "a note"),
        (4.0, "s000/01_basic_attention: 60.5"),
        (5.0, "s001/01_basic_attention: 3"),
        (9.0, "x: y"),
    ]
    run = Run(
        9.5,
        [*lines, (6.0, "s002/01_basic_attention: 0")],
        {"judge": [(1.0, 9 << 20), (4.5, 5 << 20), (6.0, 7 << 20)]},
    )
    assert _graded_at(run) == [4.0, 5.0, 6.0]
    found = _growth(3, run)
    assert found["seconds_per_submission"] == pytest.approx(1.0)
    assert (found["judge_early_mib"], found["judge_late_mib"]) == (5.0, 7.0)


def test_a_command_is_watched_to_its_end(tmp_path: Path) -> None:
    run = watch([sys.executable, "-c", "print('one'); print('two')"], tmp_path)
    assert [text for _, text in run.lines] == ["one", "two"]
    assert 0 < run.lines[0][0] <= run.lines[1][0] <= run.seconds
    with pytest.raises(BenchError, match=r"(?s)exited with 3.*why"):
        watch([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"], tmp_path)


@pytest.mark.parametrize("settings", ["stock", "course", None])
def test_a_made_class_is_what_the_command_expects(tmp_path: Path, settings: str | None) -> None:
    made = make(tmp_path, "basic_attention", 3, settings=settings)
    assert [path.parent.parent.name for path in made.notebooks] == ["s000", "s001", "s002"]
    assert (tmp_path / "gradebook.db").is_file()
    config = tmp_path / "nbgrader_config.py"
    assert config.is_file() is (settings is not None)
    if settings is not None:
        assert ("RunInJail" in config.read_text(encoding="utf-8")) is (settings == "course")


def test_a_picture_is_drawn(tmp_path: Path) -> None:
    growth = [
        {"students": 10.0, "seconds_per_submission": 0.3},
        {"students": 40.0, "seconds_per_submission": 0.31},
    ]
    for number, found in enumerate((MEASURED.to_dict(), {**MEASURED.to_dict(), "growth": growth})):
        draw(found, tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 5_000
