"""What `attn` can do. A command imports its work when it is called, so that `attn --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from autograder.cli.lab import WORK

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Coursework on attention: check your answers, grade a class, build the notebooks.",
)

CourseOption = Annotated[
    Path | None, typer.Option("--course", help="The course folder, if it is not this project's.")
]
TimeoutOption = Annotated[
    float | None,
    typer.Option("--timeout", min=1, help="Seconds that one cell may take; nbgrader_config.py's by default."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Submissions graded at once; as many as there are cores by default."
    ),
]
SandboxOption = Annotated[
    bool,
    typer.Option(
        "--sandbox/--no-sandbox", help="Grade without a jail where none can be had; reports say so."
    ),
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
    workers: WorkersOption = None,
    timeout: TimeoutOption = None,
    sandbox: SandboxOption = True,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Grade on a dask.distributed cluster."),
    ] = None,
    gpu: Annotated[
        bool,
        typer.Option(
            "--require-gpu",
            help="Run students' kernels on this machine's GPU, or refuse; needs --no-sandbox.",
        ),
    ] = False,
    course: CourseOption = None,
) -> None:
    """Grade a folder of submissions: gradebook, feedback pages, grades.csv and a table."""
    from autograder.cli.grade import Options, run_grade

    raise typer.Exit(run_grade(folder, Options(workers, sandbox, scheduler, timeout, gpu), course))


@app.command()
def regrade(
    student: Annotated[str, typer.Argument(help="The student's folder below submitted/.")],
    assignment: Annotated[str, typer.Argument(help="The assignment's folder, like 01_basic_attention.")],
    folder: Annotated[
        Path, typer.Option("--dir", help="The class: the folder that attn grade was given.")
    ] = Path("."),
    sandbox: SandboxOption = True,
    course: CourseOption = None,
) -> None:
    """Grade one submission again with the seed on record, and compare the verdicts; nothing is written."""
    from autograder.cli.regrade import run_regrade

    raise typer.Exit(run_regrade(folder, student, assignment, sandbox, course))


@app.command()
def new(
    stem: Annotated[str, typer.Argument(help="The assignment, like basic_attention.")],
    name: Annotated[str, typer.Argument(help="The function or class that students write.")],
) -> None:
    """Write the files of a new exercise, and say what is missing; exit 1 while something is."""
    from autograder.cli.new import run_new

    raise typer.Exit(run_new(stem, name))


@app.command()
def situations(
    name: Annotated[
        str | None, typer.Argument(help="The exercise; a line for each without it.", show_default=False)
    ] = None,
) -> None:
    """Say in which situations an exercise is tried, and which are left out and why."""
    from autograder.cli.situations import run_situations

    raise typer.Exit(run_situations(name))


@app.command()
def doctor() -> None:
    """Say what this machine offers: isolation, torch, Triton, GPU, nbgrader; and what is missing."""
    from autograder.cli.doctor import run_doctor

    raise typer.Exit(run_doctor())


@app.command()
def lab(
    folder: Annotated[Path, typer.Argument(help="Your working copy.")] = Path(WORK),
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
    workers: WorkersOption = None,
    timeout: TimeoutOption = None,
    sandbox: SandboxOption = True,
) -> None:
    """Grade a made-up class of thirteen students, and see what each was told."""
    from autograder.cli.demo import run_demo
    from autograder.cli.grade import Options

    raise typer.Exit(run_demo(folder, keep, Options(workers, sandbox, None, timeout)))


@app.command()
def parity(
    kernels: Annotated[
        Path | None,
        typer.Option("--kernels", metavar="FILE", help="Compare its flash_attention and flash_forward, too."),
    ] = None,
    dtype: Annotated[
        list[str] | None, typer.Option("--dtype", help="float32, tf32, float16 or bfloat16; all by default.")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", help="Part of a backend's name; all by default.")
    ] = None,
    require_gpu: Annotated[
        bool, typer.Option("--require-gpu", help="Refuse to run where there is no GPU.")
    ] = False,
    experiment: Annotated[
        bool,
        typer.Option("--experiment", help="Instead, try the tolerance itself, and others, on planted bugs."),
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="A small experiment, in seconds.")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
) -> None:
    """Compare attention kernels with the float64 oracle, backend by dtype; exit 1 if one is beyond its allowance."""
    from autograder.cli.parity import Options, run_parity

    dtypes, backends = tuple(dtype or ()), tuple(backend or ())
    raise typer.Exit(run_parity(Options(kernels, dtypes, backends, require_gpu, experiment, quick, json)))


bench = typer.Typer(no_args_is_help=True, help="Measure, as ratios within one run on this machine.")
app.add_typer(bench, name="bench")


@bench.command("grading")
def bench_grading(
    students: Annotated[int, typer.Option("--students", min=2, help="Submissions in the class.")] = 40,
    assignment: Annotated[str, typer.Option("--assignment", help="Its stem.")] = "basic_attention",
    stock: Annotated[
        int | None,
        typer.Option(
            "--stock", min=1, help="So many of them for stock nbgrader, which is slow; all by default."
        ),
    ] = None,
    growth: Annotated[
        bool, typer.Option("--growth/--no-growth", help="Also classes of 10, 40, 160 and 640.")
    ] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw them into this file.")] = None,
) -> None:
    """Grade a made-up class with this engine, through nbgrader with it, and with stock nbgrader."""
    from autograder.cli.bench.grading import run_bench_grading

    raise typer.Exit(run_bench_grading(assignment, students, stock, growth, json, picture))


@bench.command("kernels")
def bench_kernels(
    length: Annotated[
        list[int] | None,
        typer.Option("--length", min=1, help="Sequence length; may be given several times."),
    ] = None,
    width: Annotated[
        list[int] | None, typer.Option("--width", min=1, help="Head width; 64 and 128 by default.")
    ] = None,
    kernels: Annotated[
        Path | None,
        typer.Option("--kernels", help="Solutions of gpu_kernels to measure; this project's by default."),
    ] = None,
    backward: Annotated[bool, typer.Option("--backward/--no-backward", help="Backward passes, too.")] = True,
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Refuse where there is no GPU.")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", help="Draw them into this file.")] = None,
) -> None:
    """Time attention: on a GPU our Triton kernels against torch's, on a CPU what needs less memory against the naive way."""
    from autograder.cli.bench.kernels import run_bench_kernels

    widths = width or [64, 128]
    raise typer.Exit(run_bench_kernels(length or [], widths, kernels, backward, require_gpu, json, picture))


@app.command()
def hint(
    name: Annotated[
        str | None, typer.Argument(help="The exercise; without it, all are listed.", show_default=False)
    ] = None,
    step: Annotated[int, typer.Option("--step", min=1, help="1 is a nudge, 3 nearly the answer.")] = 1,
) -> None:
    """Print a hint for an exercise, or the names of all exercises."""
    from autograder.cli.hint import run_hint

    raise typer.Exit(run_hint(name, step))
