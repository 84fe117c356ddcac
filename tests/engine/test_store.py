"""What has been graded is kept whole, found again, and forgotten as soon as anything that it rests on has changed."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from autograder.engine import store as module
from autograder.engine.nursery import Limit
from autograder.engine.store import Store, Stored, digest, key_of, write_whole
from autograder.engine.submissions import GradingError
from autograder.engine.worker.jail import Bounds

RESULT = Stored("key", '{"cells": []}', 7, "it ended early", True)


def test_a_result_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    Store(tmp_path).keep("ada", "01_x", RESULT)
    assert Store(tmp_path).find("ada", "01_x", "key") == RESULT
    assert Store(tmp_path).find("ada", "01_x") == RESULT


def test_a_result_of_another_text_is_not_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep("ada", "01_x", RESULT)
    assert store.find("ada", "01_x", "other") is None
    assert store.find("bob", "01_x", "key") is None
    assert store.find("ada", "02_x", "key") is None


@pytest.mark.parametrize(
    "text", ["", '{"key": "key", "note', "[1, 2]", '{"key": "key"}', '{"other": 1}', "\udcff"]
)
def test_a_damaged_result_is_no_result(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.keep("ada", "01_x", RESULT)
    (path,) = (tmp_path / ".attn" / "results").rglob("*.json")
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert store.find("ada", "01_x") is None


def test_a_forgotten_result_is_gone_and_its_seed_is_the_same_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seed = store.seed_for("ada", "01_x")
    store.keep("ada", "01_x", RESULT)
    store.forget([("ada", "01_x"), ("nobody", "01_x")])
    assert store.find("ada", "01_x") is None
    assert store.seed_for("ada", "01_x") == seed


def test_seeds_differ_for_assignments_and_classes_and_are_alike_for_students(tmp_path: Path) -> None:
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    seeds = [one.seed_for("ada", "01_x"), one.seed_for("ada", "02_x"), other.seed_for("ada", "01_x")]
    assert len(set(seeds)) == 3
    assert one.seed_for("bob", "01_x") == seeds[0]
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_who_has_a_result_is_asked_anew_each_time(tmp_path: Path) -> None:
    store = Store(tmp_path)
    seeds = []
    for _ in range(3):
        seeds.append(store.seed_for("ada", "01_x"))
        store.keep("ada", "01_x", replace(RESULT, seed=seeds[-1]))
    assert len(set(seeds)) == 3
    assert store.seed_for("bob", "01_x") == seeds[0]


def test_the_secret_is_for_the_graders_eyes(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.seed_for("ada", "01_x")
    store.keep("ada", "01_x", RESULT)
    for path in ((tmp_path / ".attn" / "secret"), *(tmp_path / ".attn" / "results").rglob("*.json")):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_the_gradebook_holds_is_noted(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.entered("ada", "01_x") == ""
    store.enter("ada", "01_x", "key")
    assert store.entered("ada", "01_x") == "key"
    assert store.find("ada", "01_x") is None


# Keys


def notebook() -> nbformat.NotebookNode:
    made = new_notebook()
    graded = {"grade": True, "grade_id": "check-softmax", "points": 6, "solution": False}
    made.cells = [
        new_markdown_cell("text", id="a"),
        new_code_cell("x = 1", id="b"),
        new_code_cell("grade()", id="c", metadata={"nbgrader": graded}),
    ]
    return made


def key(changed: nbformat.NotebookNode | None = None, limit: Limit | None = None, jail: bool = True) -> str:
    return key_of(changed or notebook(), limit or Limit(), jail)


def test_a_key_is_the_same_for_the_same_text_whatever_else_the_notebook_holds() -> None:
    other = notebook()
    other.metadata["kernelspec"] = {"name": "another", "display_name": "Another"}
    other.cells[1].outputs = [nbformat.v4.new_output("stream", text="out")]
    other.cells[1].execution_count = 4
    other.cells[2].metadata["collapsed"] = True
    assert key(other) == key()


def test_a_key_changes_with_all_that_a_result_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(), key(jail=False), key(limit=Limit(cell=1)), key(limit=Limit(bounds=Bounds(disk=1)))]
    for place, attribute, value in (
        (0, "source", "other text"),
        (1, "source", "x = 2"),
        (1, "cell_type", "raw"),
        (1, "metadata", {"tags": ["skip-execution"]}),
        (2, "metadata", {"nbgrader": {"grade": True, "grade_id": "check-softmax", "points": 7}}),
        (2, "metadata", {"nbgrader": {"grade": True, "grade_id": "check-attention", "points": 6}}),
    ):
        changed = notebook()
        changed.cells[place][attribute] = nbformat.from_dict(value)
        keys.append(key(changed))
    shorter = notebook()
    shorter.cells.pop()
    monkeypatch.setattr(module, "_grader", lambda: "a mended grader")
    keys += [key_of(shorter, Limit(), True), key()]
    assert len(set(keys)) == len(keys)


def test_the_graders_own_text_is_part_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "engine").mkdir()
    (tmp_path / "checks").mkdir()
    check = tmp_path / "checks" / "causality.py"
    hashes = []
    monkeypatch.setattr(module, "__file__", str(tmp_path / "engine" / "store.py"))
    for text in ("allow = 1", "allow = 2", "allow = 1"):
        check.write_text(text)
        module._grader.cache_clear()
        hashes.append(module._grader())
    module._grader.cache_clear()
    assert hashes[0] == hashes[2] != hashes[1]


def test_a_digest_knows_where_one_part_ends() -> None:
    assert digest("ab", "c") != digest("a", "bc") != digest("abc")


# Files


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    write_whole(path, "first\r\nüñ")
    assert path.read_bytes() == "first\r\nüñ".encode()
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half a pair: \ud800")
    assert path.read_bytes() == "first\r\nüñ".encode()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    path.mkdir()
    with pytest.raises(OSError, match="folder") as caught:
        write_whole(path, "text")
    assert caught.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [path], "no part of it is left lying about"


def test_a_class_is_for_one_grader_at_a_time_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom autograder.engine.store import Store\n"
        f"with Store(Path({str(tmp_path)!r})).alone():\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    other = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(GradingError, match="is being graded by another attn"), Store(tmp_path).alone():
        pass
    other.kill()
    other.communicate()
    with Store(tmp_path).alone():
        pass


def test_what_is_kept_is_plain_json(tmp_path: Path) -> None:
    Store(tmp_path).keep("ada", "01_x", RESULT)
    (path,) = (tmp_path / ".attn" / "results").rglob("*.json")
    assert json.loads(path.read_text())["seed"] == 7
