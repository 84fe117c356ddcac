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
from functools import cache
from pathlib import Path
from typing import Any

from autograder.engine.worker import kernel_calls as kernel

__all__ = ["Bounds", "JailError", "enter", "hidden_paths", "readable_paths", "set_limits"]

FIRST_UID = 210_000
"""Workers of a root grader get uids from here on, each another than all that run beside it."""

OUT_OF_MEMORY = 128 + 65
"""A guard's exit status when all processes of a submission together took too much memory. No signal has number 65."""

WATCH_SECONDS = 0.25
"""How often a guard adds up the memory of its worker's processes."""

SCRATCH = "/scratch"
"""The one folder a worker may write to. Not /tmp, below which a virtual environment may lie."""

DEVICES = ("null", "zero", "urandom", "random")
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")


class JailError(Exception):
    """This machine does not let the worker into a jail; the text says what failed."""


@dataclass(frozen=True)
class Bounds:
    """What a worker may use. Seconds, bytes and counts; they hold for one submission.

    address_space is what one process may map, and all its processes together may fill, beyond what the zygote holds.
    processes counts threads, too.
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


@cache
def readable_paths() -> tuple[str, ...]:
    """What a worker may read: the system's libraries, this Python and its packages."""
    packages = [path for path in sys.path if path and "-packages" in path]
    homes = (*SYSTEM, sys.prefix, sys.base_prefix, sys.exec_prefix, *packages)
    unique = sorted({os.path.realpath(path) for path in homes if os.path.exists(path)})
    return tuple(path for path in unique if not any(path.startswith(f"{other}/") for other in unique))


@cache
def hidden_paths() -> tuple[str, ...]:
    """What lies below a readable path and must not be read: oracles, answers, solutions, the course.

    Wherever this project is installed: the running copy may not be the only one.
    """
    package = Path(__file__).resolve().parents[2]
    readable = readable_paths()
    roots = {package.parent, *(Path(os.path.realpath(path)) for path in sys.path if path)}
    for prefix in {sys.prefix, sys.base_prefix, "/usr", "/usr/local"}:
        roots.update(Path(os.path.realpath(prefix)).glob("lib*/python3*/*-packages"))
    kept = [root / name for root in sorted(roots) for name in (package.name, "solutions", "course")]
    return tuple(
        str(path)
        for path in kept
        if path.is_dir()
        and not path.is_symlink()
        and any(str(path).startswith(f"{one}/") for one in readable)
    )


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


def enter(number: int, bounds: Bounds, channel: int) -> None:
    """Move this freshly forked process into a jail of its own; on return it runs there as process 1.

    The calling process stays behind as a guard: it watches the memory of the jailed ones, ends them on SIGTERM or when
    its parent ends, and exits as process 1 did. `number` makes the uid where the grader is root; `channel` is the one
    file descriptor, besides stdin, stdout and stderr (on /dev/null), that goes along.
    Raises: JailError if the machine refuses a step; nothing has been run then.
    """
    try:
        os.setsid()  # no signal to a process group, from here or from a terminal, crosses
        kernel.die_with_parent(signal.SIGTERM)
        _silence(channel)
        root = os.geteuid() == 0
        flags = (
            kernel.CLONE_NEWNS
            | kernel.CLONE_NEWPID
            | kernel.CLONE_NEWNET
            | kernel.CLONE_NEWIPC
            | kernel.CLONE_NEWUTS
        )
        if not root:
            _own_user_namespace()
        kernel.unshare(flags)
        processes = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
        awaited = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, signal.SIGTERM))
        child = os.fork()
        if child:
            os.close(channel)
            _guard(child, processes, bounds)
        os.close(processes)
        signal.pthread_sigmask(signal.SIG_SETMASK, awaited)
        os.setsid()
        kernel.die_with_parent()
        set_limits(bounds)
        _private_root(bounds)
        kernel.drop_bounding_set()
        if root:
            os.setgroups([])
            os.setresgid(*[FIRST_UID + number] * 3)
            os.setresuid(*[FIRST_UID + number] * 3)
            kernel.die_with_parent()  # setresuid cleared it
        os.environ.clear()
        os.environ.update(
            HOME=SCRATCH,
            TMPDIR=SCRATCH,
            PATH="/usr/bin:/bin",
            LANG="C.UTF-8",
            OMP_NUM_THREADS="1",
            TRITON_INTERPRET="1",
        )
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


def _guard(child: int, processes: int, bounds: Bounds) -> None:
    """Wait for the jailed process, watch over it, and exit as it did; never returns.

    processes: /proc as a file descriptor, because the jail's root, where it is not, becomes this process's too.
    """
    allowed = _memory(child, processes) + bounds.address_space
    while True:
        ended, status, used = os.wait4(child, os.WNOHANG)
        if ended:
            break
        news = signal.sigtimedwait((signal.SIGCHLD, signal.SIGTERM), WATCH_SECONDS)
        stopped = news is not None and news.si_signo == signal.SIGTERM
        if stopped or _memory(child, processes) > allowed:
            os.kill(child, signal.SIGKILL)  # and with it, its whole pid namespace
            os.waitpid(child, 0)
            os._exit(128 + signal.SIGKILL if stopped else OUT_OF_MEMORY)
    if os.WIFSIGNALED(status):
        # The first process of a namespace does not hear SIGXCPU: at the limit the kernel kills it outright.
        late = (
            os.WTERMSIG(status) == signal.SIGKILL
            and used.ru_utime + used.ru_stime >= bounds.cpu_seconds - 0.1
        )
        os._exit(128 + (signal.SIGXCPU if late else os.WTERMSIG(status)))
    os._exit(min(os.WEXITSTATUS(status), 127))


def _memory(first: int, processes: int) -> int:
    """Bytes of memory that a process and its descendants fill, apart from files. What forks share counts for each."""
    total, waiting = 0, [first]
    while waiting:
        process = waiting.pop()
        for line in _lines(f"{process}/status", processes):
            if line.startswith(("RssAnon:", "RssShmem:", "VmSwap:")):
                total += int(line.split()[1]) << 10
        for thread in _threads(process, processes):
            for line in _lines(f"{process}/task/{thread}/children", processes):
                waiting += [int(number) for number in line.split()]
    return total


def _threads(process: int, processes: int) -> list[str]:
    try:
        folder = os.open(f"{process}/task", os.O_RDONLY, dir_fd=processes)
    except OSError:
        return []  # it has just ended
    try:
        return os.listdir(folder)
    except OSError:
        return []
    finally:
        os.close(folder)


def _lines(path: str, processes: int) -> list[str]:
    try:
        with open(os.open(path, os.O_RDONLY, dir_fd=processes)) as file:
            return file.readlines()
    except OSError:
        return []  # it has just ended


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
