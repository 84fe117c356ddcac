"""`attn new`: files that work as they are, nothing written over, and a list of what is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from autograder.cli.errors import UserError
from autograder.cli.new import run_new
from autograder.grading import examine

STEM = "shared_attention"
SOLUTION = '''\
def halved_scores(query):
    """query (..., D) -> output (..., D)."""
    return query / 2
'''


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A project with one assignment, whose solution is there and whose lesson does not set it yet."""
    for folder in ("solutions", "course/lessons", f"autograder/exercises/{STEM}", f"tests/exercises/{STEM}"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "solutions" / f"{STEM}.py").write_text(SOLUTION)
    (tmp_path / "course/lessons" / f"{STEM}.md").write_text("no cell yet\n")
    return tmp_path


def loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("made_exercise", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made_exercise"] = module
    spec.loader.exec_module(module)
    return module


def test_it_writes_both_files_and_says_what_is_missing(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_new(STEM, "halved_scores", root) == 1
    said = capsys.readouterr().out
    assert f"written  autograder/exercises/{STEM}/halved_scores.py" in said
    assert f"written  tests/exercises/{STEM}/halved_scores.py" in said
    assert "reference solution" not in said
    assert f"missing  course/lessons/{STEM}.md: a cell `from solutions.{STEM} import halved_scores`" in said
    assert "3 right writings" in said
    assert "3 mutants by hand" in said


def test_a_second_call_writes_over_nothing_and_is_content_once_all_is_there(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_new(STEM, "halved_scores", root)
    tests = root / "tests/exercises" / STEM / "halved_scores.py"
    tests.write_text('@right("halved_scores")\n@mutant("halved_scores", None)\n' * 3)
    (root / "course/lessons" / f"{STEM}.md").write_text(f"from solutions.{STEM} import halved_scores\n")
    capsys.readouterr()
    assert run_new(STEM, "halved_scores", root) == 0
    said = capsys.readouterr().out
    assert f"there is tests/exercises/{STEM}/halved_scores.py" in said
    assert tests.read_text().startswith("@right")
    assert "missing" not in said


def test_the_exercise_that_it_writes_tries_every_situation_and_names_its_mistake(root: Path) -> None:
    run_new(STEM, "halved_scores", root)
    exercise = loaded(root / "autograder/exercises" / STEM / "halved_scores.py").HALVED_SCORES
    right, wrong = (
        examine(exercise, lambda query: query.clone(), 5),
        examine(exercise, lambda query: 2 * query, 5),
    )
    assert right.passed, str(right)
    assert wrong.mistakes == ("name of the mistake",)
    detached = examine(exercise, lambda query: query.detach().clone(), 5)
    assert "gradient is cut off" in detached.mistakes


@pytest.mark.parametrize(
    ("stem", "name", "said"), [("shared", "x", "no assignment 'shared'"), (STEM, "1x", "no name")]
)
def test_a_bad_name_is_one_clear_line(root: Path, stem: str, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_new(stem, name, root)
