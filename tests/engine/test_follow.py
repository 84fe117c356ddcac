"""In the jail, too, a failure is told which failure of the same notebook it follows from."""

from __future__ import annotations

import inspect

from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.judge import judge
from autograder.engine.nursery import Limit, Nursery
from autograder.verdict import MIME_TYPE
from autograder.weave.cells import grade_cell
from solutions import multi_head_attention as solved


def test_a_block_of_wrong_parts_is_told_the_part(nursery: Nursery) -> None:
    whole = inspect.getsource(solved)
    # Its heads are apart by a hair too much, which no mistake of the block's own catalogue explains.
    wrong = whole + "\n\nright = merge_heads\n\ndef merge_heads(heads):\n    return 1.25 * right(heads)\n"
    names = ("merge_heads", "TransformerBlock")
    notebook = new_notebook(cells=[new_code_cell(wrong), *(grade_cell(name, 1.0) for name in names)])
    assert judge(notebook, nursery, Limit(), seed=3).problem == ""
    found = {}
    for name, cell in zip(names, notebook.cells[1:], strict=True):
        (report,) = [out.data[MIME_TYPE] for out in cell.outputs if MIME_TYPE in out.data]
        found[name] = [finding["name"] for finding in report["findings"]]
    assert found["TransformerBlock"] == ["follows from merge_heads"], found
