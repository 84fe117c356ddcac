"""Whatever a cell does, the run ends, and the grade cells that were not reached say why."""

from __future__ import annotations

from pathlib import Path

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.kernel import TIMED_OUT, run
from autograder.weave.cells import grade_cell


def plain_grade_cell(name: str) -> NotebookNode:
    cell = grade_cell(name, 1.0)
    cell.source = "1.0"
    return cell


def ran(*sources: str, folder: Path, timeout: int = 2) -> tuple[NotebookNode, str | None]:
    cells = [new_code_cell(source) for source in sources]
    notebook = new_notebook(cells=[plain_grade_cell("before"), *cells, plain_grade_cell("after")])
    return notebook, run(notebook, timeout, folder)


def errors(cell: NotebookNode) -> list[str]:
    return [output.ename for output in cell.outputs if output.output_type == "error"]


def test_a_cell_without_end_is_stopped_and_the_next_one_runs(tmp_path: Path) -> None:
    notebook, problem = ran("while True:\n    pass", folder=tmp_path)
    assert problem is None
    assert errors(notebook.cells[1]) == ["KeyboardInterrupt", TIMED_OUT]
    assert notebook.cells[-1].outputs[0].data["text/plain"] == "1.0"


def test_a_kernel_that_dies_leaves_its_reason_in_the_grade_cells_behind(tmp_path: Path) -> None:
    notebook, problem = ran("# once more\nimport os\nos._exit(1)", folder=tmp_path, timeout=20)
    assert problem == "the kernel died in the cell that begins with: # once more"
    assert notebook.cells[0].outputs[0].data["text/plain"] == "1.0"
    assert notebook.cells[-1].outputs[0].evalue == problem


def test_the_run_sees_copies_of_the_data_files_and_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text("a,b")
    (tmp_path / "basic.ipynb").write_text("{}")
    source = (
        "import os\nprint(sorted(os.listdir()), open('words.csv').read())\nopen('words.csv', 'w').write('x')"
    )
    notebook, _ = ran(source, folder=tmp_path, timeout=20)
    assert "words.csv" in notebook.cells[1].outputs[0].text
    assert "basic.ipynb" not in notebook.cells[1].outputs[0].text
    assert (tmp_path / "words.csv").read_text() == "a,b"


def test_the_kernel_is_this_python(tmp_path: Path) -> None:
    import sys

    notebook, _ = ran("import sys\nprint(sys.executable)", folder=tmp_path, timeout=20)
    assert notebook.cells[1].outputs[0].text.strip() == sys.executable
