"""What has been graded already, and with which seed: the folder .attn of a class.

A result is filed under a hash of everything that it depends on, and written whole or not at all. So a killed run goes
on where it stopped, and an unchanged submission is never graded twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from autograder.engine.submissions import GradingError
from autograder.kernels.gpu import interpreted

__all__ = ["Store", "Stored", "digest", "key_of", "write_whole"]

FOLDER = ".attn"


def digest(*parts: str) -> str:
    """A hash of texts, in order."""
    total = hashlib.sha256()
    for part in parts:
        total.update(f"{len(part)}:".encode() + part.encode())
    return total.hexdigest()


def key_of(notebook: Any, limit: object, jail: bool) -> str:
    """A hash of all that a result depends on, but for the seed: the rebuilt notebook, the limits, and the grader itself.

    It is the same whether `attn grade` or nbgrader has rebuilt the notebook.
    """
    cells = [
        [
            cell.cell_type,
            cell.source,
            cell.metadata.get("nbgrader", {}).get("grade_id"),
            cell.metadata.get("nbgrader", {}).get("points"),
            sorted(cell.metadata.get("tags", ())),
        ]
        for cell in notebook.cells
    ]
    return digest(_grader(), json.dumps(cells), repr(limit), str(jail), str(jail or interpreted()))


@cache
def _grader() -> str:
    """A hash of the grader's own text: a mended check grades everybody again."""
    package = Path(__file__).resolve().parents[1]
    parts = (
        "verdict",
        "trees.py",
        "case.py",
        "observation.py",
        "oracle",
        "checks",
        "exercises",
        "grading",
        "kernels",
        "engine",
    )
    files = [
        file
        for part in parts
        for file in sorted([package / part, *(package / part).rglob("*.py")])
        if file.is_file()
    ]
    return digest(*(file.read_text(encoding="utf-8") for file in files))


MOST_TURNS = 100
"""So many times a student is asked anew before the first questions come again."""


@dataclass(frozen=True)
class Stored:
    """One graded submission: its key, the notebook with outputs, the seed, and why it ended early ("" if not)."""

    key: str
    notebook: str
    seed: int
    problem: str
    ran: bool


class Store:
    """The results of a class, in `root`/.attn."""

    def __init__(self, root: Path):
        self.folder = root / FOLDER

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Hold this class for one grader. Raises: GradingError if another is at work on it."""
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise GradingError(
                    f"{self.folder.parent}: is being graded by another attn; wait for it to end"
                ) from error
            yield  # the lock goes with this process, however it ends

    def seed_for(self, student: str, assignment: str) -> int:
        """The seed of a submission: secret, and the same if a run is repeated.

        A class is asked the same, which is fair, and is reckoned once. Who has a result on record, and so may have read
        its seed, is asked anew.
        """
        secret, before = self._secret(), self.find(student, assignment)
        seeds = [int(digest(secret, assignment, str(turn))[:12], 16) % 2**31 for turn in range(MOST_TURNS)]
        seen = seeds.index(before.seed) if before is not None and before.seed in seeds else -1
        return seeds[(seen + 1) % MOST_TURNS]

    def _secret(self) -> str:
        path = self.folder / "secret"
        if not path.exists():
            write_whole(path, secrets.token_hex(32), mode=0o600, sync=True)
        return path.read_text()

    def find(self, student: str, assignment: str, key: str | None = None) -> Stored | None:
        """The result of a submission, if there is one, and (with `key`) if it still is about the same text."""
        try:
            stored = Stored(**json.loads(self._path(student, assignment).read_text(encoding="utf-8")))
        except (FileNotFoundError, json.JSONDecodeError, TypeError, UnicodeDecodeError):
            return None  # nothing there, or not ours: it is graded again
        return stored if key in (None, stored.key) else None

    def keep(self, student: str, assignment: str, stored: Stored) -> None:
        """File a result."""
        write_whole(self._path(student, assignment), json.dumps(asdict(stored)), mode=0o600)

    def entered(self, student: str, assignment: str) -> str:
        """The key of the result that the gradebook holds, "" if it holds none."""
        path = self._path(student, assignment).with_suffix(".entered")
        return path.read_text() if path.exists() else ""

    def enter(self, student: str, assignment: str, key: str) -> None:
        """Note that the gradebook holds the result `key`."""
        write_whole(self._path(student, assignment).with_suffix(".entered"), key)

    def forget(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Drop the results of (student, assignment) pairs: they will be graded again, with the same seeds."""
        for student, assignment in pairs:
            self._path(student, assignment).unlink(missing_ok=True)

    def _path(self, student: str, assignment: str) -> Path:
        return self.folder / "results" / assignment / f"{student}.json"


def write_whole(path: Path, text: str, mode: int = 0o644, sync: bool = False) -> None:
    """Write a file so that it is there with all its text, or not at all; with `sync`, even if the power fails.

    Raises: OSError, naming the file.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error
