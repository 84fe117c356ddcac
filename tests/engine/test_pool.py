"""Judges in processes of their own: what they find is what a check here finds, and what breaks is not the student's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode

from autograder.engine.isolation import Isolation, isolation
from autograder.engine.judge import judge
from autograder.engine.nursery import Limit, Nursery, NurseryError
from autograder.engine.pool import Crew, Result, Standby, Task, default_workers, grade_task, run_all
from autograder.engine.rebuild import rebuild
from autograder.engine.results import reports_of
from autograder.engine.worker.jail import Bounds
from autograder.exercises import ASSIGNMENTS, find
from autograder.grading import check
from autograder.weave import find_course, settings
from tests.engine.scenes import JAIL, Class, small_class
from tests.nbgrader.small_class import ASSIGNMENT, NAME, NOTEBOOKS, answered

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def crew() -> Iterator[Crew]:
    with Crew(2, JAIL) as crew:
        yield crew


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery(JAIL) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def class_(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """A small class that nobody grades: its release is what these tests need."""
    return small_class(tmp_path_factory.mktemp("pool"), 1)


@pytest.fixture(scope="module")
def released(class_: Class) -> NotebookNode:
    return nbformat.read(class_.place / "release" / ASSIGNMENT / NAME, as_version=4)


def task(
    key: int, released: NotebookNode, submitted: NotebookNode, seed: int | None = 5, **limit: Any
) -> Task:
    return Task(key, nbformat.writes(rebuild(released, submitted)), Limit(**limit), seed)


def points(result: Result) -> dict[str, float]:
    reports = reports_of(nbformat.reads(result.notebook, as_version=4))
    return {name: report["points"] for name, report in reports.items()}


# The whole course


def solved(stem: str) -> Task:
    """The committed release of an assignment, with the reference solutions in it."""
    released = nbformat.read(find_course().release(stem), as_version=4)
    submitted = nbformat.from_dict(released)
    cells = [cell for cell in submitted.cells if cell.metadata.get("nbgrader", {}).get("solution")]
    for cell in cells:
        cell.source = ""
    cells[0].source = (ROOT / "solutions" / f"{stem}.py").read_text(encoding="utf-8")
    return Task(0, nbformat.writes(rebuild(released, submitted)), Limit(), seed=20)


@pytest.mark.parametrize("stem", ASSIGNMENTS)
def test_the_reference_solutions_earn_full_marks_in_the_very_cells_of_the_woven_notebook(
    crew: Crew, stem: str
) -> None:
    result = next(crew.run([solved(stem)]))
    assert (result.failure, result.problem) == ("", "")
    assert points(result) == find_course().assignments[stem]


WRONG = {
    "masked_softmax": "def masked_softmax(scores, attn_mask):\n    return (scores.softmax(-1) * attn_mask)",
    "scaled_dot_scores": "def scaled_dot_scores(query, key):\n    return query @ key.transpose(-2, -1)",
    "attention": (
        "def attention(query, key, value, attn_mask=None, is_causal=False):\n"
        "    scores = query @ key.transpose(-2, -1) / key.shape[-2] ** 0.5\n"
        "    weights = scores.softmax(-1)\n"
        "    return weights @ value, weights"
    ),
    "AdditiveScores": (
        "class AdditiveScores(nn.Module):\n"
        "    def __init__(self, d_query, d_key, d_hidden):\n"
        "        super().__init__()\n"
        "        self.W_q = nn.Linear(d_query, d_hidden, bias=False)\n"
        "        self.W_k = nn.Linear(d_key, d_hidden, bias=False)\n"
        "        self.v = nn.Linear(d_hidden, 1, bias=False)\n"
        "    def forward(self, query, key):\n"
        "        return self.v(self.W_q(query).unsqueeze(-2) + self.W_k(key).unsqueeze(-3)).squeeze(-1)"
    ),
    "why_scale": 'why_scale = "a"',
    "score_variance": "score_variance = 8",
}


def test_wrong_solutions_get_the_verdicts_that_a_check_gives_them_here(crew: Crew) -> None:
    course, seed = find_course(), 1234
    released = nbformat.read(course.release(course.stems[0]), as_version=4)
    submitted = nbformat.from_dict(released)
    for cell in submitted.cells:
        if (name := cell.metadata.get("nbgrader", {}).get("grade_id")) in WRONG:
            cell.source = WRONG[name]
    result = next(crew.run([task(0, released, submitted, seed)]))
    found = reports_of(nbformat.reads(result.notebook, as_version=4))
    here: dict[str, Any] = {}
    for name, source in WRONG.items():
        exec("import torch\nfrom torch import nn\n" + source, here)
        wanted = check(name, here[name], seed=seed).to_dict()
        assert not wanted["passed"]
        assert found[name]["verdicts"] == plain(wanted["verdicts"]), name
        assert found[name]["mistakes"] == wanted["mistakes"], name


def plain(verdicts: Any) -> list[dict[str, Any]]:
    """Verdicts as JSON brings them back."""
    return [dict(verdict) for verdict in verdicts]


def test_the_same_seed_gives_the_same_result_and_another_one_other_cases(
    crew: Crew, released: NotebookNode
) -> None:
    wrong = answered(released, dot_scores="def dot_scores(query, key):\n    return query @ key.mT / 2")
    results = {
        one.key: one for one in crew.run([task(n, released, wrong, seed) for n, seed in enumerate((3, 3, 4))])
    }
    assert results[0].notebook == results[1].notebook
    assert results[0].notebook != results[2].notebook
    assert [results[n].seed for n in range(3)] == [3, 3, 4]


def test_a_run_without_a_seed_draws_one_and_says_which(crew: Crew, released: NotebookNode) -> None:
    results = list(crew.run([task(n, released, answered(released), None) for n in range(2)]))
    assert results[0].seed != results[1].seed
    assert all(f"seed {one.seed}" in one.notebook for one in results)


# Limits and settings


def test_settings_of_the_course_reach_the_worker(
    class_: Class, nursery: Nursery, released: NotebookNode, tmp_path: Path
) -> None:
    text = (class_.course.root / "nbgrader_config.py").read_text(encoding="utf-8")
    (tmp_path / "nbgrader_config.py").write_text(
        text + "\nc.Sandbox.cell_seconds = 0.25\nc.Sandbox.memory_mib = 300\nc.Sandbox.reply_mib = 7\n"
        "c.Sandbox.cpu_seconds = 33\nc.Sandbox.call_seconds = 4.5\n"
    )
    from autograder.engine.sandbox import Sandbox

    limit = Sandbox(config=settings(tmp_path)).limit()
    assert (limit.cell, limit.reply, limit.request) == (0.25, 7 << 20, 4.5)
    slow = answered(released, dot_scores="while True:\n    pass")
    large = answered(released, dot_scores=SHOW_LIMITS)
    for submitted, said in ((slow, "the cell was stopped after 0.25 s"), (large, "cpu 33 room little")):
        notebook = nbformat.reads(task(0, released, submitted).notebook, as_version=4)
        judge(notebook, nursery, limit, seed=1)
        assert said in nbformat.writes(notebook) or (submitted is large and not JAIL)


SHOW_LIMITS = """
import resource
try:
    bytearray(400 * 2**20)
    room = "much"
