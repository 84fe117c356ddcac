"""The settings of a course: its nbgrader_config.py, the one place where nbgrader's steps are listed."""

from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.weave.errors import WeaveError

if TYPE_CHECKING:
    from traitlets.config import Config

CONFIG = "nbgrader_config.py"
_loading: ContextVar[bool] = ContextVar("loading", default=False)


def settings(root: Path) -> "Config":
    """What `nbgrader` itself would read in the folder `root`.

    Raises: WeaveError if the folder holds no nbgrader_config.py.
    """
    from traitlets.config.loader import ConfigFileNotFound, PyFileConfigLoader

    token = _loading.set(True)
    try:
        return PyFileConfigLoader(CONFIG, path=str(root)).load_config()
    except ConfigFileNotFound as error:
        raise WeaveError(
            root / CONFIG, None, "this file is missing; copy it from the project's course/"
        ) from error
    finally:
        _loading.reset(token)


def refresh_source(root: Path) -> list[Path]:
    """Weave the notebooks of `root`/source that are missing or older than what they are woven from.

    nbgrader_config.py calls this, so that `nbgrader generate_assignment` needs no step before it.
    It does nothing in a folder without lessons, and nothing while `settings` reads the file.
    """
    stale = [lesson.stem for lesson in sorted((root / "lessons").glob("*.md")) if _is_stale(root, lesson)]
    if _loading.get() or not stale:
        return []
    from autograder.weave.course import find_course
    from autograder.weave.release import weave_source

    course = find_course(root)
    return weave_source(course, root, [stem for stem in course.stems if stem in stale])


def _is_stale(root: Path, lesson: Path) -> bool:
    woven = next((root / "source").glob(f"*_{lesson.stem}/{lesson.stem}.ipynb"), None)
    package = Path(__file__).resolve().parents[1]
    origins = [
        lesson,
        root.parent / "solutions" / f"{lesson.stem}.py",
        package / "exercises" / f"{lesson.stem}.py",
    ]
    newest = max(origin.stat().st_mtime for origin in origins if origin.exists())
    return woven is None or woven.stat().st_mtime < newest
