"""The command `attn`."""

import sys
from collections.abc import Sequence

__all__ = ["main"]

USER_ERROR = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `attn` and exit: 0 if all is well, 1 if a check or a comparison fails, 2 if the user can mend it.

    An error that a user can make is one line on stderr, and never a traceback.
    """
    from autograder.cli.app import app
    from autograder.engine.startup import spare_grammar

    spare_grammar()
    try:
        code = app(args=arguments, prog_name="attn", standalone_mode=False)
    except (KeyboardInterrupt, EOFError):
        code = INTERRUPTED
    except OSError as error:
        sys.stderr.write(f"attn: {error.filename or 'a file'}: {error.strerror or error}\n")
        code = USER_ERROR
    except Exception as error:
        if type(error).__name__ == "Abort":  # typer's word for an interrupt
            code = INTERRUPTED
        elif hasattr(error, "format_message"):  # the command itself was misspelt
            sys.stderr.write(f"attn: {error.format_message()} Try: attn --help\n")
            code = USER_ERROR
        elif getattr(error, "for_the_user", False):
            sys.stderr.write(f"attn: {error}\n")
            code = USER_ERROR
        else:
            raise
    if code == INTERRUPTED:
        sys.stderr.write("attn: interrupted\n")
    sys.exit(code if isinstance(code, int) else 0)
