"""What the library logs: shown like all else that a command says."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def complaints_to(complain: Callable[[str], None]) -> Iterator[None]:
    """Show what the library logs, once, in its order among the other lines."""
    shown: set[str] = set()

    def show(record: logging.LogRecord) -> None:
        # Each step of a stop may find that nothing can be written.
        if (text := handler.format(record)) not in shown:
            shown.add(text)
            complain(text)

    handler = logging.Handler(logging.WARNING)
    handler.emit = show  # type: ignore[method-assign]
    logger = logging.getLogger("trio_lifecycle")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
