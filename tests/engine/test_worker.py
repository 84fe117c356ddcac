"""The student's side: a zygote with nothing to steal, workers that start alike and end whole, a tight jail."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.engine.dialogue import Stopped, Worker
from autograder.engine.isolation import isolation
from autograder.engine.nursery import Limit, Nursery, NurseryError
from autograder.engine.proxies import resolve
from autograder.engine.worker.jail import FIRST_UID, SCRATCH, Bounds
from tests.engine.scenes import children, ended

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
STUBBORN = """
while True:
    try:
        while True:
            pass
    except BaseException:
        pass
"""
jailed = pytest.mark.skipif(bool(isolation().problem), reason=f"no jail here: {isolation().problem}")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """A zygote without a jail."""
    with Nursery(jail=False) as nursery:
        yield nursery


@pytest.fixture(scope="module")
def prison() -> Iterator[Nursery]:
    """A zygote with one."""
    with Nursery(jail=True) as nursery:
        yield nursery


def ask(worker: Worker, source: str, name: str = "found") -> Any:
    """Run a cell that must succeed, and look at what it bound to `name`."""
    answer = worker.ask("run", source=source)
    assert answer.get("error") is None, answer
    return resolve(worker, name)


def outcome(nursery: Nursery, source: str, bounds: Bounds | None = None, **limit: float) -> Any:
    """What a cell binds to `found` in a worker of its own."""
    worker = nursery.worker(Limit(bounds=bounds or Bounds(), **limit))
    try:
        return ask(worker, source)
    finally:
        worker.close()


def end(nursery: Nursery, source: str, bounds: Bounds | None = None, **limit: float) -> str:
    """Why a worker that runs this cell is gone."""
    worker = nursery.worker(Limit(bounds=bounds or Bounds(), **limit))
    with pytest.raises(Stopped) as stopped:
        worker.ask("run", source=source, seconds=worker.limit.cell)
    assert worker.gone == str(stopped.value)
    with pytest.raises(Stopped):
        worker.ask("look", name="found")
    return worker.gone


# The zygote


def test_the_zygote_runs_exactly_one_thread(nursery: Nursery) -> None:
    nursery.wait_until_ready()
    assert nursery.process is not None
    assert len(os.listdir(f"/proc/{nursery.process.pid}/task")) == 1
    outcome(nursery, "import torch\nfound = float((torch.randn(300, 300) @ torch.randn(300, 300)).sum() * 0)")
    assert len(os.listdir(f"/proc/{nursery.process.pid}/task")) == 1, "after a worker has run"


LOADED = """
import gc, sys, types
gc.unfreeze()
alive = {o.__name__ for o in gc.get_objects() if isinstance(o, types.ModuleType)}
found = sorted(str(name) for name in alive | set(sys.modules))
secret = {"autograder", "solutions", "nbgrader", "nbformat", "nbconvert", "sqlalchemy", "jupytext", "pytest"}
found = [name for name in found if name.split(".")[0] in secret]
"""


def test_the_zygote_holds_no_oracle_no_checks_no_exercises_no_solutions_and_no_nbgrader(
    nursery: Nursery,
) -> None:
    loaded = set(outcome(nursery, LOADED))
    parts = ("wire", "worker", *(f"worker.{name}" for name in ("cells", "jail", "kernel_calls", "serve")))
    plain = {
        "autograder",
        "autograder.engine",
        "autograder.case",
        "autograder.circumstance",
        "autograder.observation",
        "autograder.kernels",
        "autograder.trees",
        "autograder.uses",
        "autograder.kernels.cross",
        "autograder.kernels.gpu",
        "autograder.kernels.far",
        "autograder.kernels.interpreter",
        "autograder.kernels.launches",
        "autograder.kernels.memory",
        "autograder.kernels.placing",
        "autograder.kernels.tiles",
    }  # how inputs are drawn, how calls and kernels are watched
    assert loaded - plain <= {f"autograder.engine.{part}" for part in parts}
    assert "autograder.engine.worker.serve" in loaded, "or this test looks in the wrong place"


def test_what_students_import_is_there_without_importing(nursery: Nursery) -> None:
    source = "import sys\nfound = [name in sys.modules for name in ('torch', 'numpy', 'matplotlib.pyplot')]"
    assert outcome(nursery, source) == [True] * 3


def test_a_zygote_that_has_threads_is_refused() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.send(b'{"ready": true, "threads": 3}')
    with pytest.raises(NurseryError, match="runs 3 threads"):
        Nursery(control=ours).wait_until_ready()
    theirs.close()
    ours.close()


DRAWS = """
import random, numpy, torch
found = (random.random(), float(numpy.random.rand()), torch.rand(1, dtype=torch.float64).item(),
         float(numpy.random.default_rng().random()))
