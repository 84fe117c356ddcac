"""Running a student's cells in IPython, without a kernel: sources in, plain outputs out."""

from __future__ import annotations

import base64
import contextlib
import io
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

__all__ = ["LONGEST_TEXT", "make_shell", "run_cell"]

LONGEST_TEXT = 20_000
LONGEST_PICTURE = 1 << 20
MOST_OUTPUTS = 50
LONGEST_OUTPUTS = 3 << 20
"""Of one cell, all together: below what the judge takes in one reply."""


def make_shell() -> InteractiveShell:
    """The one IPython shell of this process: no history, no start-up files, pictures inline."""
    settings = Config()
    settings.HistoryManager.enabled = False
    settings.InteractiveShell.colors = "nocolor"
    settings.InteractiveShell.cache_size = 0
    shell = InteractiveShell.instance(config=settings)
    shell.user_ns["__name__"] = "__main__"
    vars(shell)["enable_gui"] = lambda gui=None: (
        None
    )  # `%matplotlib inline` asks for it; there is no event loop here
    with contextlib.suppress(ImportError):
        import matplotlib

        matplotlib.use("agg")
    return shell


def run_cell(shell: InteractiveShell, source: str) -> dict[str, Any]:
    """Run one cell. Returns its outputs (streams, pictures, texts) and its error, if it ended in one.

    Keys: outputs, a list of {"kind": "stream" | "text" | "png", "text": str}; error, None or {"name", "message",
    "traceback"}.
    """
    traceback: list[str] = []
    vars(shell)["_showtraceback"] = lambda etype, evalue, stb: traceback.extend(stb)
    with capture_output() as captured:
        result = shell.run_cell(source, store_history=False)
    outputs = [
        {"kind": "stream", "text": str(text)[:LONGEST_TEXT]}
        for text in (captured.stdout, captured.stderr)
        if text
    ]
    for shown in list(captured.outputs)[:MOST_OUTPUTS]:
        outputs += _shown(getattr(shown, "data", {}) or {})
    if (left_out := _trim(outputs)) > 0:
        outputs.append({"kind": "text", "text": f"({left_out} more outputs of this cell are left out)"})
    error = result.error_before_exec or result.error_in_exec
    if error is None:
        return {"outputs": outputs, "error": None}
    return {
        "outputs": outputs,
        "error": {
            "name": type(error).__name__[:80],
            "message": _message(error)[:2000],
            "traceback": "\n".join(traceback)[:LONGEST_TEXT],
        },
    }


def _trim(outputs: list[dict[str, str]]) -> int:
    """Drop the outputs that one reply has no room for; how many."""
    room, kept = LONGEST_OUTPUTS, 0
    for output in outputs:
        room -= len(output["text"])
        if room < 0:
            break
        kept += 1
    left_out = len(outputs) - kept
    del outputs[kept:]
    return left_out


def _message(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.msg} (line {error.lineno} of the cell)"
    return str(error)


def _shown(data: Any) -> list[dict[str, str]]:
    """A rich output as a picture, or else as its text: nothing else of it is passed on."""
    picture = data.get("image/png")
    if isinstance(picture, bytes):
        picture = base64.b64encode(picture).decode()
    if isinstance(picture, str) and len(picture) <= LONGEST_PICTURE:
        return [{"kind": "png", "text": picture}]
    text = data.get("text/plain")
    return [{"kind": "text", "text": text[:LONGEST_TEXT]}] if isinstance(text, str) else []


def quiet() -> contextlib.AbstractContextManager[Any]:
    """Swallow what student code prints while the judge calls it."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return stack
