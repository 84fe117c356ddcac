"""What `attn` can do. A command imports its work when it is called, so that `attn --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Coursework on attention: check your answers, grade a class, build the notebooks.",
)

CourseOption = Annotated[
    Path | None, typer.Option("--course", help="The course folder, if it is not this project's.")
]
TimeoutOption = Annotated[int, typer.Option("--timeout", min=1, help="Seconds that one cell may take.")]
KernelsOption = Annotated[
    int | None,
    typer.Option("--kernels", min=1, help="Notebooks run at once; as many as there are cores by default."),
]


@app.command()
def build(
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit 1 if a rebuild would change a file.")
    ] = False,
    course: CourseOption = None,
) -> None:
    """Weave the lessons and solutions into course/source and course/release."""
    from autograder.cli.build import run_build

    raise typer.Exit(run_build(course, check))


@app.command()
def check(
    what: Annotated[
        str, typer.Argument(metavar="NOTEBOOK_OR_MODULE", help="A notebook, a .py file or a module.")
    ],
    exercise: Annotated[str | None, typer.Option("--exercise", help="Check this exercise only.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Repeat a run that printed this seed.")] = None,
    case: Annotated[int | None, typer.Option("--case", help="Repeat one case; needs --exercise.")] = None,
) -> None:
    """Check answers in the terminal; exit 1 when a check fails."""
    from autograder.cli.check import run_check

    raise typer.Exit(run_check(what, exercise, seed, case))


@app.command()
def grade(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Holds submitted/<student>/<assignment>/<name>.ipynb.")
    ],
    timeout: TimeoutOption = 30,
    kernels: KernelsOption = None,
    course: CourseOption = None,
) -> None:
    """Grade a folder of submissions: gradebook, feedback pages, grades.csv and a table."""
    from autograder.cli.grade import run_grade

    raise typer.Exit(run_grade(folder, timeout, kernels, course))


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Your working copy.")] = Path("attention-work"),
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address, open nothing.")
    ] = False,
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Where JupyterLab listens.")] = 8888,
    copy_only: Annotated[bool, typer.Option("--copy-only", help="Make the working copy and stop.")] = False,
    course: CourseOption = None,
) -> None:
    """Open the assignments in JupyterLab, in a working copy that is yours."""
    from autograder.cli.lab import run_lab

    raise typer.Exit(run_lab(folder, no_browser, port, copy_only, course))


@app.command()
def demo(
    folder: Annotated[
        Path | None, typer.Argument(help="A new or empty folder; a temporary one by default.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep/--no-keep", help="Keep the folder, to look at the pages.")
    ] = True,
    timeout: TimeoutOption = 30,
    kernels: KernelsOption = None,
) -> None:
    """Grade a made-up class of a dozen submissions, and see what each was told."""
    from autograder.cli.demo import run_demo

    raise typer.Exit(run_demo(folder, keep, timeout, kernels))


@app.command()
def hint(
    name: Annotated[str, typer.Argument(help="The exercise.")],
    step: Annotated[int, typer.Option("--step", min=1, help="1 is a nudge, 3 nearly the answer.")] = 1,
) -> None:
    """Print a hint for an exercise."""
    from autograder.cli.hint import run_hint

    raise typer.Exit(run_hint(name, step))
