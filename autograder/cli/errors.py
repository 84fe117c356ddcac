"""Errors that a user can make and mend."""


class UserError(Exception):
    """One clear line: where, what was expected, what was found, what to do."""

    for_the_user = True


def require_torch() -> None:
    """Raises: UserError if PyTorch, which every check needs, cannot be imported."""
    if problem := torch_problem():
        raise UserError(
            f"PyTorch cannot be imported ({problem}); install it in this environment: {INSTALL_TORCH}"
        )


INSTALL_TORCH = "pip install 'torch>=2.6'"


def torch_problem() -> str:
    """Why PyTorch cannot be imported, in one line; "" if it can."""
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        return str(error).strip().split("\n")[0] or type(error).__name__
    return ""


def require_isolation(jail: bool) -> None:
    """Raises: UserError if a jail is asked for, and this machine has none."""
    from autograder.engine.isolation import isolation

    if jail and (problem := isolation().problem):
        raise UserError(
            f"this machine offers no jail for student code ({problem}). Run `attn doctor` to see what is missing, "
            "grade on Linux with user namespaces, or grade without protection: --no-sandbox"
        )


def require_gpu() -> None:
    """Raises: UserError if torch finds no GPU."""
    from autograder.kernels import gpu_name

    if not gpu_name():
        raise UserError(
            "this machine has no GPU that torch can use, and --require-gpu was given. Run this where there is one, or "
            "leave the option out: then nothing is verified on a GPU, and the results say so"
        )


def require_gpu_for_students(*, sandbox: bool, scheduler: str | None) -> None:
    """Raises: UserError if students' kernels cannot be run on a GPU of this machine."""
    from autograder.kernels import triton_missing

    require_torch()
    if scheduler is not None:
        raise UserError(
            "--require-gpu grades on this machine's GPU, and --scheduler on others: leave one of them out"
        )
    require_gpu()
    if problem := triton_missing():
        raise UserError(f"--require-gpu: {problem}")
    if sandbox:
        raise UserError(
            "the jail keeps student code away from the GPU's driver. With --require-gpu say --no-sandbox, too, and grade "
            "on a machine that holds nothing worth stealing"
        )
