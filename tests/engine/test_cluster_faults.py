"""A cluster that loses a worker finishes; one that loses its scheduler says so, and nothing is lost or graded twice."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from autograder.engine.classroom import Graded, grade_class
from autograder.engine.cluster import ClusterError, run_on_cluster
from autograder.engine.store import Store
from autograder.weave import settings
from tests.engine.scenes import JAIL, PATIENCE, Class, children, ended, results, small_class
from tests.nbgrader.small_class import ASSIGNMENT, NAME, ROOT

pytest.importorskip("distributed", reason="the extra `cluster` is not installed")
STUDENTS = int(os.environ.get("ATTN_FAULT_STUDENTS", "8"))


@dataclass
class Cluster:
    """A scheduler and two workers, each a process of its own that can be killed."""

    address: str
    scheduler: subprocess.Popen[bytes]
    workers: list[subprocess.Popen[bytes]]


def start(*arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    quiet = subprocess.DEVNULL
    return subprocess.Popen([sys.executable, "-m", *arguments], env=env, stdout=quiet, stderr=quiet)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    scheduler = start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"
    )
    workers = [
        start("distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny", "--no-dashboard")
        for _ in range(2)
    ]
    started = Cluster(address, scheduler, workers)
    try:
        wait_for(started)
        yield started
    finally:
        left = [pid for process in (*workers, scheduler) for pid in children(process.pid)]
        for process in (*workers, scheduler):
            process.kill()
            process.wait()
        assert all(ended(pid) for pid in left)


def wait_for(cluster: Cluster) -> None:
    from distributed import Client

    until = time.monotonic() + PATIENCE
    while True:
        try:
            with Client(cluster.address, timeout=5, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=PATIENCE)
                return
        except OSError:
            if time.monotonic() > until:
                raise


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Class:
    made = small_class(tmp_path_factory.mktemp("cluster"), STUDENTS)
    Store(made.place).seed_for("nobody", ASSIGNMENT)
    return made


@pytest.fixture(scope="module")
def calm(handed_in: Class, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What an undisturbed run on this machine leaves behind."""
    copy = handed_in.copy(tmp_path_factory.mktemp("calm") / "class")
    copy.grade()
    return results(copy.place)


@pytest.fixture
def class_(handed_in: Class, tmp_path: Path) -> Class:
    return handed_in.copy(tmp_path / "class")


def grade(class_: Class, cluster: Cluster, victim: subprocess.Popen[bytes], after: int) -> list[Graded]:
    """Grade on the cluster, and kill a process of it once so many submissions are done."""

    def on_graded(graded: Graded, done: int, total: int) -> None:
        if done == after:
            victim.send_signal(signal.SIGKILL)

    return grade_class(
        class_.place,
        {ASSIGNMENT: NAME},
        settings(class_.course.root),
        on_graded=on_graded,
        run=lambda tasks: run_on_cluster(tasks, cluster.address, JAIL),
    )


@pytest.mark.parametrize("after", [1, STUDENTS // 2])
def test_a_worker_that_is_lost_costs_nothing(
    class_: Class, calm: object, cluster: Cluster, after: int
) -> None:
    graded = grade(class_, cluster, cluster.workers[0], after)
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert [one.submission.student for one in graded] == class_.students
    assert results(class_.place) == calm


def test_a_scheduler_that_is_lost_is_told_and_the_rest_is_graded_elsewhere(
    class_: Class, calm: object, cluster: Cluster
) -> None:
    with pytest.raises(ClusterError, match="the scheduler is gone"):
        grade(class_, cluster, cluster.scheduler, 2)
    before = {path.stem for path in (class_.place / ".attn" / "results").rglob("*.json")}
    assert 2 <= len(before) < STUDENTS
    graded = class_.grade()
    assert {one.submission.student for one in graded if not one.fresh} == before
    assert results(class_.place) == calm