"""


def test_two_workers_draw_different_numbers(nursery: Nursery) -> None:
    first, second = outcome(nursery, DRAWS), outcome(nursery, DRAWS)
    assert all(one != other for one, other in zip(first, second, strict=True))


def test_a_worker_begins_with_nothing_of_the_one_before(nursery: Nursery) -> None:
    outcome(nursery, "import torch\ntorch.allclose = None\nfound = 1\nmine = 2")
    source = "import torch\nfound = 'mine' in globals() or 'found' in globals() or torch.allclose is None"
    assert outcome(nursery, source) is False


def test_a_twin_serves_its_own_judge_and_outlives_the_first(nursery: Nursery) -> None:
    with Nursery(jail=False) as first:
        first.wait_until_ready()
        with Nursery(jail=False, control=first.twin()) as twin:
            assert outcome(twin, "found = 1") == 1
            assert first.process is not None
            first.process.kill()
            first.process.wait()
            assert outcome(twin, "found = 2") == 2


def test_a_killed_zygote_is_the_machines_fault_and_not_the_students() -> None:
    with Nursery(jail=False) as nursery:
        worker = nursery.worker(Limit())
        assert nursery.process is not None
        nursery.process.kill()
        nursery.process.wait()
        with pytest.raises(NurseryError, match="gone"):
            ask(worker, "while True:\n    pass")
        with pytest.raises(NurseryError, match="gone"):
            worker.ask("look", name="found")
        assert (worker.gone, bool(worker.lost)) == ("", True)
        with pytest.raises(NurseryError, match="gone"):
            nursery.worker(Limit())


# Cells


def run(nursery: Nursery, source: str) -> dict[str, Any]:
    worker = nursery.worker(Limit())
    try:
        return worker.ask("run", source=source)
    finally:
        worker.close()


def test_a_cell_shows_what_it_prints_and_displays(nursery: Nursery) -> None:
    answer = run(nursery, "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay({'a': 1})\n2 + 3")
    assert answer["error"] is None
    shown = [(output["kind"], output["text"]) for output in answer["outputs"]]
    assert ("stream", "err\n") in shown
    assert ("text", "{'a': 1}") in shown
    assert any(kind == "stream" and "out\n" in text for kind, text in shown)


def test_a_figure_becomes_a_picture(nursery: Nursery) -> None:
    source = "%matplotlib inline\nimport matplotlib.pyplot as plt\nfig, ax = plt.subplots()\ndisplay(fig)"
    assert "png" in {output["kind"] for output in run(nursery, source)["outputs"]}


FAILURES = [
    ("1 / 0", "ZeroDivisionError", "division by zero"),
    ("def f(:\n    pass", "SyntaxError", "(line 1 of the cell)"),
    ("raise SystemExit(3)", "SystemExit", "3"),
    ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("input('name?')", "StdinNotImplementedError|EOFError|OSError", ""),
]


@pytest.mark.parametrize(("source", "name", "message"), FAILURES)
def test_a_cell_that_fails_says_how_and_the_worker_goes_on(
    nursery: Nursery, source: str, name: str, message: str
) -> None:
    worker = nursery.worker(Limit())
    error = worker.ask("run", source=source)["error"]
    assert error["name"] in name.split("|")
    assert message in error["message"]
    assert ask(worker, "found = 7") == 7
    worker.close()


def test_an_endless_cell_is_interrupted_and_the_worker_goes_on(nursery: Nursery) -> None:
    worker = nursery.worker(Limit())
    answer = worker.ask("run", source="while True:\n    pass", seconds=0.2)
    error = answer.get("error") or answer.get("raised")
    assert error["name"] == "OutOfTime"
    assert ask(worker, "found = 7") == 7
    worker.close()


def test_a_worker_that_cannot_be_interrupted_is_killed(nursery: Nursery) -> None:
    reason = end(nursery, STUBBORN, cell=0.2, grace=0.2)
    assert reason == "the code did not finish within 0.2 s and could not be interrupted"


def test_a_submission_that_takes_too_long_in_all_is_stopped(nursery: Nursery) -> None:
    worker = nursery.worker(Limit(submission=0.3, grace=5))
    worker.ask("run", source="while True:\n    pass", seconds=30)
    with pytest.raises(Stopped, match=r"more than 0\.3 s in all"):
        worker.ask("run", source="found = 1")


ENDS = [
    ("import os\nos._exit(3)", "the process ended itself with exit status 3"),
    ("import os\nos._exit(0)", "the process ended itself with exit status 0"),
    ("import ctypes\nctypes.string_at(0)", "the process ended: a segmentation fault"),
    ("import os\nos.abort()", "the process ended: aborted"),
    ("import os\nos.closerange(3, 256)\nwhile True:\n    pass", "the process closed its connection"),
]


@pytest.mark.parametrize(("source", "reason"), ENDS)
def test_a_worker_that_ends_or_hangs_up_says_why(nursery: Nursery, source: str, reason: str) -> None:
    assert end(nursery, source) == reason


@jailed
@pytest.mark.parametrize(("source", "reason"), ENDS)
def test_a_jailed_worker_that_ends_or_hangs_up_says_why(prison: Nursery, source: str, reason: str) -> None:
    # The first process of a namespace ignores SIGABRT, whereupon abort() falls over its own feet.
    assert end(prison, source) == reason.replace("aborted", "a segmentation fault")


CHANNEL = """
import os, socket, stat, struct, json
number = next(n for n in range(3, 256) if os.path.lexists("/dev") and _is_socket(n))
channel = socket.socket(fileno=os.dup(number))
"""
IS_SOCKET = """
import os, stat
def _is_socket(n):
    try:
        return stat.S_ISSOCK(os.fstat(n).st_mode)
    except OSError:
        return False
