"""The jail: what a worker gives up before it runs a student's first line.

Own mount, pid, network, ipc and uts namespaces (and a user namespace where the grader is not root), a private root of
read-only binds with one small tmpfs, an own uid, resource limits, no capabilities, no new privileges, Landlock and
seccomp where the kernel has them, an empty environment, and death with the parent.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autograder.engine.worker import kernel_calls as kernel

__all__ = ["Bounds", "JailError", "enter", "hidden_paths", "readable_paths", "set_limits"]

FIRST_UID = 210_000
"""Workers of a root grader get uids from here on, one for each slot."""

SCRATCH = "/scratch"
"""The one folder a worker may write to. Not /tmp, below which a virtual environment may lie."""

DEVICES = ("null", "zero", "urandom", "random")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")


class JailError(Exception):
    """This machine does not let the worker into a jail; the text says what failed."""


@dataclass(frozen=True)
class Bounds:
    """What a worker may use. Seconds, bytes and counts; they hold for one submission.

    address_space is what it may map beyond what the zygote holds. processes counts threads, too.
    """

    cpu_seconds: int = 120
    address_space: int = 4 << 30
    file_size: int = 32 << 20
    disk: int = 64 << 20
    processes: int = 64
    open_files: int = 256

    def to_dict(self) -> dict[str, Any]:
        """For the wire."""
        return asdict(self)


def readable_paths() -> list[str]:
    """What a worker may read: the system's libraries, this Python and its packages."""
    packages = [path for path in sys.path if path and "-packages" in path]
    homes = (*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *packages)
    unique = sorted({os.path.realpath(path) for path in homes if os.path.exists(path)})
    return [path for path in unique if not any(path.startswith(f"{other}/") for other in unique)]


def hidden_paths() -> list[str]:
    """What lies below a readable path and must not be read: oracles, answers, solutions, the course."""
    package = Path(__file__).resolve().parents[2]
    kept = [package, *(package.parent / name for name in ("solutions", "course"))]
    readable = readable_paths()
    return [str(path) for path in kept if path.is_dir() and any(str(path).startswith(f"{one}/") for one in readable)]


def set_limits(bounds: Bounds) -> None:
    """Set the resource limits of this process and its children."""
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, value in (
        (resource.RLIMIT_CPU, bounds.cpu_seconds),
        (resource.RLIMIT_AS, mapped + bounds.address_space),
        (resource.RLIMIT_FSIZE, bounds.file_size),
        (resource.RLIMIT_NPROC, bounds.processes),
        (resource.RLIMIT_NOFILE, bounds.open_files),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (capped, capped))


def enter(slot: int, bounds: Bounds, channel: int) -> None:
    """Move this freshly forked process into a jail of its own; on return it runs there as process 1.

    The calling process stays behind as a guard that waits for the jailed one and then exits as it did. `channel` is
    the one file descriptor, besides stdin, stdout and stderr (on /dev/null), that goes along.
    Raises: JailError if the machine refuses a step; nothing has been run then.
    """
    try:
        kernel.die_with_parent()
        _silence(channel)
        root = os.geteuid() == 0
        flags = kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
        if not root:
            _own_user_namespace()
        kernel.unshare(flags)
        set_limits(bounds)
        guard = os.getpid()
        child = os.fork()
        if child:
            os.close(channel)
            _guard(child, bounds.cpu_seconds)
        kernel.die_with_parent()
        if os.getppid() == 0 and guard <= 0:  # the guard died in between
            os._exit(1)
        _private_root(bounds)
        if root:
            os.setgroups([])
            os.setresgid(*[FIRST_UID + slot] * 3)
            os.setresuid(*[FIRST_UID + slot] * 3)
            kernel.die_with_parent()  # setresuid cleared it
        os.environ.clear()
        os.environ.update(HOME=SCRATCH, TMPDIR=SCRATCH, PATH="/usr/bin:/bin", LANG="C.UTF-8", OMP_NUM_THREADS="1")
        tempfile.tempdir = None
        kernel.no_new_privileges()
        kernel.drop_capabilities()
        kernel.undumpable()
        kernel.restrict_paths([*readable_paths(), "/dev"], [SCRATCH, *(f"/dev/{name}" for name in DEVICES)])
        kernel.filter_system_calls()
    except OSError as error:
        raise JailError(str(error)) from error


def _silence(channel: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    kernel.close_from(3, channel)


def _own_user_namespace() -> None:
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(kernel.CLONE_NEWUSER)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _guard(child: int, cpu_seconds: int) -> None:
    """Wait for the jailed process, and exit as it did; never returns."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _, status, used = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        # The first process of a namespace does not hear SIGXCPU: at the limit the kernel kills it outright.
        late = os.WTERMSIG(status) == signal.SIGKILL and used.ru_utime + used.ru_stime >= cpu_seconds - 0.1
        os._exit(128 + (signal.SIGXCPU if late else os.WTERMSIG(status)))
    os._exit(os.WEXITSTATUS(status))


def _private_root(bounds: Bounds) -> None:
    """A root made of a tmpfs: read-only binds, a few devices, and a small writable folder."""
    paths = {path: os.path.isdir(path) for path in readable_paths()}
    hidden = hidden_paths()
    links = {link: os.readlink(link) for link in ("/bin", "/lib", "/lib64", "/sbin") if os.path.islink(link)}
    kernel.make_mounts_private()
    kernel.small_disk("/tmp", 1 << 20)  # any folder would do: it is only where the new root is put together
    os.mkdir("/tmp/old")
    kernel.pivot("/tmp", "/tmp/old")
    for path, is_folder in paths.items():
        os.makedirs(path if is_folder else os.path.dirname(path), mode=0o755, exist_ok=True)
        if not is_folder:
            Path(path).touch()
        kernel.bind_read_only(f"/old{path}", path)
    for path in hidden:
        kernel.small_disk(path, 4096)
        kernel.read_only(path)
    os.makedirs("/dev", exist_ok=True)
    for name in DEVICES:
        Path(f"/dev/{name}").touch()
        kernel.bind_device(f"/old/dev/{name}", f"/dev/{name}")
    for link, target in links.items():
        os.symlink(target, link)
    kernel.let_go("/old")
    os.rmdir("/old")
    os.mkdir(SCRATCH)
    kernel.small_disk(SCRATCH, bounds.disk)
    if not os.path.exists("/tmp"):
        os.symlink(SCRATCH, "/tmp")
    kernel.read_only("/")
    os.chdir(SCRATCH)