except MemoryError:
    room = "little"
print("cpu", resource.getrlimit(resource.RLIMIT_CPU)[0], "room", room)
"""


def test_a_default_is_one_judge_for_each_core() -> None:
    assert default_workers() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize("kind", ["killer", "raising", "no_solution", "syntax", "untouched"])
def test_a_broken_submission_changes_nothing_for_the_others(
    crew: Crew, released: NotebookNode, kind: str
) -> None:
    tasks = [task(n, released, NOTEBOOKS[kind if n == 1 else "right"](released)) for n in range(4)]
    found = {result.key: points(result) for result in crew.run(tasks)}
    full = {"dot_scores": find("dot_scores").points, "why_scale": find("why_scale").points}
    assert [found[n] for n in (0, 2, 3)] == [full] * 3
    assert found[1].get("dot_scores", 0.0) == 0.0


def test_what_passed_before_a_crash_keeps_its_points_and_the_rest_says_why(
    crew: Crew, released: NotebookNode
) -> None:
    source = (
        "import os\ncalls = 0\ndef dot_scores(query, key):\n    global calls\n    calls += 1\n"
        "    if calls > 12:\n        os._exit(7)\n    return query @ key.transpose(-2, -1)"
    )
    result = next(crew.run([task(0, released, answered(released, dot_scores=source))]))
    assert "the process ended itself with exit status 7" in result.problem
    report = reports_of(nbformat.reads(result.notebook, as_version=4))["dot_scores"]
    assert 0 < report["points"] < report["max_points"]
    after = [verdict for verdict in report["verdicts"] if verdict["status"] == "errored"]
    assert all("the process ended itself with exit status 7" in verdict["message"] for verdict in after)
    assert points(result).get("why_scale", 0.0) == 0.0


# What breaks in the grader


def test_a_killed_judge_is_replaced_and_its_submission_graded_again(released: NotebookNode) -> None:
    tasks = [task(n, released, answered(released)) for n in range(6)]
    with Crew(2, JAIL) as crew:
        results = crew.run(tasks)
        done = [next(results)]
        victims = [one.process.pid for one in crew.judges]
        for victim in victims:
            assert victim is not None
            os.kill(victim, signal.SIGKILL)
        done += results
        assert not {one.process.pid for one in crew.judges} & set(victims)
    assert sorted(result.key for result in done) == list(range(6))
    assert {result.failure for result in done} == {""}
    assert len({tuple(points(result).items()) for result in done}) == 1


def test_a_judge_that_hangs_is_replaced_and_its_submission_graded_again(
    released: NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [task(n, released, answered(released)) for n in range(3)]
    monkeypatch.setattr("autograder.engine.pool.JUDGING", 8.0 - tasks[0].limit.submission)
    with Crew(1, JAIL) as crew:
        results = crew.run(tasks)
        done = [next(results)]
        hung = crew.judges[0].process.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        monkeypatch.undo()
        done += results
        assert crew.judges[0].process.pid != hung
    assert [(result.key, result.failure) for result in done] == [(0, ""), (1, ""), (2, "")]


def test_a_killed_zygote_is_replaced_and_nobody_loses_a_point(released: NotebookNode) -> None:
    tasks = [task(n, released, answered(released)) for n in range(6)]
    with Crew(2, JAIL) as crew:
        results = crew.run(tasks)
        done = [next(results)]
        assert crew.nursery.process is not None
        first = crew.nursery.process.pid
        twins = [int(pid) for pid in Path(f"/proc/{first}/task/{first}/children").read_text().split()]
        for pid in (first, *twins):
            os.kill(pid, signal.SIGKILL)
        done += results
        assert crew.nursery.process is not None
        assert crew.nursery.process.pid != first
    assert {(result.key, result.failure) for result in done} == {(n, "") for n in range(6)}
    assert len({tuple(points(result).items()) for result in done}) == 1


class Fragile:
    """A nursery whose workers go with their zygote at a given request."""

    def __init__(self, nursery: Nursery, at: int):
        self.nursery, self.at, self.asked = nursery, at, 0
        self.jail = nursery.jail

    def preload(self, notebook: str) -> None:
        self.nursery.preload(notebook)

    def worker(self, limit: Limit) -> Any:
        worker = self.nursery.worker(limit)
        ask = worker.ask

        def fragile(*args: Any, **kwargs: Any) -> Any:
            self.asked += 1
            if self.asked >= self.at:
                worker.lost = "the zygote is gone"
            return ask(*args, **kwargs)

        worker.ask = fragile  # type: ignore[method-assign]
        return worker


@pytest.mark.parametrize("at", [1, 2, 4, 9, 20])
def test_a_zygote_that_is_lost_at_any_moment_never_becomes_a_grade(
    nursery: Nursery, released: NotebookNode, at: int
) -> None:
    with pytest.raises(NurseryError, match="gone"):
        grade_task(task(0, released, answered(released)), Fragile(nursery, at))  # type: ignore[arg-type]


@pytest.mark.parametrize("whom", ["guard", "jailed"])
def test_a_worker_that_somebody_kills_is_tried_again(
    nursery: Nursery, released: NotebookNode, whom: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[int] = []
    spawn = nursery.worker

    def once(limit: Limit) -> Any:
        worker = spawn(limit)
        if not killed:
            below = Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text().split()
            killed.append(int(below[0]) if whom == "jailed" and below else worker.pid)
            os.kill(killed[0], signal.SIGKILL)
        return worker

    monkeypatch.setattr(nursery, "worker", once)
    result = grade_task(task(0, released, answered(released)), nursery)
    assert killed
    assert result.problem == ""
    assert points(result) == {"dot_scores": find("dot_scores").points, "why_scale": find("why_scale").points}


def test_a_worker_that_is_killed_every_time_is_told_so(
    nursery: Nursery, released: NotebookNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawn = nursery.worker

    def doomed(limit: Limit) -> Any:
        worker = spawn(limit)
        os.kill(worker.pid, signal.SIGKILL)
        return worker

    monkeypatch.setattr(nursery, "worker", doomed)
    result = grade_task(task(0, released, answered(released)), nursery)
    assert "killed" in result.problem
    assert not any(points(result).values()), "whatever it managed before the signal came earns nothing"


def test_a_standby_starts_a_zygote_when_needed_and_another_one_when_it_is_lost(
    released: NotebookNode,
) -> None:
    standby = Standby(JAIL)
    assert standby.nursery is None
    assert standby.grade(task(0, released, answered(released))).problem == ""
    first = standby.nursery
    assert first is not None
    assert first.process is not None
    first.process.kill()
    first.process.wait()
    assert standby.grade(task(1, released, answered(released))).problem == ""
    assert standby.nursery is not first
    standby.close()


def test_a_submission_that_always_breaks_its_judge_is_given_up_and_the_rest_is_graded(
    released: NotebookNode,
) -> None:
    tasks = [task(n, released, answered(released)) for n in range(3)]
    broken = Task(3, "no notebook", Limit(), 1)
    results = {result.key: result for result in run_all([broken, *tasks], 2, JAIL)}
    assert "JSON" in results[3].failure
    assert [results[n].failure for n in range(3)] == [""] * 3


def test_nothing_to_grade_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.engine.pool.Crew", None)
    assert list(run_all([], 2)) == []


# Isolation


def test_a_machine_without_a_jail_refuses_to_run_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    isolation.cache_clear()
    try:
        assert "needs Linux" in isolation().problem
    finally:
        isolation.cache_clear()


def test_what_the_probe_says_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    said = subprocess.CompletedProcess([], 1, "", "Traceback\nImportError: no ctypes\n")
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: said)
    isolation.cache_clear()
    try:
        assert isolation() == Isolation("the probe failed: Traceback\nImportError: no ctypes")
    finally:
        isolation.cache_clear()


def test_bounds_go_over_the_wire_and_back() -> None:
    bounds = Bounds(cpu_seconds=3, disk=5)
    assert Bounds(**bounds.to_dict()) == bounds
