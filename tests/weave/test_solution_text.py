"""Solutions as text: what the student keeps stands outside the markers, and everything else inside."""

from __future__ import annotations

from pathlib import Path

import pytest

from autograder.weave import WeaveError
from autograder.weave.solutions import BEGIN, END, read_solutions
from tests.weave.tiny import SOLUTIONS


def woven(tmp_path: Path, name: str, text: str = SOLUTIONS) -> str:
    path = tmp_path / "tiny.py"
    path.write_text(text, encoding="utf-8")
    return read_solutions(path).woven(name)


def visible(text: str) -> str:
    """What is left when everything between the markers is taken away."""
    lines, inside = [], False
    for line in text.split("\n"):
        if BEGIN in line:
            inside = True
        if not inside:
            lines.append(line)
        if END in line:
            inside = False
    return "\n".join(lines)


def test_a_function_keeps_its_signature_and_docstring_and_hides_its_body(tmp_path: Path) -> None:
    text = woven(tmp_path, "halves")
    assert visible(text) == (
        "def halves(\n    number: float,\n    times: int = 1,\n) -> float:\n"
        '    """Halve a number.\n\n    Units: none.\n    """'
    )
    assert f"    {BEGIN}\n    # the secret comment\n    for _ in range(times):" in text
    assert text.endswith(f"    return number\n    {END}")


def test_a_class_keeps_its_line_docstrings_signatures_and_super(tmp_path: Path) -> None:
    text = woven(tmp_path, "Twice")
    assert visible(text) == (
        'class Twice(nn.Module):\n    """Doubles, after a projection."""\n\n'
        "    def __init__(self, width: int):\n        super().__init__()\n\n"
        '    def forward(self, x: Tensor) -> Tensor:\n        """Double x."""'
    )
    assert text.count(BEGIN) == text.count(END) == 2


def test_a_value_is_hidden_whole(tmp_path: Path) -> None:
    assert woven(tmp_path, "count") == f"{BEGIN}\ncount = 2 * 32\n{END}"


def test_the_woven_text_still_runs(tmp_path: Path) -> None:
    names: dict[str, object] = {}
    exec("\n\n".join(["import math", woven(tmp_path, "halves"), woven(tmp_path, "letter")]), names)
    assert names["halves"](8.0, 2) == 2.0  # type: ignore[operator]
    assert names["letter"] == "c"


def test_decorators_stay_and_a_body_without_docstring_is_hidden_with_its_comments(tmp_path: Path) -> None:
    text = woven(
        tmp_path, "f", "import torch\n\n\n@torch.no_grad()\ndef f(\n    x,\n):\n    # hint\n    return x\n"
    )
    assert visible(text) == "@torch.no_grad()\ndef f(\n    x,\n):"


def test_a_method_with_nothing_to_solve_has_no_markers(tmp_path: Path) -> None:
    text = woven(tmp_path, "A", "class A(B):\n    def __init__(self):\n        super().__init__()\n")
    assert text == "class A(B):\n    def __init__(self):\n        super().__init__()"


def test_the_setup_holds_the_imports_that_are_used_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "tiny.py"
    path.write_text(SOLUTIONS, encoding="utf-8")
    solutions = read_solutions(path)
    assert solutions.setup(["halves"], set()) == ""
    assert solutions.setup(["halves", "Twice"], set()) == "import math\nfrom torch import Tensor, nn"
    assert solutions.setup(["halves", "Twice"], {"nn", "math"}) == "from torch import Tensor"


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("def f(x): return x\n", 1, "write the body of f on lines of its own"),
        ("class A:\n    size = 3\n", 2, "the class A may hold a docstring and methods only"),
        ("x = 1\n# ### BEGIN SOLUTION\n", 2, "holds a solution marker"),
        ("def f(:\n", 1, "not Python"),
        ("f = 1\n\n\ndef f():\n    pass\n", 4, "f is defined twice"),
    ],
)
def test_an_unfit_solutions_file_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int, message: str
) -> None:
    with pytest.raises(WeaveError) as caught:
        woven(tmp_path, "A" if "class A" in text else "f", text)
    assert str(caught.value).startswith(f"{tmp_path / 'tiny.py'}:{line}: ")
    assert message in str(caught.value)


def test_a_missing_solutions_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(WeaveError, match=r"gone\.py: there is no such solutions file"):
        read_solutions(tmp_path / "gone.py")


def test_a_solutions_file_is_read_and_never_run(tmp_path: Path) -> None:
    text = "raise RuntimeError('run')\n\n\ndef f():\n    return 1\n"
    assert "return 1" in woven(tmp_path, "f", text)
