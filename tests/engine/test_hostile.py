"""Hostile submissions, one file each in hostile/: none earns an undeserved point, gets out, stays, or stops anybody."""

from __future__ import annotations

import ast
import dataclasses
import os
import re
import signal
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from autograder.engine.judge import Judgement, is_grade_cell, judge
from autograder.engine.nursery import Limit, Nursery
from autograder.engine.plain import plain
from autograder.engine.wire import send
from autograder.engine.worker import jail
from autograder.engine.worker.jail import FIRST_UID, Bounds
from autograder.engine.worker.zygote import WORKERS_AT_ONCE
from autograder.exercises import find
from tests.engine.conftest import REPO, Outside

FILES = sorted((Path(__file__).parent / "hostile").glob("*.py"))
MIB = 1 << 20
BOUNDS = Bounds(cpu_seconds=10, address_space=2048 * MIB, file_size=4 * MIB, disk=8 * MIB, processes=24)
LIMIT = Limit(
    request=1.5, cell=1.5, submission=15.0, grace=0.5, reply=40 * MIB, output=2 * MIB, bounds=BOUNDS
)
SEED = 20_240

SETUP = "import math\n\nimport torch\nfrom torch import nn"
PATIENCE = 5.0
"""Seconds beyond its limit that a submission may take of the judge."""

BEFORE, AFTER = "scaled_dot_scores", "cosine_scores"
"""Exercises that every hostile student answers rightly, before and after the attack."""

RIGHT = {
    "dot_scores": "def dot_scores(query, key):\n    return query @ key.transpose(-2, -1)",
    BEFORE: f"def {BEFORE}(query, key):\n    return query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])",
    AFTER: f"""
def {AFTER}(query, key, eps=1e-8):
    unit_query = query / query.norm(dim=-1, keepdim=True).clamp_min(eps)
    unit_key = key / key.norm(dim=-1, keepdim=True).clamp_min(eps)
    return unit_query @ unit_key.transpose(-2, -1)""",
    "why_scale": 'why_scale = "c"',
}
WRONG = {
    "dot_scores": "def dot_scores(query, key):\n    return (query @ key.transpose(-2, -1)) * 1.5",
    "why_scale": "why_scale = ...",
}
"""What a hostile student answers where its file says nothing else."""

NEW = ("shared_attention", "multi_head_attention", "text_generation")
"""Assignments whose reference solutions a file can use, as @name@; a file that says `# of: <stem>` answers only what it holds."""


