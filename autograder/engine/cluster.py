"""Grading over a dask.distributed cluster: the same pure function, on other machines.

A cluster's worker starts a zygote of its own when the first submission reaches it. It needs this package and nothing
else: notebooks travel as text, and no disk is shared.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Iterable
from typing import Any
from uuid import uuid4

from autograder.engine.extras import CLUSTER
from autograder.engine.nursery import NurseryError
from autograder.engine.pool import TRIES, Result, Standby, Task

__all__ = ["ClusterError", "run_on_cluster"]

PATIENCE = 15.0
"""Seconds to wait for the scheduler to answer, and then for it to have a worker."""

ANSWERS = 5
"""Seconds in which a scheduler that is still there says so."""


class ClusterError(Exception):
    """The cluster cannot be used (any more); the text names its scheduler and the way out."""

    for_the_user = True


def run_on_cluster(coming: Iterable[Task], address: str, jail: bool = True) -> Generator[Result, None, None]:
    """Results of the tasks as they come, from the cluster whose scheduler is at `address`.

    A lost worker's tasks are run again elsewhere. Raises: ClusterError if the scheduler cannot be reached, has no
    workers, or is lost on the way.
    """
    tasks = list(coming)
    if not tasks:
        return
    try:
        from distributed import Client, as_completed
    except ImportError as error:
        raise ClusterError(
            f"--scheduler needs dask.distributed; install it in the clone: {CLUSTER}"
        ) from error
    logging.getLogger("distributed").setLevel(
        logging.CRITICAL
    )  # what it has to say comes as an exception, too
    try:
        client = Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise ClusterError(f"{address}: no scheduler answers there; expected tcp://host:port") from error
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise ClusterError(
                f"{address}: the scheduler has no workers; start some: dask worker {address}"
            ) from error

        by_key: dict[Any, Task] = {}

        def submit(task: Task) -> Any:
            future = client.submit(_on_worker, task, jail, key=f"attn-{uuid4()}", retries=TRIES)
            by_key[future.key] = task
            return future

        gone = ClusterError(
            f"{address}: the scheduler is gone. Start one, and the same command goes on from here"
        )
        completed = as_completed([submit(task) for task in tasks], loop=client.loop)
        for future in completed:
            if future.status in ("cancelled", "lost"):
                # It went with the scheduler, or with a worker that had the result.
                if not _answers(client):
                    raise gone
                completed.add(submit(by_key[future.key]))
                continue
            try:
                result = _result(future, by_key[future.key])
            except OSError as error:  # it went while the result was on its way
                raise gone from error
            yield result
            future.release()


def _answers(client: Any) -> bool:
    """Whether the scheduler is still there."""
    try:
        client.sync(client.scheduler.identity, callback_timeout=ANSWERS)
    except (OSError, TimeoutError, RuntimeError):
        return False
    return bool(client.status == "running")


def _result(future: Any, task: Task) -> Result:
    if future.status == "finished":
        found: Result = future.result()
        return found
    return Result(task.key, task.notebook, failure=f"the cluster could not run it: {future.exception()}")


_local = threading.local()


def _on_worker(task: Task, jail: bool) -> Result:
    """Grade one submission in a cluster's worker; each of its threads has a zygote of its own."""
    if not hasattr(_local, "standby"):
        _local.standby = Standby(jail)
    standby: Standby = _local.standby
    try:
        return standby.grade(task)
    except NurseryError as error:
        return Result(task.key, task.notebook, failure=str(error))
