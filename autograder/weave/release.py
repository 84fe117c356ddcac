"""From lessons to `source/` and, through nbgrader, to `release/`."""

import io
import logging
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from autograder.weave.course import Course
from autograder.weave.errors import WeaveError
from autograder.weave.settings import settings
from autograder.weave.weaving import to_bytes, weave


def weave_source(course: Course, into: Path, stems: Iterable[str] | None = None) -> list[Path]:
    """Weave the teacher's notebooks into `into`/source; returns the notebooks written."""
    written = []
    for stem in stems if stems is not None else course.stems:
        notebook = weave(course.lesson(stem), course.solution(stem), course.assignments[stem])
        path = into / "source" / course.relative(stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(to_bytes(notebook))
        written.append(path)
    return written


def generate(
    course: Course, into: Path, stems: Iterable[str] | None = None, gradebook: Path | str | None = None
) -> None:
    """Weave, then let nbgrader's generate_assignment make `into`/release and register it in `gradebook`.

    gradebook is an SQLite file, or a database's address. Without one nothing is registered: building never touches
    a teacher's.
    Raises: WeaveError, in nbgrader's words, if nbgrader refuses.
    """
    stems = tuple(stems if stems is not None else course.stems)
    weave_source(course, into, stems)
    for stem in stems:
        _generate_one(course, into, stem, gradebook)


def build(course: Course) -> list[Path]:
    """Rebuild source/ and release/ of the course; the released files that changed."""
    with tempfile.TemporaryDirectory(prefix="attn-build-") as scratch:
        generate(course, Path(scratch))
        changed = _differences(course, Path(scratch))
        for stem in course.stems:
            for room in ("source", "release"):
                target = course.root / room / course.relative(stem)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(scratch, room) / course.relative(stem), target)
        for path in changed:
            if not Path(scratch, path.relative_to(course.root)).exists():
                path.unlink()
    return changed


def differences(course: Course) -> list[Path]:
    """The released files that a rebuild would change, add or remove; nothing is written."""
    with tempfile.TemporaryDirectory(prefix="attn-build-") as scratch:
        generate(course, Path(scratch))
        return _differences(course, Path(scratch))


def _differences(course: Course, fresh: Path) -> list[Path]:
    made = {path.relative_to(fresh): path.read_bytes() for path in _files(fresh / "release")}
    held = {path.relative_to(course.root): path.read_bytes() for path in _files(course.root / "release")}
    return [course.root / name for name in sorted({*made, *held}) if made.get(name) != held.get(name)]


def _files(folder: Path) -> list[Path]:
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".ipynb_checkpoints" not in path.parts
    ]


def _generate_one(course: Course, into: Path, stem: str, gradebook: Path | str | None) -> None:
    """Run nbgrader's own converter on one assignment, with the settings in the course's folder."""
    from nbgrader.converters import GenerateAssignment, NbGraderException
    from nbgrader.coursedir import CourseDirectory

    config = settings(course.root)
    config.pop("CourseDirectory", None)  # here the folder is `into`
    directory = CourseDirectory(root=str(into.resolve()), assignment_id=course.assignment_id(stem))
    if gradebook:
        directory.db_url = gradebook if isinstance(gradebook, str) else f"sqlite:///{gradebook.resolve()}"
    else:
        config.GenerateAssignment.no_database = True
        config.SaveCells.enabled = False
    heard = io.StringIO()
    logger = logging.Logger("attn.generate", logging.ERROR)
    logger.addHandler(logging.StreamHandler(heard))
    gossip = logging.getLogger("tornado.application")  # nbgrader's gradebook puts whole tracebacks there
    gossip.disabled, before = True, gossip.disabled
    try:
        GenerateAssignment(coursedir=directory, config=config, log=logger).start()
    except NbGraderException as error:
        telling = [
            line for line in heard.getvalue().splitlines() if "Error" in line and not line.startswith(" ")
        ]
        where = into / "source" / course.relative(stem)
        raise WeaveError(where, None, f"nbgrader refused: {telling[0] if telling else error}") from error
    finally:
        gossip.disabled = before
