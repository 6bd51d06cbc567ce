"""Output that comes through a pipe."""

import os
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._destination import Output
from trio_lifecycle._framing import LineFramer
from trio_lifecycle._output._lines import Lines
from trio_lifecycle._output._sink import Destination
from trio_lifecycle._output._tail import Tail
from trio_lifecycle.abc import Process

# As much as a pipe holds by default (pipe(7)), so that one read empties it.
_READ_BYTES: Final = 65_536

# What a pipe can hold at most for an ordinary user (pipe(7), pipe-max-size): a stray that still
# writes must not keep us here for ever.
_MOST_TAKEN_BYTES: Final = 1_048_576


class PipedOutput:
    """Takes a daemon's output from a pipe, so that it never waits, and gives it to who wants it."""

    def __init__(self, name: str, output: Output, read_end: int) -> None:
        self._fd = read_end
        self._destination = Destination(name, output.to)
        self._tail = Tail(output.tail_bytes)
        self._framer = LineFramer()
        self._lines = Lines()
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
                    self._take(chunk)
                    # Others must have their turn however much the daemon writes.
                    await trio.lowlevel.checkpoint()
                else:
                    break
        self._finish()

    def take_rest(self) -> None:
        """Take in what is in the pipe now.

        Its end is not waited for: a process outside the tree may hold it.
        """
        room = _MOST_TAKEN_BYTES
        while self._fd >= 0 and room > 0 and (chunk := self._read()):
            self._take(chunk)
            room -= len(chunk)

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        return bytes(self._tail)

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._lines.read()

    def close(self) -> None:
        """Let go of the pipe and of what was opened. Calling it again is fine."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1
        self._finish()

    def _read(self) -> bytes | None:
        try:
            return os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return None

    def _take(self, chunk: bytes) -> None:
        self._tail.feed(chunk)
        self._destination.feed(chunk)
        if self._destination.takes_lines or self._lines.wanted:
            self._pass_on(self._framer.feed(chunk))
        else:
            self._framer.skip(chunk)

    def _pass_on(self, lines: list[str]) -> None:
        self._destination.feed_lines(lines)
        self._lines.feed(lines)

    def _finish(self) -> None:
        self._pass_on(self._framer.close())
        self._destination.close()
        self._lines.close()
