"""Grading over a dask.distributed cluster: the same pure function, on other machines.

A cluster's worker starts a zygote of its own when the first submission reaches it. It needs this package and nothing
else: notebooks travel as text, and no disk is shared.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from autograder.engine.nursery import Nursery, NurseryError
from autograder.engine.pool import Result, Task, grade_task

__all__ = ["ClusterError", "run_on_cluster"]

PATIENCE = 30.0
"""Seconds to wait for the scheduler to answer."""


class ClusterError(Exception):
    """The scheduler cannot be reached; the text names it and the way out."""

    for_the_user = True


def run_on_cluster(tasks: list[Task], address: str, jail: bool = True) -> Iterator[Result]:
    """Results of the tasks as they come, from the cluster whose scheduler is at `address`.

    A lost worker's tasks are run again elsewhere. Raises: ClusterError if the scheduler cannot be reached.
    """
    if not tasks:
        return
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ClusterError("--scheduler needs the extra: pip install 'attention-coursework[cluster]'") from error
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"{address}: no scheduler answers there ({error}); expected tcp://host:port") from error
    with client:
        futures = {}
        for task in tasks:
            future = client.submit(_on_worker, task, jail, pure=False, retries=2)
            futures[future.key] = task
        for future in as_completed(list(_futures(client, futures))):
            task = futures[future.key]
            if future.status == "finished":
                yield future.result()
            else:
                yield Result(task.key, task.notebook, failure=f"the cluster could not run it: {future.exception()}")


def _futures(client: Any, futures: dict[str, Task]) -> Iterator[Any]:
    from distributed import Future

    return (Future(key, client) for key in futures)


_local = threading.local()


def _on_worker(task: Task, jail: bool) -> Result:
    """Grade one submission in a cluster's worker; each of its threads has a zygote of its own."""
    nursery = getattr(_local, "nursery", None)
    if nursery is None:
        nursery = _local.nursery = Nursery(jail, slot=threading.get_ident() % 10_000)
    try:
        return grade_task(task, nursery)
    except NurseryError as error:
        nursery.close()
        _local.nursery = None
        return replace(Result(task.key, task.notebook), failure=str(error))
