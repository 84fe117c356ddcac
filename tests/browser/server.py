"""A Jupyter server of the tests' own: it touches nothing of the user's, and it is always stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-of-the-tests"
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+/[^?\s]*")
SERVER = {
    "ServerApp": {"allow_root": True, "open_browser": False},  # containers run tests as root
    "LabApp": {"extension_manager": "readonly"},  # the other manager asks a package index
}
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # cells off screen are in the page too
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


def free_port() -> int:
    """A port that nobody listens on. If it is taken meanwhile, Jupyter tries others and prints which."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextmanager
def serving(command: list[str], folder: Path, home: Path) -> Iterator[str]:
    """Start a Jupyter server in `folder`, with all its state in `home`; the address that it prints."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group of its own: a signal to it reaches the server behind the command
    )
    log = _Log(process)
    try:
        yield f"{log.address()}?token={TOKEN}"
    finally:
        for ending in (signal.SIGTERM, signal.SIGKILL):
            if log.open:
                with suppress(ProcessLookupError):  # a kernel may outlive its server by a second
                    os.killpg(process.pid, ending)
                log.wait(seconds=20)
        process.wait(timeout=20)


def _environment(home: Path) -> dict[str, str]:
    """Jupyter's folders in `home`, a known token, and kernels that import this tree."""
    home.mkdir(parents=True)
    (home / "jupyter_server_config.json").write_text(json.dumps(SERVER))
    for plugin, settings in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(settings))
    folders = {
        "HOME": home,
        "IPYTHONDIR": home / "ipython",
        "JUPYTER_CONFIG_DIR": home,
        "JUPYTER_DATA_DIR": home / "data",
        "JUPYTER_RUNTIME_DIR": home / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": home / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": home / "workspaces",
        "MPLCONFIGDIR": home / "matplotlib",
    }
    own = {name: str(folder) for name, folder in folders.items()}
    own["JUPYTER_TOKEN"] = TOKEN
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, **own}


class _Log:
    """What the server prints. It stays open until the server and its kernels have ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._lines: list[str] = []
        self._address = ""
        self._told = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    def address(self) -> str:
        """Wait until the server prints its address."""
        self._told.wait(timeout=90)
        assert self._address, "the server printed no address:\n" + "".join(self._lines)
        return self._address

    @property
    def open(self) -> bool:
        return self._reader.is_alive()

    def wait(self, seconds: float) -> None:
        """Wait until all who print into it have ended."""
        self._reader.join(seconds)

    def _read(self, printed: Iterator[str]) -> None:
        for line in printed:
            self._lines.append(line)
            found = ADDRESS.search(line)
            if found and not self._address:
                self._address = found[0]
                self._told.set()
        self._told.set()
