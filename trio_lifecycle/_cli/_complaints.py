"""What the library logs: shown like all else that a command says."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def complaints_to(complain: Callable[[str], None]) -> Iterator[None]:
    """Show what the library logs, in its order among the other lines."""
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: complain(handler.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("trio_lifecycle")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