"""
FORGERIES = [
    ("text = b'{\"d\": {\"outputs\": []}}'\nframe = struct.pack('>II', len(text), 0) + text", "not asked"),
    ("frame = struct.pack('>II', 2**31, 0)", "larger than allowed"),
    ("frame = struct.pack('>II', 3, 0) + b'[[['", "not JSON"),
]


@pytest.mark.parametrize(("frame", "reason"), FORGERIES)
def test_a_forged_reply_is_the_end_of_the_worker(nursery: Nursery, frame: str, reason: str) -> None:
    assert reason in end(
        nursery, f"{IS_SOCKET}{CHANNEL}{frame}\nchannel.sendall(frame)\nwhile True:\n    pass"
    )


def test_a_reply_that_is_too_large_is_refused(nursery: Nursery) -> None:
    worker = nursery.worker(Limit(reply=MIB))
    ask(worker, "import torch\nfound = 1\ndef large():\n    return torch.zeros(2**20)")
    with pytest.raises(Stopped, match="larger than allowed"):
        resolve(worker, "large")()


# The jail


@jailed
def test_the_jail_shows_libraries_and_nothing_else(prison: Nursery) -> None:
    source = f"""
import os
paths = ["/etc/passwd", "/proc/self", "/proc/1", "/root", "/home", "/sys", "/var", "/run", "/opt/secrets",
         {str(ROOT / "solutions")!r}, {str(ROOT / "course")!r}, {str(ROOT / "tests")!r},
         {str(ROOT / "autograder" / "exercises")!r}, {str(ROOT / "autograder" / "oracle")!r}, {os.getcwd()!r},
         {os.path.expanduser("~/.ssh")!r}]

def shows(path):
    try:
        return os.listdir(path) if os.path.isdir(path) else os.path.exists(path)
    except PermissionError:
        return False

found = [path for path in paths if shows(path)]
"""
    assert outcome(prison, source) == []


WRITES = """
import os, sys, torch
found = []
for path in ("/", "/usr", "/dev", sys.prefix, os.path.dirname(torch.__file__), "/scratch/deep"):
    try:
        os.makedirs("/scratch/deep", exist_ok=True)
        with open(os.path.join(path, "planted"), "w") as file:
            file.write("x")
        found.append(path)
    except OSError:
        pass
"""


@jailed
def test_only_the_scratch_folder_can_be_written_to(prison: Nursery) -> None:
    assert outcome(prison, WRITES) == [f"{SCRATCH}/deep"]


@jailed
def test_the_scratch_folder_is_new_for_each_worker(prison: Nursery) -> None:
    source = """
