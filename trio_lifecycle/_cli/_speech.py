"""What a command without a daemon of its own says: written at once, to whoever reads it."""

import os
import select
from contextlib import suppress
from typing import Final

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


def say(text: str, fresh: str = "") -> None:
    """Say something to people; who does not read it shall have the rest done all the same."""
    with suppress(OSError):
        write(STDERR, f"{fresh}trio-lifecycle: {text}\n")


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
