"""Listen to nbgrader, which reports most failures through its log only."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class Collected(logging.Handler):
    """A handler that keeps what was logged, and prints nothing."""

    def __init__(self, logger: logging.Logger):
        super().__init__(logging.WARNING)
        self.logger = logger
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        self.records.append(record)

    def reason(self) -> str:
        """The last line of the first error: for a logged traceback, the exception itself."""
        errors = [record.getMessage().strip() for record in self.records if record.levelno >= logging.ERROR]
        telling = next((text for text in errors if text.startswith("Traceback")), errors[0] if errors else "")
        return telling.split("\n")[-1].strip()


@contextmanager
def collected() -> Iterator[Collected]:
    """A logger of its own for one call of nbgrader; its records are the context's value."""
    logger = logging.Logger("attn.nbgrader")
    handler = Collected(logger)
    logger.addHandler(handler)
    yield handler
