"""nbgrader's settings for this course: with them, every nbgrader command works from this folder as it stands.

A folder that `attn grade` made holds a copy of this file, so that the formgrader works there too.
"""

import os
import sys
import sysconfig
from pathlib import Path

import nbgrader
import zmq
from jupyter_client.manager import KernelManager

import autograder
from autograder.weave import WeaveError, refresh_source

c = get_config()  # type: ignore[name-defined]  # traitlets provides it
here = Path(__file__).resolve().parent

c.CourseDirectory.course_id = "attention"
c.CourseDirectory.root = str(here)

# Without a root of its own, a release would go to an exchange that every user of this machine shares.
c.Exchange.root = str(here / "exchange")
c.Exchange.cache = str(here / "exchange" / "cache")

# The release is committed, and nbgrader skips an assignment that exists: then the gradebook would never
# hear of it.
c.GenerateAssignment.force = True
c.GenerateAssignment.preprocessors = [
    "nbgrader.preprocessors.IncludeHeaderFooter",
    "nbgrader.preprocessors.LockCells",
    "autograder.weave.stub.ClearAnswers",  # nbgrader's ClearSolutions, and `name = ...` for one-value answers
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.CheckCellMetadata",
    "nbgrader.preprocessors.ComputeChecksums",  # after the stubs: an answer equal to its stub is no answer
    "nbgrader.preprocessors.SaveCells",
    "nbgrader.preprocessors.ClearHiddenTests",
    "nbgrader.preprocessors.ClearMarkScheme",
    "nbgrader.preprocessors.ComputeChecksums",  # again, after the two steps that change cells
    "nbgrader.preprocessors.CheckCellMetadata",
]

# What is taken from a submission. Rebuild comes first: it starts from the teacher's notebook, so that
# duplicated or deleted cells, old metadata and edited grade cells never reach the steps that would stop the
# whole batch.
c.Autograde.sanitize_preprocessors = [
    "autograder.engine.rebuild.Rebuild",
    "nbgrader.preprocessors.ClearOutput",
    "nbgrader.preprocessors.DeduplicateIds",
    "nbgrader.preprocessors.OverwriteKernelspec",
    "nbgrader.preprocessors.OverwriteCells",  # the gradebook has the last word on grade cells
    "nbgrader.preprocessors.CheckCellMetadata",
]
c.OverwriteCells.add_missing_cells = True

# What happens then. Settle comes right after the run and before the grades are saved: it leaves each grade
# cell with one finite number or one error, because nbgrader gives full marks to a cell that shows neither.
c.Autograde.autograde_preprocessors = [
    "autograder.engine.execute.RunInJail",  # the engine, in the place of nbgrader's Execute
    "autograder.engine.settle.Settle",
    "nbgrader.preprocessors.IgnorePattern",
    "nbgrader.preprocessors.LimitOutput",
    "autograder.engine.rubric.ShowRubric",  # after the run: the rubric is for the person who grades
    "nbgrader.preprocessors.SaveAutoGrades",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]

# Students' feedback pages show the autograded copy without the model answers and rubrics, which the formgrader shows.
c.GenerateFeedback.preprocessors = [
    "autograder.engine.rubric.HideRubric",
    "nbgrader.preprocessors.GetGrades",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]

# What a submission may use while it is graded; `autograder/engine/sandbox.py` has them all, with their defaults.
c.Sandbox.cell_seconds = 30.0
c.Sandbox.submission_seconds = 180.0

# Feedback pages and the formgrader draw formulas as MathML, load nothing from the network, and show HTML in a
# student's words as text.
c.HTMLExporter.filters = {
    "markdown2html": "autograder.engine.mathml.markdown2html",
    "highlight_code": "autograder.engine.listing.highlight_code",
}
c.HTMLExporter.extra_template_basedirs = [
    str(Path(autograder.__file__).parent / "engine" / "templates"),
    str(Path(nbgrader.__file__).parent / "server_extensions" / "formgrader" / "templates"),
]

# nbgrader starts the command `alembic`, which is on PATH only where this Python's environment has been
# activated.
scripts = sysconfig.get_path("scripts")
if scripts not in os.environ.get("PATH", "").split(os.pathsep):
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])

# Kernels of the newer jupyter_client warn about plain TCP unless they may encrypt.
if "transport_encryption" in KernelManager.class_trait_names() and zmq.has("curve"):
    c.KernelManager.transport_encryption = "auto"

# `nbgrader generate_assignment` reads source/, which is woven from the lessons; weave what is missing or
# outdated.
try:
    refresh_source(here)
except WeaveError as error:
    sys.stderr.write(f"{__file__}: source/ could not be woven: {error}\n")
