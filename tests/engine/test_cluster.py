"""Grading over a cluster, with a real scheduler and two real workers, gives what grading here gives."""

from __future__ import annotations

from collections.abc import Iterator

import nbformat
import pytest

from autograder.engine.cluster import ClusterError, run_on_cluster
from autograder.engine.nursery import Limit
from autograder.engine.pool import Task, run_all
from autograder.engine.rebuild import rebuild
from autograder.engine.results import reports_of
from tests.engine.scenes import JAIL, small_class
from tests.nbgrader.small_class import ASSIGNMENT, NAME, answered

distributed = pytest.importorskip("distributed", reason="the extra `cluster` is not installed")

WRONG = "def dot_scores(query, key):\n    return query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5"


@pytest.fixture(scope="module")
def scheduler() -> Iterator[str]:
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> list[Task]:
    """Three submissions: a right one, a wrong one, and one that ends its process."""
    place = small_class(tmp_path_factory.mktemp("cluster"), 1).place
    released = nbformat.read(place / "release" / ASSIGNMENT / NAME, as_version=4)
    texts = (
        answered(released),
        answered(released, dot_scores=WRONG),
        answered(released, dot_scores="import os\n\nos._exit(3)"),
    )
    return [Task(n, nbformat.writes(rebuild(released, one)), Limit(), 5) for n, one in enumerate(texts)]


def test_a_cluster_finds_what_this_machine_finds(scheduler: str, tasks: list[Task]) -> None:
    there, here = (
        {
            result.key: (result.problem, result.failure, reports_of(nbformat.reads(result.notebook, 4)))
            for result in results
        }
        for results in (run_on_cluster(tasks, scheduler, JAIL), run_all(tasks, 1, JAIL))
    )
    assert there == here
    assert there[0][2]["dot_scores"]["passed"]
    assert "divided by sqrt(D)" in there[1][2]["dot_scores"]["mistakes"]
    assert "exit status 3" in there[2][0]


def test_an_address_where_nobody_answers_is_told_in_one_line(
    tasks: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autograder.engine.cluster.PATIENCE", 1.0)
    with pytest.raises(ClusterError, match=r"^tcp://127\.0\.0\.1:9: no scheduler answers there; expected"):
        list(run_on_cluster(tasks, "tcp://127.0.0.1:9", JAIL))
