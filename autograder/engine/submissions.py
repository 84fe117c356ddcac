"""Find what students handed in, and read it as far as it can be read."""

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from autograder.engine.plain import plain

MOST_BYTES, MOST_TEXT, MOST_CELLS = 64 << 20, 256 << 10, 2_000
"""Of a submission: bytes with all its pictures, characters that students can have written, and cells."""


STAMP = "timestamp.txt"
"""nbgrader's note of when something was handed in."""


class GradingError(Exception):
    """The folder cannot be graded; the text names it and the way out."""

    for_the_user = True  # the command line prints its text as it is


class UnreadableError(Exception):
    """One submission cannot be read; the text is the reason, for its row of the table."""


@dataclass(frozen=True)
class Submission:
    """One student's work on one assignment: `path` is where its notebook ought to be."""

    student: str
    assignment: str
    path: Path

    def read(self) -> NotebookNode:
        """The notebook.

        Raises: UnreadableError with the reason, if it is missing, empty, or not a notebook.
        """
        if not self.path.is_file():
            raise UnreadableError(self._missing())
        if leads_out(self.path):
            raise UnreadableError(f"{self.path.name} is a link to something outside of what was handed in")
        if self.path.stat().st_size > MOST_BYTES:
            raise UnreadableError(f"{self.path.name} is larger than {MOST_BYTES >> 20} MB")
        try:
            text = self.path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableError(f"{self.path.name} cannot be read: {plain(str(error), 300)}") from error
        if not text.strip():
            raise UnreadableError(f"{self.path.name} is empty")
        return parse_notebook(text, self.path.name)

    def _missing(self) -> str:
        if os.path.lexists(self.path):
            return f"{self.path.name} is neither a file nor a link to one; expected a notebook"
        found = self._found_instead()
        if not found:
            return f"nothing was handed in; expected {'/'.join(self.path.parts[-4:])}"
        notebooks = [path for path in found if path.suffix == ".ipynb" and path.is_file()]
        first = plain((notebooks or found)[0].name, 100)
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        return f"no {self.path.name} was handed in; found {first}{more}{': rename it?' if notebooks else ''}"

    def _found_instead(self) -> list[Path]:
        """What lies in the assignment's folder; nothing where that is a link to a folder of somebody else's."""
        folder = self.path.parent
        if not folder.is_dir() or not folder.resolve().is_relative_to(folder.parent.resolve()):
            return []
        return [path for path in _visible(folder) if path.name != STAMP]


def leads_out(path: Path) -> bool:
    """Whether submitted/<student>/<assignment>/<name> is, by a link, a file that is not below submitted/<student>."""
    return not path.resolve().is_relative_to(path.parents[1].resolve())


def parse_notebook(text: str, name: str) -> NotebookNode:
    """The notebook in `text`, brought to the format in use.

    Raises: UnreadableError, naming the line of broken JSON or what a notebook must have.
    """
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at").removesuffix(" starting")  # "Unterminated string starting at"
        raise UnreadableError(f"{name} is broken JSON: {reason} at line {error.lineno}") from error
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"{name} is broken JSON: {plain(str(error), 300)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # cells without ids, or with one id twice: rebuilding makes new ones
            notebook: NotebookNode = nbformat.reads(text, as_version=4)
        for cell in notebook.cells:
            cell.metadata.get("nbgrader")
            cell.source.split("\n")
            cell.cell_type.strip()
    except Exception as error:  # whatever nbformat trips over, this file is no notebook
        reason = plain(str(error), 300)
        raise UnreadableError(f"{name} is not a notebook: {type(error).__name__}: {reason}") from error
    if len(notebook.cells) > MOST_CELLS:
        raise UnreadableError(f"{name} has more than {MOST_CELLS} cells")
    if sum(len(cell.source) for cell in notebook.cells) > MOST_TEXT:
        raise UnreadableError(f"{name} holds more than {MOST_TEXT >> 10} kB of text")
    return notebook


def class_folder(folder: Path) -> Path:
    """The folder that holds `submitted/`, given that folder or `submitted` itself.

    Raises: GradingError if neither is there, it is a file, or no student is in it.
    """
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "there is no such folder"
        raise GradingError(f"{folder}: {problem}; name the folder that holds submitted/<student>/...")
    root = folder.resolve()
    if root.name == "submitted":
        root = root.parent
    if not (root / "submitted").is_dir():
        raise GradingError(
            f"{folder}: holds no folder submitted/; expected submitted/<student>/<assignment>/<name>.ipynb"
        )
    if not students(root):
        raise GradingError(
            f"{root / 'submitted'}: holds no student's folder; expected one folder per student"
        )
    return root


def students(root: Path) -> list[str]:
    """The names of the students' folders, hidden ones left out."""
    folders = [
        path for path in (root / "submitted").iterdir() if path.is_dir() and not path.name.startswith(".")
    ]
    return sorted(path.name for path in folders)


def find_submissions(root: Path, notebooks: Mapping[str, str]) -> list[Submission]:
    """One submission per student and assignment of this class.

    `notebooks` maps each assignment of the course to its notebook's name. The class has the assignments that
    anybody has a folder for, none if nobody has; a student without one gets a row that says so.
    """
    submitted = root / "submitted"
    names = students(root)
    set_work = [name for name in notebooks if any((submitted / student / name).is_dir() for student in names)]
    return [
        Submission(student, assignment, submitted / student / assignment / notebooks[assignment])
        for student in names
        for assignment in set_work
    ]


def work_to_grade(root: Path, notebooks: Mapping[str, str]) -> list[Submission]:
    """`find_submissions` where there must be some. Raises: GradingError if nobody has a folder for an assignment."""
    if found := find_submissions(root, notebooks):
        return found
    others = [path for student in students(root) for path in _visible(root / "submitted" / student)]
    first = f"found {others[0].relative_to(root)}" if others else "found empty folders"
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    raise GradingError(
        f"{root / 'submitted'}: holds no folder of an assignment of this course; expected <student>/<assignment>, the "
        f"assignment one of {', '.join(notebooks)}; {plain(first, 200)}{more}: rename or move what was handed in"
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def unknown_folders(root: Path, notebooks: Mapping[str, str]) -> list[Path]:
    """Folders of students that are no assignment of the course, and so are not graded."""
    return [
        path
        for student in students(root)
        for path in _visible(root / "submitted" / student)
        if path.is_dir() and path.name not in notebooks
    ]
