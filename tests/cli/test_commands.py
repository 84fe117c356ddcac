"""The command line: exit codes, and one clear line for every error that a user can make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autograder.cli import main
from autograder.cli.errors import UserError
from autograder.cli.lab import WORK, working_copy
from autograder.exercises import ASSIGNMENTS
from autograder.weave import find_course

ROOT = Path(__file__).parents[2]
RIGHT = '''\
def dot_scores(query, key):
    """Score."""
    return query @ key.transpose(-2, -1)


why_scale = "c"
'''
WRONG = RIGHT.replace("query @ key.transpose(-2, -1)", "query").replace('"c"', '"a"')


class Result:
    """What a command printed and how it ended."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def attn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """`attn`, run in this process in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Result:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(end.value.code, captured.out, captured.err)

    return run


def cell(kind: str, source: str, **nbgrader: object) -> dict[str, object]:
    made: dict[str, object] = {"cell_type": kind, "metadata": {}, "source": source.splitlines(keepends=True)}
    if nbgrader:
        made["metadata"] = {"nbgrader": nbgrader}
    return made


def write_notebook(path: Path, *cells: dict[str, object]) -> Path:
    path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}))
    return path


ERRORS = [
    (["check", "gone.ipynb"], "gone.ipynb: there is no such notebook"),
    (["check", "gone.py"], "gone.py: there is no such file"),
    (["check", "no_such_module"], "no_such_module: no such file, and it cannot be imported as a module"),
    (["check", "broken.ipynb"], "broken.ipynb: broken JSON at line 1"),
    (["check", "list.ipynb"], "list.ipynb: is not a notebook of format 4"),
    (["check", "folder"], "folder: expected a notebook (.ipynb), a Python file (.py) or a module's name"),
    (["check", "raising.py"], "raising.py: could not be run: ZeroDivisionError"),
    (["check", "telling.py"], "telling.py: could not be run: ValueError: one two"),
    (["check", "leaving.py"], "leaving.py: could not be run: SystemExit: 0"),
    (["check", "leaving_by_name"], "leaving_by_name: no such file, and it cannot be imported as a module"),
    (["check", "empty.py"], "empty.py: defines no exercise; expected names like softmax, masked_softmax, "),
    (["check", "misspelt.py"], "misspelt.py: defines no exercise; did you mean 'softmax' by 'sofmax'?"),
    (["check", "right.py", "--exercise", "atention"], "no exercise 'atention'. Did you mean 'attention'"),
    (["check", "right.py", "--exercise", "atention"], "`attn hint` in a terminal"),
    (["check", "right.py", "--exercise", "why_scale", "--case", "3"], "why_scale is a question and has no"),
    (
        ["check", "right.py", "--exercise", "softmax"],
        "right.py: expected it to define softmax, and it does not",
    ),
    (["check", "right.py", "--case", "3"], "say which: --exercise NAME"),
    (["hint", "atention"], "no exercise 'atention'. Did you mean 'attention'"),
    (["hint", "what_is_attention"], "'what_is_attention' is answered in words, for a person to mark"),
    (["hint", "what_is_attention"], "course/lessons/basic_attention.md"),
    (["hint", "attention", "--step", "4"], "attention has 3 hints"),
    (["grade", "gone"], "gone: there is no such folder"),
    (["grade", "right.py"], "right.py: is a file; name the folder that holds submitted/"),
    (["grade", "stray"], "expected <student>/<assignment>, the assignment one of 01_basic_attention"),
    (["grade", "stray"], "found submitted/ann/99_foo and 1 more: rename or move what was handed in"),
    (["grade", "bare"], "bare/submitted: holds no folder of an assignment of this course"),
    (["grade", "folder"], "folder: holds no folder submitted/"),
    (["grade", "nobody"], "nobody/submitted: holds no student's folder"),
    (["build", "--course", "folder"], "folder: no course is here"),
    (["lab", "right.py", "--copy-only"], "right.py: is a file"),
    (["demo", "."], ".: is not an empty folder"),
    (["chek"], "No such command 'chek'"),
    (["check"], "Missing argument"),
    (["grade", "folder", "--timeout", "0"], "Invalid value for '--timeout'"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[" ".join(each[0]) for each in ERRORS])
def test_an_error_of_the_user_is_one_line_and_exit_code_2(attn, arguments: list[str], message: str) -> None:
    Path("broken.ipynb").write_text('{"cells": [')
    Path("list.ipynb").write_text("[]")
    Path("folder").mkdir()
    Path("nobody/submitted").mkdir(parents=True)
    Path("bare/submitted/ann").mkdir(parents=True)
    Path("stray/submitted/ann/99_foo").mkdir(parents=True)
    Path("stray/submitted/ann/basic_attention.ipynb").touch()
    Path("raising.py").write_text("1 / 0\n")
    Path("empty.py").write_text("x = 1\n")
    Path("right.py").write_text(RIGHT)
    Path("misspelt.py").write_text("def sofmax(x): ...\n")
    Path("telling.py").write_text("raise ValueError('one\\n  two' + ' and more' * 999)\n")
    Path("leaving.py").write_text(RIGHT + "\nimport sys\nsys.exit(0)\n")
    Path("leaving_by_name.py").write_text("raise SystemExit(3)\n")
    result = attn(*arguments)
    assert result.code == 2
    assert len(result.err) < 500
    assert message in result.err
    assert result.err.startswith("attn: ")
    assert result.err.count("\n") == 1
    assert "Traceback" not in result.err + result.out
    assert [path.name for place in ("nobody", "bare", "stray") for path in Path(place).iterdir()] == [
        "submitted"
    ] * 3


def test_an_interrupt_is_one_line_and_exit_code_130(attn, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(name: str, step: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("autograder.cli.hint.run_hint", interrupted)
    result = attn("hint", "attention")
    assert result.code == 130
    assert result.err.strip() == "attn: interrupted"


def test_check_passes_right_answers_of_a_file(attn) -> None:
    Path("mine.py").write_text(RIGHT)
    result = attn("check", "mine.py")
    assert result.code == 0
    assert "dot_scores: all checks passed" in result.out
    assert "2 of 2 exercises pass, 4 of 4 points." in result.out
    assert "Not defined: softmax, masked_softmax, " in result.out
    assert "shared_attention" not in result.out, "an assignment that has not been begun"
    assert result.err == ""


def test_check_fails_wrong_answers_with_exit_code_1(attn) -> None:
    Path("mine.py").write_text(WRONG)
    result = attn("check", "mine.py")
    assert result.code == 1
    assert "0 of 2 exercises pass" in result.out


def test_check_finds_a_module_by_name(attn) -> None:
    Path("my_answers_by_name.py").write_text(RIGHT)
    assert attn("check", "my_answers_by_name", "--exercise", "why_scale").code == 0


def test_check_looks_at_one_exercise_and_repeats_its_seed(attn) -> None:
    Path("mine.py").write_text(WRONG)
    result = attn("check", "mine.py", "--exercise", "dot_scores", "--seed", "17")
    assert "seed 17" in result.out
    assert "why_scale" not in result.out


def test_check_runs_a_notebook_without_its_grade_cells_and_past_its_magics(attn) -> None:
    path = write_notebook(
        Path("mine.ipynb"),
        cell("markdown", "# Text"),
        cell("code", "%matplotlib inline\n!ls\nimport torch\ntorch.zeros?"),
        cell("code", "%%bash\nrm everything"),
        cell("code", "%%time\ndisplay(1)\nprint('noise')\n" + RIGHT),
        cell("code", "1 / 0"),
        cell("code", "raise SystemExit", grade=True, solution=False, grade_id="check-dot_scores"),
    )
    result = attn("check", path)
    assert result.code == 0
    assert "noise" not in result.out
    assert "2 of 2 exercises pass" in result.out
    assert "Failed: cell 5: ZeroDivisionError: division by zero" in result.out


def test_check_fails_a_notebook_that_leaves_an_exercise_undefined(attn) -> None:
    path = write_notebook(
        Path("mine.ipynb"),
        cell("code", RIGHT),
        cell("code", "def softmax(:"),
        cell("code", "", grade=True, solution=False, grade_id="check-softmax"),
    )
    result = attn("check", path)
    assert result.code == 1
    assert "Not defined: softmax." in result.out
    assert "Failed: cell 2: SyntaxError" in result.out


def test_check_leaves_answers_in_words_to_a_person_and_says_where_to_compare(attn) -> None:
    words = {"grade": True, "solution": True, "grade_id": "what_is_attention", "points": 4}
    path = write_notebook(Path("mine.ipynb"), cell("code", RIGHT), cell("markdown", "An average.", **words))
    result = attn("check", path)
    assert result.code == 0
    assert result.out.endswith(
        "\nNot checked, for a person to read: what_is_attention (4 points); "
        "model answers: course/lessons/basic_attention.md.\n"
    )
    assert "person" not in attn("check", path, "--exercise", "why_scale").out


def test_hint_without_a_name_lists_all_exercises(attn) -> None:
    lines = attn("hint").out.splitlines()
    assert [line.split(":")[0] for line in lines] == list(ASSIGNMENTS)
    assert "softmax, masked_softmax" in lines[0]


def test_hints_lead_from_one_to_the_next(attn) -> None:
    first, last = attn("hint", "attention"), attn("hint", "attention", "--step", "3")
    assert first.out.startswith("attention, hint 1 of 3: ")
    assert "attn hint attention --step 2" in first.out
    assert last.out.count("\n") == 1


def test_lab_copies_the_release_and_keeps_what_the_student_wrote(attn) -> None:
    first = attn("lab", "work", "--copy-only")
    notebook = Path("work/01_basic_attention/basic_attention.ipynb")
    assert first.code == 0
    assert notebook.read_bytes() == find_course().release("basic_attention").read_bytes()
    notebook.write_text("my work")
    second = attn("lab", "work", "--copy-only")
    assert notebook.read_text() == "my work"
    assert "yours, kept" in second.out


def made_release(place: Path) -> Path:
    write_notebook(place / "x.ipynb")
    release = place / "course/release"
    (release / "01_x").mkdir(parents=True)
    (place / "x.ipynb").rename(release / "01_x" / "x.ipynb")
    return release


@pytest.mark.parametrize(
    "folder", [".", "course", "docs/mine", "course/release", "course/release/attention-work"]
)
def test_lab_scatters_nothing_among_the_courses_own_files(tmp_path: Path, folder: str) -> None:
    release = made_release(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        UserError, match=r"your working copy would lie among .* name a folder outside, or .*work"
    ):
        working_copy(release, tmp_path / folder)
    assert sorted(tmp_path.rglob("*")) == before


def test_lab_may_work_in_the_default_folder_and_beside_a_course_that_stands_alone(tmp_path: Path) -> None:
    release = made_release(tmp_path)
    assert working_copy(release, tmp_path / "beside") == [Path("01_x/x.ipynb")]
    (tmp_path / "pyproject.toml").touch()
    assert working_copy(release, tmp_path / "docs" / WORK) == [Path("01_x/x.ipynb")]
    assert f"{WORK}/" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_build_check_names_what_differs_and_exits_1(attn, tmp_path: Path) -> None:
    import shutil

    course = find_course()
    ignore = shutil.ignore_patterns(
        "source", "submitted", "autograded", "feedback", "exchange", "gradebook.db*"
    )
    shutil.copytree(course.root, tmp_path / "course", ignore=ignore)
    assert attn("build", "--check", "--course", "course").code == 0
    Path("course/release/01_basic_attention/basic_attention.ipynb").write_text("{}")
    result = attn("build", "--check", "--course", "course")
    assert result.code == 1
    assert "course/release/01_basic_attention/basic_attention.ipynb: differs from a rebuild" in result.out
    assert attn("build", "--course", "course").code == 0
    assert attn("build", "--check", "--course", "course").code == 0


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = [environment.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(
        [sys.executable, "-m", "autograder.cli", *arguments], capture_output=True, text=True, env=env
    )


@pytest.mark.parametrize(
    "arguments", [("hint", "attention"), ("check", "x.py"), ("grade", "CLASS"), ("build",)]
)
def test_a_missing_torch_is_one_line_and_help_works_without_it(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    (tmp_path / "class/submitted/ann").mkdir(parents=True)
    arguments = tuple(part.replace("CLASS", str(tmp_path / "class")) for part in arguments)
    result = in_a_process(*arguments, PYTHONPATH=str(tmp_path))
    assert result.returncode == 2
    assert result.stderr.startswith(
        "attn: PyTorch cannot be imported (libtorch.so: no such file); install it"
    )
    assert result.stderr.count("\n") == 1
    assert in_a_process("--help", PYTHONPATH=str(tmp_path)).returncode == 0


def test_the_doctor_reports_a_torch_that_cannot_be_imported(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libtorch.so: no such file')\n")
    result = in_a_process("doctor", PYTHONPATH=str(tmp_path), COLUMNS="200")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    said = next(line for line in result.stdout.splitlines() if "PyTorch" in line)
    assert said.startswith("missing")
    assert "cannot be imported (libtorch.so: no such file); install it again: pip install 'torch" in said
    assert "browser" in result.stdout, "the lines after it"


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys, runpy\nsys.argv = ['attn', '--help']\n"
        "try:\n    runpy.run_module('autograder.cli', run_name='__main__')\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'nbgrader', 'nbformat', 'jupytext', 'numpy'} & set(sys.modules)))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    ).stdout
    for command in ("build", "check", "grade", "lab", "demo", "hint"):
        assert f"\n  {command} " in shown
    assert shown.rstrip().endswith("[]")


GPU_REFUSED = [
    ([], "", "this machine has no GPU"),
    ([], "H200", "the jail keeps student code away from the GPU"),
    (["--scheduler", "tcp://127.0.0.1:1"], "H200", "--require-gpu grades on this machine's GPU"),
]


@pytest.mark.parametrize(("options", "gpu", "said"), GPU_REFUSED)
def test_grading_that_must_have_a_gpu_refuses_where_students_kernels_cannot_run_on_one(
    attn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], gpu: str, said: str
) -> None:
    from autograder import kernels

    monkeypatch.setattr(kernels, "gpu_name", lambda: gpu)
    (tmp_path / "submitted" / "ada" / "01_basic_attention").mkdir(parents=True)
    result = attn("grade", tmp_path, "--require-gpu", *options)
    assert result.code == 2
    assert said in result.err
    assert not (tmp_path / "gradebook.db").exists()
    assert os.environ["TRITON_INTERPRET"] == "1"