import os, tempfile
found = (os.getcwd(), os.listdir("."), tempfile.gettempdir())
open("mine", "w").close()
"""
    assert outcome(prison, source) == outcome(prison, source) == (SCRATCH, [], SCRATCH)


@jailed
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker a uid of its own")
def test_a_worker_has_no_way_back_to_root(prison: Nursery) -> None:
    source = """
import os
found = sorted({*os.getresuid(), *os.getresgid(), *os.getgroups()})
for change in (os.setuid, os.setgid, os.seteuid):
    try:
        change(0)
        found = "root again"
    except PermissionError:
        pass
"""
    found = outcome(prison, source)
    assert len(found) == 1
    assert found[0] >= FIRST_UID


@jailed
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker a uid of its own")
def test_no_two_workers_share_a_uid(prison: Nursery) -> None:
    with Nursery(jail=True, control=prison.twin()) as twin:
        workers = [one.worker(Limit()) for one in (prison, twin, prison)]
        uids = [ask(worker, "import os\nfound = os.getuid()") for worker in workers]
        for worker in workers:
            worker.close()
    assert len(set(uids)) == 3


@jailed
def test_no_capability_is_left(prison: Nursery) -> None:
    source = """
import ctypes
libc = ctypes.CDLL(None)
bounding_set = [n for n in range(64) if libc.prctl(23, n, 0, 0, 0) == 1]
found = (bounding_set, libc.prctl(39, 0, 0, 0, 0), libc.prctl(3, 0, 0, 0, 0))
"""
    assert outcome(prison, source) == ([], 1, 0), "bounding set, no_new_privs, dumpable"


@jailed
def test_there_is_no_network(prison: Nursery) -> None:
    source = """
import socket
found = []
for family, kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_STREAM),
                     (socket.AF_INET, socket.SOCK_DGRAM), (socket.AF_NETLINK, socket.SOCK_RAW)):
    try:
        with socket.socket(family, kind) as one:
            one.settimeout(1)
            one.connect(("127.0.0.1", 9) if family != socket.AF_NETLINK else (0, 0))
        found.append(family)
    except OSError:
        pass
"""
    assert outcome(prison, source) == []


@jailed
def test_an_abstract_socket_of_the_graders_machine_is_out_of_reach(prison: Nursery) -> None:
    name = f"\0attn-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        source = f"""
import socket
try:
    socket.socket(socket.AF_UNIX).connect({name!r})
    found = "connected"
except OSError as error:
    found = type(error).__name__
"""
        assert outcome(prison, source) in ("ConnectionRefusedError", "PermissionError")


@jailed
def test_the_environment_holds_nothing_of_the_graders(
    prison: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = outcome(prison, "import os\nfound = sorted(os.environ)")
    assert found == ["HOME", "LANG", "OMP_NUM_THREADS", "PATH", "TMPDIR", "TRITON_INTERPRET"]


def test_the_zygote_is_started_without_the_graders_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTN_TEST_SECRET", "a password")
    with Nursery(jail=False) as nursery:
        assert outcome(nursery, "import os\nfound = 'ATTN_TEST_SECRET' in os.environ") is False


@jailed
def test_processor_time_is_bounded_even_for_code_that_swallows_interrupts(prison: Nursery) -> None:
    assert end(prison, STUBBORN, Bounds(cpu_seconds=1)) == "the process ended: out of processor time"


@jailed
def test_memory_is_bounded_and_a_refusal_is_an_exception_there(prison: Nursery) -> None:
    source = """
import torch
found = []
for take in (lambda: torch.zeros(2**28), lambda: bytearray(2**30)):
    try:
        take()
    except (RuntimeError, MemoryError) as error:
        found.append(type(error).__name__)
"""
    assert outcome(prison, source, Bounds(address_space=512 * MIB)) == ["RuntimeError", "MemoryError"]
    assert outcome(prison, source, Bounds(address_space=4096 * MIB)) == []


@jailed
def test_processes_are_bounded(prison: Nursery) -> None:
    source = """
import os, signal
found, children = 0, []
try:
    for _ in range(200):
        child = os.fork()
        if child == 0:
            signal.pause()
        children.append(child)
except OSError:
    found = len(children)
"""
    assert 0 < outcome(prison, source, Bounds(processes=20)) < 20


@jailed
def test_the_size_of_a_file_is_bounded(prison: Nursery) -> None:
    source = """
