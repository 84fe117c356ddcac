"""Run a notebook in a kernel of its own, whatever the code in it does."""

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from nbgrader.utils import is_grade, is_solution

from autograder.engine.settle import refusal

TIMED_OUT = "CellTimeoutError"


def run(notebook: NotebookNode, timeout: int, data: Path) -> str | None:
    """Run all cells in a fresh kernel and a folder that is deleted afterwards, writing outputs into
    `notebook`.

    The folder holds copies of the files in `data`, notebooks excepted. A cell may take `timeout` seconds;
    then it is interrupted and the next one runs.
    Returns None, or why the run ended early; then every grade cell not reached holds that reason as an error.
    """
    with tempfile.TemporaryDirectory(prefix="attn-run-", ignore_cleanup_errors=True) as folder:
        shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.ipynb", ".*"), dirs_exist_ok=True)
        client = _Client(
            notebook,
            km=_manager(),
            timeout=timeout,
            interrupt_on_timeout=True,
            error_on_timeout={
                "ename": TIMED_OUT,
                "evalue": f"the cell was stopped after {timeout} s",
                "traceback": [],
            },
            allow_errors=True,
            raise_on_iopub_timeout=True,
            shutdown_kernel="immediate",
            resources={"metadata": {"path": folder}},
            log=logging.Logger("attn.kernel", logging.CRITICAL),
        )
        client.owns_km = True
        _running.add(client)
        try:
            client.execute(env=_environment(folder))
        except DeadKernelError:
            return _stop(client, "the kernel died")
        except CellTimeoutError:
            return _stop(client, f"the kernel could not be interrupted after {timeout} s")
        finally:
            _running.discard(client)
    return None


def stop_all() -> None:
    """Kill the kernels that run now; their runs end early."""
    for client in list(_running):
        process = getattr(getattr(client.km, "provisioner", None), "process", None)
        if process is not None:
            process.kill()


_running: set["_Client"] = set()


class _Client(NotebookClient):
    """nbclient's client that remembers which cell it runs, and records errors that leave no output behind."""

    current = 0

    def __init__(self, notebook: NotebookNode, **options: object):
        super().__init__(notebook, **options)  # type: ignore[arg-type]
        self.on_cell_start = self._remember
        self.on_cell_executed = self._record

    def _remember(self, cell: NotebookNode, cell_index: int) -> None:
        self.current = cell_index

    def _record(self, cell: NotebookNode, cell_index: int, execute_reply: dict[str, Any]) -> None:
        reply = execute_reply["content"]
        seen = [output.ename for output in cell.outputs if output.output_type == "error"]
        if reply["status"] == "error" and reply["ename"] not in seen:
            message = f"{reply['ename']}: {reply['evalue']}"
            cell.outputs.append(
                new_output("error", ename=reply["ename"], evalue=reply["evalue"], traceback=[message])
            )


def _stop(client: _Client, what: str) -> str:
    """Write into every grade cell that did not run why it did not; the reason."""
    stopped = client.nb.cells[client.current]
    first = next((line for line in stopped.source.split("\n") if line.strip()), "")
    reason = f"{what} in the cell that begins with: {first.strip()[:60]}"
    for cell in client.nb.cells[client.current :]:
        if cell.cell_type == "code" and is_grade(cell) and not is_solution(cell):
            cell.outputs = [refusal(reason)]
    return reason


def _manager() -> AsyncKernelManager:
    """A manager whose `python3` is this very Python, whatever kernels the user has installed elsewhere."""
    specs = KernelSpecManager(kernel_dirs=[], ensure_native_kernel=True)
    manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=specs)
    if manager.has_trait("transport_encryption") and zmq.has("curve"):
        manager.transport_encryption = "auto"
    return manager


def _environment(folder: str) -> dict[str, str]:
    """The kernel's environment: none of the user's startup files; one thread, or kernels would fight."""
    package = str(Path(__file__).resolve().parents[2])
    paths = [
        path for path in (os.environ.get("PYTHONPATH"), package if package in sys.path else None) if path
    ]
    return {
        **os.environ,
        "IPYTHONDIR": folder,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        "NBGRADER_EXECUTION": "autograde",
    }