@cache
def references() -> dict[str, str]:
    """The reference solutions of those assignments by name, without annotations and docstrings."""
    found = {}
    for stem in NEW:
        for node in ast.parse((REPO / f"solutions/{stem}.py").read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = ast.unparse(_bare(node))
    return found


def _bare(tree: ast.AST) -> ast.AST:
    for node in ast.walk(tree):
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
    return tree


@dataclasses.dataclass(frozen=True)
class Attack:
    """A hostile file: its cells, its answers, and the same answers without the trick.

    helpers: cells of names that both kinds of answers use. ends: a pattern of the reason for which the run must end
    early, "" if it must not. spoils: it may break its own right answers. limit: seconds that differ from LIMIT's.
    others: what it answers where it says nothing else.
    """

    helpers: tuple[str, ...]
    added: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    plain: tuple[tuple[str, str], ...]
    ends: str
    spoils: bool
    limit: Limit
    others: dict[str, str]

    @property
    def answered(self) -> dict[str, str]:
        """All its answers."""
        return {**self.others, **dict(self.answers)}


def read(path: Path, outside: Outside) -> Attack:
    """A file of hostile/, split at its lines `# cell: ...`, with the names of things outside filled in."""
    text = path.read_text(encoding="utf-8")
    known = {
        "REPO": REPO, "COURSE": outside.course, "HOME": outside.home, "PORT": outside.port, "SOCKET": outside.address,
        "JUDGE": os.getpid(), "MINUSES": "-" * 20_000, "LAMBDAS": "lambda: " * 900, "ATTRIBUTES": ".a" * 5_000,
        "PARENTHESES": "(" * 300 + ")" * 300, "NUL": "\0", "SURROGATE": "\ud800", "BIG": "x" * MIB,
    }  # fmt: skip
    for name, value in {**references(), **known}.items():
        text = text.replace(f"@{name}@", str(value))
    header, *parts = re.split(r"^# cell: (.*)$", text, flags=re.MULTILINE)
    cells = [(kind.split(), source.strip("\n")) for kind, source in zip(parts[::2], parts[1::2], strict=True)]
    ends = re.search(r"^# ends: (.*)$", header, re.MULTILINE)
    seconds = re.search(r"^# limit: (\w+)=(\d+)$", header, re.MULTILINE)
    return Attack(
        helpers=tuple(source for kind, source in cells if kind == ["helper"]),
        added=tuple(source for kind, source in cells if kind == ["added"]),
        answers=tuple((kind[1], source) for kind, source in cells if kind[0] == "solution"),
        plain=tuple((kind[1], source) for kind, source in cells if kind[0] == "plain"),
        ends=ends[1] if ends else "",
        spoils=re.search(r"^# spoils$", text, re.MULTILINE) is not None,
        limit=dataclasses.replace(LIMIT, **{seconds[1]: float(seconds[2])}) if seconds else LIMIT,
        others={} if re.search(r"^# of: ", header, re.MULTILINE) else WRONG,
    )


def notebook_of(cells: tuple[str, ...], answers: dict[str, str]) -> NotebookNode:
    """A rebuilt notebook: a right answer, the added cells, the answers, and another right answer."""
    notebook = new_notebook()

    def exercise(name: str, source: str) -> None:
        graded = new_code_cell(f'from autograder import grade\n\ngrade("{name}", {name}, seed=None)')
        graded.metadata["nbgrader"] = {
            "grade": True, "solution": False, "points": find(name).points, "grade_id": f"check-{name}",
        }  # fmt: skip
        notebook.cells += [new_code_cell(source), graded]

    notebook.cells.append(new_code_cell(SETUP))
    exercise(BEFORE, RIGHT[BEFORE])
    notebook.cells += [new_code_cell(source) for source in cells]
    for name, source in answers.items():
        exercise(name, source)
    exercise(AFTER, RIGHT[AFTER])
    return notebook


def points_of(notebook: NotebookNode) -> dict[str, float]:
    """What each exercise earned, as the ledger would read it: nothing where there is no number."""
    points = {}
    for cell in notebook.cells:
        if is_grade_cell(cell):
            shown = [
                output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result"
            ]
            points[cell.metadata.nbgrader.grade_id.removeprefix("check-")] = float(shown[0]) if shown else 0.0
    return points


def texts_of(notebook: NotebookNode) -> str:
    """All words that the outputs hold."""
    return "\n".join(str(output) for cell in notebook.cells for output in cell.get("outputs", ()))


def last_words(notebook: NotebookNode) -> str:
    """The words under the last grade cell."""
    return "\n".join(str(output) for output in notebook.cells[-1].outputs)


_plain_points: dict[tuple[tuple[str, ...], tuple[tuple[str, str], ...]], dict[str, float]] = {}


def points_without_the_trick(
    nursery: Nursery, answers: dict[str, str], helpers: tuple[str, ...] = ()
) -> dict[str, float]:
    """What the same answers earn in an honest submission."""
    key = helpers, tuple(answers.items())
    if key not in _plain_points:
        notebook = notebook_of(helpers, answers)
        judge(notebook, nursery, LIMIT, SEED)
        _plain_points[key] = points_of(notebook)
    return _plain_points[key]


def children_of(pid: int) -> list[int]:
    """The processes that descend from `pid`."""
    try:
        own = [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []
    return own + [each for child in own for each in children_of(child)]


def jailed_processes(nursery: Nursery) -> list[int]:
    """The living processes of this zygote's workers: its descendants, and whoever has one of the uids it gives out."""
    assert nursery.process is not None
    zygote = nursery.process.pid
    uids = range(FIRST_UID + zygote * WORKERS_AT_ONCE, FIRST_UID + (zygote + 1) * WORKERS_AT_ONCE)
    found = set(children_of(zygote))
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and folder.stat().st_uid in uids:
                found.add(int(folder.name))
        except FileNotFoundError:
            continue
    return sorted(found)


def wait_until_none_is_left(nursery: Nursery) -> list[int]:
    """Wait, ten seconds at most, until no process of a worker lives; those that still do."""
    until = time.monotonic() + 10
    while (left := jailed_processes(nursery)) and time.monotonic() < until:
        time.sleep(0.005)
    return left


def run(attack: Attack, nursery: Nursery) -> tuple[NotebookNode, Judgement]:
    notebook = notebook_of((*attack.helpers, *attack.added), attack.answered)
    return notebook, judge(notebook, nursery, attack.limit, SEED)


@cache
def full(name: str) -> float:
    return find(name).points


def open_files(pid: int) -> int:
    """How many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_hostile_submission_earns_nothing_and_harms_nobody(
    path: Path, nursery: Nursery, outside: Outside
) -> None:
    attack = read(path, outside)
    wanted = points_without_the_trick(nursery, {**attack.answered, **dict(attack.plain)}, attack.helpers)
    untouched, opened = outside.fingerprint(), open_files(os.getpid())

    since = time.monotonic()
    notebook, found = run(attack, nursery)
    assert time.monotonic() - since < attack.limit.submission + PATIENCE

    # Points: no more than the same answers earn without the trick; right answers keep theirs.
    points = points_of(notebook)
    assert {name for name in points if points[name] > wanted[name]} == set()
    assert points[BEFORE] == full(BEFORE)
    if not attack.spoils and not attack.ends:
        assert points[AFTER] == full(AFTER)
    # The reason, where the run was ended.
    if attack.ends:
        assert re.search(attack.ends, found.problem), found.problem
        assert points[AFTER] == 0.0
        assert re.search(attack.ends, last_words(notebook)), last_words(notebook)
    else:
        assert found.problem == ""
    # Nothing came out, nothing was touched, nobody is left.
    texts = texts_of(notebook)
    assert outside.secret not in texts
    assert [line for line in printed(notebook).splitlines() if re.search(r"\bGOT\b(?!')", line)] == []
    assert texts == plain(texts, len(texts))
    assert len(texts) < 4 * MIB
    assert outside.fingerprint() == untouched
    assert not outside.was_called()
    assert wait_until_none_is_left(nursery) == []
    assert open_files(os.getpid()) <= opened
    # The next one finds everything as it should be.
    right = {name: references()[name] for name in attack.answered if name in references()}
    honest = notebook_of(
        tuple(references().values()) if right else (), {"dot_scores": RIGHT["dot_scores"], **right}
    )
    assert judge(honest, nursery, LIMIT, SEED).problem == ""
    assert points_of(honest) == {name: full(name) for name in (BEFORE, "dot_scores", *right, AFTER)}


def printed(notebook: NotebookNode) -> str:
    """What cells printed: an attack that reaches something prints GOT."""
    return "\n".join(
        output.text
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if output.output_type == "stream"
    )


def test_every_file_says_what_it_tries_and_what_must_hold() -> None:
    for path in FILES:
        header = path.read_text(encoding="utf-8").split('"""')
        assert header[0] == "", path.name
        assert "hold" in header[1], path.name


def test_there_are_many() -> None:
    assert len(FILES) >= 105


def test_many_workers_leave_nothing_open_and_nobody_alive(nursery: Nursery) -> None:
    assert nursery.process is not None
    nursery.worker(LIMIT).close()
    assert wait_until_none_is_left(nursery) == []
    before = open_files(nursery.process.pid), open_files(os.getpid())
    for _ in range(50):
        worker = nursery.worker(LIMIT)
        assert worker.ask("look", name="nothing")["kind"] == "missing"
        worker.close()
    assert wait_until_none_is_left(nursery) == []
    assert (open_files(nursery.process.pid), open_files(os.getpid())) == before


def test_a_zygote_shares_no_memory_that_can_be_written_to(nursery: Nursery) -> None:
    assert nursery.process is not None
    lines = Path(f"/proc/{nursery.process.pid}/maps").read_text().splitlines()
    assert [line for line in lines if re.match(r"\S+ .w.s", line)] == []


def test_nobody_outlives_a_killed_zygote_whatever_it_asks_of_the_kernel(
    nursery: Nursery, outside: Outside
) -> None:
    attack = read(next(path for path in FILES if "outlive" in path.name), outside)
    assert nursery.process is not None
    others = set(children_of(nursery.process.pid))
    with Nursery(control=nursery.twin()) as twin:
        worker = twin.worker(dataclasses.replace(LIMIT, cell=30.0))
        (zygote,) = set(
            Path(f"/proc/{nursery.process.pid}/task/{nursery.process.pid}/children").read_text().split()
        ) - {str(each) for each in others}
        send(worker.channel, {"do": "run", "source": attack.added[0], "ticket": "", "seconds": 0})
        until = time.monotonic() + 10
        while (
            len(started := children_of(int(zygote))) < 5
        ):  # a guard, the jailed process, and its three children
            assert time.monotonic() < until
        os.kill(int(zygote), signal.SIGKILL)
        while any(alive(each) for each in started):
            assert time.monotonic() < until


def alive(pid: int) -> bool:
    """Whether a process lives: a dead one that nobody has buried yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_every_installed_copy_of_the_answers_is_hidden(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site = tmp_path / "lib/python3.11/site-packages"
    for name in ("autograder", "solutions", "numpy"):
        (site / name).mkdir(parents=True)
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])
    jail.readable_paths.cache_clear(), jail.hidden_paths.cache_clear()
    try:
        assert str(site) in jail.readable_paths()
        assert {str(site / "autograder"), str(site / "solutions")} <= set(jail.hidden_paths())
        assert str(site / "numpy") not in jail.hidden_paths()
    finally:
        monkeypatch.undo()
        jail.readable_paths.cache_clear(), jail.hidden_paths.cache_clear()
