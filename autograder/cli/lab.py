"""`attn lab`: JupyterLab on a working copy, never on the committed release."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import typer

from autograder.cli.errors import UserError, require_torch

WORK = "attention-work"
"""The working copy's name by default; .gitignore names it, too."""


def run_lab(folder: Path, no_browser: bool, port: int, copy_only: bool, root: Path | None) -> int:
    """Copy what is missing in `folder`, then become JupyterLab there."""
    require_torch()
    from autograder.weave import find_course

    course = find_course(root)
    notebooks = working_copy(course.root / "release", folder)
    if copy_only:
        return 0
    if importlib.util.find_spec("jupyterlab") is None:
        raise UserError("JupyterLab is not installed in this environment; install it: pip install jupyterlab")
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={folder.resolve()}",
        f"--port={port}",
    ]
    command.append(f"--LabApp.default_url=/lab/tree/{notebooks[0].as_posix()}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container one is root, and JupyterLab would refuse to start
    if no_browser:
        command.append("--no-browser")
    if sys.platform == "win32":
        return subprocess.call(command)
    sys.stdout.flush()
    os.execv(sys.executable, command)  # this process becomes JupyterLab: a signal to it stops JupyterLab


def working_copy(release: Path, folder: Path) -> list[Path]:
    """Copy released files that `folder` lacks; what lies there already is the student's, and stays.

    Returns the notebooks, relative to `folder`.
    Raises: UserError if there is no release, or `folder` is a file or lies in the course's own repository, elsewhere than
    in a folder of the default name.
    """
    notebooks = sorted(path.relative_to(release) for path in release.glob("*/*.ipynb"))
    if not notebooks:
        raise UserError(f"{release}: holds no notebooks; run `attn build` in a clone of the project first")
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; name a folder for your working copy")
    course = release.resolve().parent
    repository = _repository(course)
    place = folder.resolve()
    ignored = WORK in place.parts[len(repository.parts) :] and not place.is_relative_to(course)
    if place.is_relative_to(repository) and not ignored:
        raise UserError(
            f"{folder}: your working copy would lie among the course's own files in {repository}; name a folder outside, or "
            f"{repository / WORK}, which git ignores"
        )
    for path in sorted(path for path in release.rglob("*") if path.is_file()):
        if ".ipynb_checkpoints" in path.parts:
            continue
        target = folder / path.relative_to(release)
        if target.exists():
            typer.echo(f"{target}: yours, kept")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        typer.echo(f"{target}: copied")
    return notebooks


def _repository(course: Path) -> Path:
    """The folder of the project that a course belongs to; the course itself where it stands alone."""
    around = course.parent
    return around if any((around / name).exists() for name in (".git", "pyproject.toml")) else course
