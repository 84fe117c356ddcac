"""Whatever is killed, locked or full during a run: nothing is lost, nothing doubled, and a second run completes it.

ATTN_FAULT_STUDENTS=100 makes the class larger, and the faults more.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest

from autograder.cli.grade import Options, grade_folder
from autograder.engine import ledger as ledger_module
from autograder.engine.classroom import Graded
from autograder.engine.ledger import LedgerError
from autograder.engine.pool import Crew, Result, Task
from autograder.engine.store import Store
from autograder.weave import Course
from tests.engine.scenes import JAIL, Class, attn, children, ended, results, sandbox, small_class, standing
from tests.engine.test_ledger import hold
from tests.nbgrader.small_class import ASSIGNMENT, NAME, answered

STUDENTS = int(os.environ.get("ATTN_FAULT_STUDENTS", "12"))
Finish = Callable[[Path], list[Graded]]


@pytest.fixture(scope="module")
def handed_in(tmp_path_factory: pytest.TempPathFactory) -> Class:
    """A class that has not been graded, its secret drawn, so that every copy of it gets the same seeds."""
    made = small_class(tmp_path_factory.mktemp("faults"), STUDENTS)
    Store(made.place).seed_for("nobody", ASSIGNMENT)
    return made


@pytest.fixture(scope="module")
def calm(handed_in: Class, tmp_path_factory: pytest.TempPathFactory) -> object:
    """What an undisturbed run leaves behind."""
    copy = handed_in.copy(tmp_path_factory.mktemp("calm") / "class")
    assert all(one.fresh for one in copy.grade())
    return results(copy.place)


@pytest.fixture
def class_(handed_in: Class, tmp_path: Path) -> Class:
    return handed_in.copy(tmp_path / "class")


@pytest.fixture
def finish(handed_in: Class, monkeypatch: pytest.MonkeyPatch) -> Finish:
    """`attn grade` to its end, in this process."""

    def find_course(root: Path | None = None) -> Course:
        return handed_in.course

    monkeypatch.setattr("autograder.weave.find_course", find_course)
    return lambda place: grade_folder(place, Options(workers=2, sandbox=JAIL))[1]


def kept(place: Path) -> set[str]:
    """Students whose result has been filed."""
    return {path.stem for path in (place / ".attn" / "results").rglob("*.json")}


def lines(process: subprocess.Popen[str]) -> Iterator[str]:
    """What a grader says of each submission, as it says it."""
    assert process.stderr is not None
    for line in process.stderr:
        if ASSIGNMENT in line:
            yield line


# The grader itself


@pytest.mark.parametrize("after", [0, 1, STUDENTS // 2, STUDENTS - 1, STUDENTS])
def test_a_grader_that_is_killed_goes_on_where_it_stopped(
    class_: Class, calm: object, finish: Finish, after: int
) -> None:
    grader = attn(class_.course, "grade", class_.place, "--workers", "2", *sandbox())
    said = [line for line, _ in zip(lines(grader), range(after), strict=False)]
    if not after:
        assert grader.stderr is not None
        while not (class_.place / ".attn" / "lock").exists():  # it has begun
            assert grader.poll() is None
    started = children(grader.pid)
    grader.kill()
    grader.communicate()
    assert len(said) == after
    before = kept(class_.place)
    assert len(before) >= after, "what has been told has been filed"
    graded = finish(class_.place)
    assert results(class_.place) == calm
    assert {one.submission.student for one in graded if not one.fresh} == before, "nothing is graded twice"
    assert all(ended(pid) for pid in started), "and nothing of the first run is left"


def test_a_grader_that_is_interrupted_says_one_line_and_goes_on_later(
    class_: Class, calm: object, finish: Finish
) -> None:
    last = class_.submission(class_.students[-1])
    text = last.read_text(encoding="utf-8")
    released = nbformat.read(class_.place / "release" / ASSIGNMENT / NAME, as_version=4)
    sleeps = answered(
        released, dot_scores="import time\n\ntime.sleep(25)"
    )  # the class is not done before the signal
    last.write_text(nbformat.writes(sleeps), encoding="utf-8")
    grader = attn(class_.course, "grade", class_.place, *sandbox(), start_new_session=True)
    next(lines(grader))
    started = children(grader.pid)
    os.killpg(grader.pid, signal.SIGINT)  # as Ctrl-C does: the whole group hears it
    out, err = grader.communicate()
    assert grader.returncode == 130
    assert [line for line in err.splitlines() if line.strip() and ASSIGNMENT not in line] == [
        "attn: interrupted"
    ]
    assert "Traceback" not in out + err
    assert all(ended(pid) for pid in started)
    last.write_text(text, encoding="utf-8")
    before = kept(class_.place)
    graded = finish(class_.place)
    assert results(class_.place) == calm
    assert sum(one.fresh for one in graded) == STUDENTS - len(before)


def test_two_graders_of_one_class_do_not_meet(class_: Class) -> None:
    with Store(class_.place).alone():
        second = attn(class_.course, "grade", class_.place, *sandbox())
        out, err = second.communicate()
    assert (second.returncode, out) == (2, "")
    assert err.strip() == f"attn: {class_.place}: is being graded by another attn; wait for it to end"
    assert kept(class_.place) == set()


# Its helpers


def test_whatever_helper_is_killed_the_run_ends_as_an_undisturbed_one(class_: Class, calm: object) -> None:
    """Judges, zygotes, guards and workers, at random moments, until three in ten submissions are through."""
    chance = random.Random(5)
    grader = attn(class_.course, "grade", class_.place, "--workers", "2", *sandbox())
    killed = 0
    for number, _ in enumerate(lines(grader)):
        if number % 4 == 1 and number < STUDENTS - 2:
            victim = chance.choice(children(grader.pid))
            try:
                os.kill(victim, signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                continue  # it has just ended by itself
    out, err = grader.communicate()
    assert grader.returncode == 0, err
    assert killed
    assert "not graded" not in out
    assert results(class_.place) == calm


# Gradebook and disk


def test_a_gradebook_that_is_locked_for_a_moment_costs_a_moment(class_: Class, calm: object) -> None:
    grader = attn(class_.course, "grade", class_.place, *sandbox())
    said = lines(grader)
    next(said)
    other = hold(class_.place / "gradebook.db")
    waits = Path(f"/proc/{grader.pid}/task/{grader.pid}/children")
    assert waits.exists(), "the grader is still there"
    other.communicate("\n")
    grader.communicate()
    assert grader.returncode == 0
    assert results(class_.place) == calm


def test_a_gradebook_that_stays_locked_is_one_line_and_nothing_is_lost(
    class_: Class, calm: object, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    locks: list[subprocess.Popen[str]] = []
    enter = ledger_module.Ledger.enter

    def enter_locked(self: ledger_module.Ledger, student: str, *rest: object) -> None:
        if len(kept(class_.place)) == STUDENTS // 2 and not locks:
            locks.append(hold(class_.place / "gradebook.db"))
        enter(self, student, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ledger_module, "PATIENCE", 0.2)
        patch.setattr(ledger_module.Ledger, "enter", enter_locked)
        with pytest.raises(LedgerError, match="the same command goes on from there") as said:
            finish(class_.place)
    assert "\n" not in str(said.value)
    assert said.value.for_the_user
    before = kept(class_.place)
    assert before
    locks[0].communicate("\n")
    graded = finish(class_.place)
    assert {one.submission.student for one in graded if not one.fresh} == before
    assert results(class_.place) == calm


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small file system")
    place = tmp_path / "disk"
    place.mkdir()
    size = 8 + STUDENTS // 4
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", place], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("free", [0, 40_000, 300_000])
def test_a_full_disk_is_one_line_and_with_room_again_the_run_completes(
    handed_in: Class, small_disk: Path, calm: object, finish: Finish, free: int
) -> None:
    class_ = handed_in.copy(small_disk / "class")
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    with filler.open("wb") as file:
        file.write(bytes(max(0, room.f_bavail * room.f_bsize - free)))
    grader = attn(class_.course, "grade", class_.place, *sandbox())
    _, err = grader.communicate()
    assert grader.returncode == 2, err
    told = [line for line in err.splitlines() if line.strip() and not line.startswith("s")]
    assert len(told) == 1, err
    assert told[0].startswith("attn: ")
    assert "No space left on device" in told[0] or "disk is full" in told[0], told
    assert str(class_.place) in told[0]
    filler.unlink()
    before = kept(class_.place)
    graded = finish(class_.place)
    assert {one.submission.student for one in graded if not one.fresh} <= before
    assert results(class_.place) == calm


def test_what_breaks_for_good_is_told_and_the_others_are_graded(
    class_: Class, calm: object, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A submission that the grader cannot handle is in the table with a reason, in no gradebook, and comes again."""
    honest = Crew.run

    def losing(self: Crew, tasks: list[Task]) -> Iterator[Result]:
        for result in honest(self, tasks):
            yield replace(result, failure="the machine is on fire") if result.key == 3 else result

    with monkeypatch.context() as patch:
        patch.setattr(Crew, "run", losing)
        graded = {one.submission.student: one for one in finish(class_.place)}
    assert graded["s03"].problem == "not graded: the machine is on fire"
    assert all(row.reason == "not graded: the machine is on fire" for row in graded["s03"].rows)
    assert graded["s03"].page is None
    assert isinstance(calm, tuple)
    assert standing(class_.place) == {student: one for student, one in calm[0].items() if student != "s03"}
    assert kept(class_.place) == set(class_.students) - {"s03"}
    assert [one.submission.student for one in finish(class_.place) if one.fresh] == ["s03"]
    assert results(class_.place) == calm
