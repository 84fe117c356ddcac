"""What the tests of the engine share: one zygote, and things outside the jail that nobody may touch."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from autograder.engine.isolation import isolation
from autograder.engine.nursery import Nursery

REPO = Path(__file__).parents[2]
NOTEBOOK = "01_basic_attention/basic_attention.ipynb"


@pytest.fixture(scope="session")
def jail() -> None:
    """Skip where no jail can be had: hostile code is run in one or not at all."""
    if problem := isolation().problem:
        pytest.skip(f"no jail: {problem}")


@pytest.fixture(scope="module")
def nursery(jail: None) -> Iterator[Nursery]:
    """A zygote for all tests of a module."""
    with Nursery() as found:
        found.wait_until_ready()
        yield found


@dataclass
class Outside:
    """What lies outside the jail: a course, a home, and two servers that nobody should call.

    secret: a word that stands in every file of the course and the home.
    """

    course: Path
    home: Path
    secret: str
    port: int
    address: str
    servers: list[socket.socket] = field(default_factory=list)

    def fingerprint(self) -> str:
        """A hash of every file of the course, the home, and this project."""
        total = hashlib.sha256()
        folders = (
            self.course,
            self.home,
            *(REPO / name for name in ("autograder", "solutions", "course/release")),
        )
        for path in sorted(path for folder in folders for path in folder.rglob("*") if path.is_file()):
            if "__pycache__" not in path.parts:
                total.update(f"{path}:{path.stat().st_mode}:".encode() + path.read_bytes())
        return total.hexdigest()

    def was_called(self) -> bool:
        """Whether anybody has connected to a server."""
        for server in self.servers:
            server.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                server.accept()
                return True
        return False


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    """A course with a gradebook, settings and another student's work; a home; listeners on loopback and in abstract space."""
    place, secret = tmp_path_factory.mktemp("outside"), f"CANARY-{secrets.token_hex(8)}"
    course, home = place / "course", place / "home"
    for path in (
        course / "gradebook.db",
        course / "nbgrader_config.py",
        course / ".attn/secret",
        course / "source" / NOTEBOOK,
        course / "submitted/honest" / NOTEBOOK,
        home / ".netrc",
        home / ".ssh/id_rsa",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secret, encoding="utf-8")
        path.chmod(0o666)
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as abstract:
        tcp.bind(("127.0.0.1", 0))
        address = f"attn-test-{os.getpid()}"
        abstract.bind(f"\0{address}")
        for server in (tcp, abstract):
            server.listen()
        yield Outside(course, home, secret, tcp.getsockname()[1], address, [tcp, abstract])
