"""The one error of weaving: it names the file, the line and the way out."""

from pathlib import Path


class WeaveError(Exception):
    """A lesson and its solutions do not fit together.

    The text reads `file:line: what was found; what to do`, so that an editor can jump to it.
    """

    for_the_user = True  # the command line prints its text as it is

    def __init__(self, path: Path, line: int | None, message: str):
        self.path = path
        self.line = line
        where = f"{path}:{line}" if line else f"{path}"
        super().__init__(f"{where}: {message}")