import errno, os
try:
    with open("large", "wb") as file:
        for _ in range(100):
            file.write(bytes(2**16))
            file.flush()
    found = "written"
except OSError as error:
    found = (errno.errorcode[error.errno], os.path.getsize("large"))
"""
    assert outcome(prison, source, Bounds(file_size=MIB)) == ("EFBIG", MIB)


@jailed
def test_the_disk_is_bounded(prison: Nursery) -> None:
    source = """
import errno, os
total = 0
try:
    for n in range(100):
        with open(f"part{n}", "wb", buffering=0) as file:
            total += file.write(bytes(2**18))
    found = "written"
except OSError as error:
    found = (errno.errorcode[error.errno], total <= 2 * 2**20)
"""
    assert outcome(prison, source, Bounds(disk=2 * MIB)) == ("ENOSPC", True)


@jailed
def test_the_number_of_files_is_bounded(prison: Nursery) -> None:
    source = """
import errno
try:
    for n in range(10_000):
        open(f"empty{n}", "w").close()
    found = "written"
except OSError as error:
    found = errno.errorcode[error.errno]
"""
    assert outcome(prison, source) == "ENOSPC"


@jailed
def test_open_files_are_bounded(prison: Nursery) -> None:
    source = """
import errno, os
try:
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(1000)]
    found = "opened"
except OSError as error:
    found = errno.errorcode[error.errno]
"""
    assert outcome(prison, source) == "EMFILE"


@jailed
def test_a_worker_sees_its_own_processes_only_and_cannot_signal_others(prison: Nursery) -> None:
    source = f"""
import os, signal
found = [os.getpid(), os.getppid()]
for pid in {sorted({os.getpid(), os.getppid(), 2} - {1})} + [-1]:  # 1 is the worker itself
    try:
        os.kill(pid, signal.SIGTERM)
        found.append(pid) if pid != -1 else None
    except OSError:
        pass
"""
    assert outcome(prison, source) == [1, 0]


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
found = []
for name, call in {
    "unshare": lambda: libc.unshare(0x10000000),
    "mount": lambda: libc.mount(b"none", b"/scratch", b"tmpfs", 0, b""),
    "ptrace": lambda: libc.ptrace(0, 0, 0, 0),
    "chroot": lambda: libc.chroot(b"/scratch"),
    "personality": lambda: libc.personality(0x0040000),
    "keyctl": lambda: libc.syscall(250, 0, 0, 0, 0, 0),
}.items():
    if call() != -1:
        found.append(name)
"""


@jailed
@pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="the numbers of the system calls are those of x86_64"
)
def test_system_calls_that_no_answer_needs_are_refused(prison: Nursery) -> None:
    assert outcome(prison, CALLS) == []


@jailed
def test_threads_and_programs_still_work_in_the_jail(prison: Nursery) -> None:
    source = """
import subprocess, threading
said = []
thread = threading.Thread(target=said.append, args=("hello",))
thread.start()
thread.join()
found = (said, subprocess.run(["/bin/echo", "hi"], capture_output=True, text=True).stdout)
"""
    assert outcome(prison, source) == (["hello"], "hi\n")


@jailed
def test_nothing_that_a_worker_started_outlives_it(prison: Nursery) -> None:
    worker = prison.worker(Limit())
    source = """
import os, signal
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()
found = 1
"""
    ask(worker, source)
    started = [worker.pid, *children(worker.pid)]
    assert len(started) >= 2 + 3, "the guard, the jailed process, and its children"
    worker.close()
    assert all(ended(pid) for pid in started)


@jailed
def test_a_worker_dies_with_its_zygote() -> None:
    with Nursery(jail=True) as nursery:
        worker = nursery.worker(Limit())
        started = [worker.pid, *children(worker.pid)]
        assert nursery.process is not None
        nursery.process.kill()
        nursery.process.wait()
    assert len(started) == 2
    assert all(ended(pid) for pid in started)


@jailed
def test_a_zygote_kills_its_own_workers_and_nobody_else(prison: Nursery) -> None:
    bystander = os.fork()
    if bystander == 0:
        while True:
            os.read(os.pipe()[0], 1)
    prison.kill(bystander)
    assert outcome(prison, "found = 1") == 1, "the request has been served"
    assert os.waitpid(bystander, os.WNOHANG) == (0, 0)
    os.kill(bystander, 9)
    os.waitpid(bystander, 0)
