"""`attn new`: what a new exercise needs, written where it belongs, and what is still missing."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

from autograder.cli.errors import UserError
from autograder.exercises import ASSIGNMENTS
from autograder.exercises.gathering import order

__all__ = ["run_new"]

ROOT = Path(__file__).parents[2]

EXERCISE = '''"""Exercise `{name}`."""

from __future__ import annotations

from torch import Tensor

from autograder.checks import Target
from autograder.exercises.exercise import Exercise
from autograder.mistakes import Slips, slips
from autograder.oracle import Quantity
from autograder.situations import AXES, DTYPES, Situations, drawn_by, groups

__all__ = ["{constant}"]

SHAPES = {{{shapes}}}  # (the axes of each input; the sizes are drawn, all different)


def steps({arguments}, *, last=lambda x: x) -> Tensor:
    """The formula in named steps, in float64, never the solution: a mistake is a step exchanged."""
    return last({first})


def formula(round=lambda x: x, **inputs: Tensor) -> dict[str, Quantity]:
    """What must come out, and what its rounding errors are measured against."""
    value = round(steps(**inputs))
    return {{"{output}": Quantity(value, value.abs())}}


SLIPS: Slips = {{
    "A question that leads to the mistake?": {{"name of the mistake": {{"last": lambda x: 2 * x}}}},
}}  # fmt: skip

{constant} = Exercise(
    name="{name}",
    assignment="{stem}",
    target=Target("{name}", ("{output}",), formula),
    positional=({positional},),
    situations=Situations(
        draw=drawn_by(SHAPES),
        factors={{"dtype": DTYPES, "axes": AXES}},
        axes=SHAPES,
        groups=groups("what the formula says", 2.0, lengths=0.5, gradient=0.5, dtypes=0.5, calls=0.5),
    ),
    recipes=(),
    checks=(),  # written checks: what no situation shows, such as inputs that must be refused
    mistakes=slips(steps, SLIPS, output="{output}"),
    hints=("A nudge.", "A step.", "Nearly the answer."),
)
'''

TESTS = '''"""`{name}`: right writings, and mutants that share nothing with its formula."""

from __future__ import annotations

from tests.exercises.catalogue import mutant, right  # noqa: F401

# Three right writings of different structure, each under
#     @right("{name}")
# three mutants of a structure of their own, each under
#     @mutant("{name}", "the mistake that the report names")
# and for each written check one that it alone kills, only="its name".
'''


def run_new(stem: str, name: str, root: Path = ROOT) -> int:
    """Write the exercise's file and its tests' where there are none, and say what is missing. 1 while something is.

    Raises: UserError if there is no such assignment, or the name is none.
    """
    if stem not in ASSIGNMENTS:
        raise UserError(f"no assignment {stem!r}; there are: {', '.join(ASSIGNMENTS)}.")
    if not name.isidentifier():
        raise UserError(f"{name!r} is no name for a function or a class.")
    if not (root / "solutions").is_dir():
        raise UserError("a new exercise is written in a clone of the project, and this is none.")
    file = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    solution = _solution(root / "solutions" / f"{stem}.py", name)
    for folder, text in _texts(stem, name, solution).items():
        path = root / folder / stem / f"{file}.py"
        if path.exists():
            sys.stdout.write(f"there is {path.relative_to(root)}\n")
            continue
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"written  {path.relative_to(root)}\n")
    missing = _missing(root, stem, name, solution)
    for one in missing:
        sys.stdout.write(f"missing  {one}\n")
    sys.stdout.write("then     attn build, and pytest tests/exercises\n")
    return 1 if missing else 0


def _solution(path: Path, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.ClassDef)
    return next((node for node in tree.body if isinstance(node, kinds) and node.name == name), None)


def _texts(stem: str, name: str, solution: ast.FunctionDef | ast.ClassDef | None) -> dict[str, str]:
    """By folder: the exercise and its tests, with the arguments that the solution has."""
    arguments = ["x"]
    if isinstance(solution, ast.FunctionDef):
        given = solution.args
        arguments = [one.arg for one in given.args[: len(given.args) - len(given.defaults)]] or arguments
    named = {
        "name": name,
        "stem": stem,
        "constant": re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper(),
        "output": "output",
        "arguments": ", ".join(arguments),
        "first": arguments[0],
        "positional": ", ".join(f'"{one}"' for one in arguments),
        "shapes": ", ".join(f'"{one}": "... D"' for one in arguments),
    }
    return {"autograder/exercises": EXERCISE.format(**named), "tests/exercises": TESTS.format(**named)}


def _missing(root: Path, stem: str, name: str, solution: ast.stmt | None) -> list[str]:
    lesson = root / "course" / "lessons" / f"{stem}.md"
    tests = root / "tests" / "exercises" / stem
    text = "\n".join(path.read_text(encoding="utf-8") for path in tests.glob("*.py"))
    right, wrong = (
        len(re.findall(rf'^@{kind}\("{name}"', text, re.MULTILINE)) for kind in ("right", "mutant")
    )
    return [
        *(
            []
            if solution
            else [f"solutions/{stem}.py: the reference solution `{name}`, with a docstring of shapes"]
        ),
        *(
            []
            if name in order(lesson)
            else [f"course/lessons/{stem}.md: a cell `from solutions.{stem} import {name}`"]
        ),
        *([] if right >= 3 else [f"tests/exercises/{stem}: {3 - right} right writings, @right({name!r})"]),
        *(
            []
            if wrong >= 3
            else [f"tests/exercises/{stem}: {3 - wrong} mutants by hand, @mutant({name!r}, ...)"]
        ),
    ]
