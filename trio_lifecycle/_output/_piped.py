"""Output that comes through a pipe."""

import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._destination import Output
from trio_lifecycle._output._intake import Intake
from trio_lifecycle.abc import Hearing, Process

# As much as a pipe holds by default (pipe(7)), so that one read empties it.
_READ_BYTES: Final = 65_536

# What a pipe can hold at most for an ordinary user (pipe(7), pipe-max-size): a stray that still
# writes must not keep us here for ever.
_MOST_TAKEN_BYTES: Final = 1_048_576


class PipedOutput:
    """Takes a daemon's output from a pipe, so that it never waits, and gives it to who wants it.

    Args:
        name: The daemon's name.
        output: Who wants it.
        read_end: The pipe.
        secrets: What nobody gets.

    Raises:
        OSError: The file that it is to go to can't be opened.
    """

    def __init__(
        self, name: str, output: Output, read_end: int, secrets: Iterable[str] = ()
    ) -> None:
        self._fd = read_end
        self._intake = Intake(name, output, secrets)
        self.heard_at: float | None = None

    # Ctrl-C may strike in any task that runs Python code; here it would break off the whole owner.
    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Read until the pipe's end, or until it is closed here."""
        with suppress(trio.ClosedResourceError):
            while self._fd >= 0:
                chunk = self._read()
                if chunk is None:
                    await trio.lowlevel.wait_readable(self._fd)
                elif chunk:
                    self.heard_at = trio.current_time()
                    self._intake.take(chunk)
                    # Others must have their turn however much the daemon writes.
                    await trio.lowlevel.checkpoint()
                else:
                    break
        self.finish()

    def take_rest(self) -> None:
        """Take in what is in the pipe now.

        Its end is not waited for: a process outside the tree may hold it.
        """
        self._take_all()

    def _take_all(self) -> int:
        room = _MOST_TAKEN_BYTES
        while self._fd >= 0 and room > 0 and (chunk := self._read()):
            self._intake.take(chunk)
            room -= len(chunk)
        return _MOST_TAKEN_BYTES - room

    def _look(self) -> None:
        if self._take_all():
            # A ready mode may look before the task that empties the pipe has its turn.
            self.heard_at = trio.current_time()

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        return self._intake.tail()

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._intake.lines()

    def hear_lines(self, process: Process, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard that comes from now on."""
        return self._intake.hear(hear, self._look)

    def close(self) -> None:
        """Let go of the pipe and of what was opened. Calling it again is fine."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1
        self.finish()

    def finish(self) -> None:
        """Give what is unfinished to who wants it: there will be no more.

        Calling it again is fine.
        """
        self._intake.finish()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None
