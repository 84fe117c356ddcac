"""`attn doctor`: what this machine offers."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator

from autograder.cli.errors import INSTALL_TORCH, torch_problem
from autograder.engine.extras import CLUSTER


def run_doctor() -> int:
    """Print one line for each thing that matters; 0 if a class can be graded safely here, 1 if not."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    grades = True
    for name, good, text in _findings():
        table.add_row({True: "ok", False: "missing", None: "-"}[good], name, text)
        grades = grades and not (good is False and name in ESSENTIAL)
    Console(markup=False).print(table)
    return 0 if grades else 1


ESSENTIAL = ("PyTorch", "nbgrader", "jail")
Finding = tuple[str, bool | None, str]


def _findings() -> Iterator[Finding]:
    yield (
        "Python",
        True,
        f"{platform.python_version()} on {platform.system()} {platform.release()}, {os.cpu_count()} cores",
    )
    yield _torch()
    yield _package("nbgrader", "nbgrader", "pip install 'nbgrader>=0.9.5'")
    yield _package("JupyterLab", "jupyterlab", "pip install jupyterlab")
    yield from _isolation()
    yield from _accelerators()
    cluster = f"attn grade --scheduler needs it; install it in the clone: {CLUSTER}"
    yield _optional("dask.distributed", "distributed", cluster)
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    yield "browser", None if browser is None else True, browser or "none: the browser tests are skipped"


def _torch() -> Finding:
    found = _package("PyTorch", "torch", INSTALL_TORCH)
    if found[1] and (problem := torch_problem()):
        return "PyTorch", False, f"cannot be imported ({problem}); install it again: {INSTALL_TORCH}"
    return found


def _package(name: str, module: str, remedy: str) -> Finding:
    if importlib.util.find_spec(module) is None:
        return name, False, remedy
    try:
        return name, True, importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return name, True, "of unknown version"


def _optional(name: str, module: str, remedy: str) -> Finding:
    found = _package(name, module, remedy)
    return found if found[1] else (name, None, remedy)


def _isolation() -> Iterator[Finding]:
    from autograder.engine.isolation import isolation

    found = isolation()
    if found.problem:
        yield "jail", False, f"{found.problem}; grading needs --no-sandbox here"
        return
    how = "namespaces, own uid" if found.root else "user, mount, pid, network and ipc namespaces"
    yield "jail", True, f"{how}, read-only root, resource limits, no capabilities"
    yield (
        "Landlock",
        found.landlock > 0 or None,
        f"version {found.landlock}" if found.landlock else "the kernel has none",
    )
    yield (
        "seccomp",
        found.seccomp or None,
        "filter on" if found.seccomp else f"not known for {platform.machine()}",
    )


def _accelerators() -> Iterator[Finding]:
    yield _optional("Triton", "triton", "not installed; the assignment gpu_kernels needs it, on Linux")
    if importlib.util.find_spec("torch") is None or torch_problem():
        return
    import torch

    if torch.cuda.is_available():
        yield "GPU", True, torch.cuda.get_device_name()
    else:
        yield (
            "GPU",
            None,
            "none: kernels are interpreted here and built for an H200; nothing is verified on a GPU",
        )
