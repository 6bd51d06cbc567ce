"""What a command without a daemon of its own says: written at once, to whoever reads it."""

import os
import select
import signal
from contextlib import suppress
from typing import Final

from trio_lifecycle._cli._codes import ALL_WELL, NOT_WRITTEN, status_of_signal
from trio_lifecycle._cli._sentences import unwritten

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


def say(text: str, fresh: str = "") -> None:
    """Say something to people; who does not read it shall have the rest done all the same."""
    with suppress(OSError):
        write(STDERR, f"{fresh}trio-lifecycle: {text}\n")


def answer(text: str) -> int:
    """Write what was asked for; where that can't be written, say so.

    Returns:
        The exit status.
    """
    try:
        write(STDOUT, text)
    except BrokenPipeError:
        return status_of_signal(signal.SIGPIPE)
    except OSError as error:
        say(unwritten(error.strerror or str(error)))
        return NOT_WRITTEN
    return ALL_WELL


def write(fd: int, text: str) -> None:
    """Write all of a text.

    Raises:
        OSError: The stream does not take it.
    """
    rest = memoryview(text.encode(errors="backslashreplace"))
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:
            # Whoever gave us the stream has made it non-blocking.
            select.select([], [fd], [])
