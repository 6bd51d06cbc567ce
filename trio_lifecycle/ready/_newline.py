"""Ready when the daemon writes a newline to a descriptor, as daemons do under s6."""

import os
from collections.abc import Mapping
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._requests import DESCRIPTOR_NUMBERS
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, Start

# As much as a pipe holds by default (pipe(7)).
_READ_BYTES: Final = 65_536

# At a last look: as much as a pipe holds at most for an ordinary user (pipe(7), pipe-max-size).
_MOST_LOOKED_AT: Final = 16

# The descriptors of a process that ends are closed before its end can be seen, which is then the
# news.
_END_PATIENCE_S: Final = 0.25


def _fd(value: int) -> int:
    first, last = DESCRIPTOR_NUMBERS[0], DESCRIPTOR_NUMBERS[-1]
    given: object = value
    if isinstance(given, bool) or not isinstance(given, int):
        raise ConfigError("fd", f"must be the number of a descriptor such as 3, not {value!r}")
    if value not in DESCRIPTOR_NUMBERS:
        raise ConfigError("fd", f"must be from {first} to {last}, not {value}")
    return int(value)


@frozen
class NewlineOnFD(ReadyMode):
    """Ready when the daemon writes a newline to a descriptor that it is given.

    The way of s6 (https://skarnet.org/software/s6/notifywhenup.html) and of daemons with an option
    such as ``--ready-fd 3``. The daemon finds the descriptor open, under that number. What it
    writes before the newline is ignored. If it closes the descriptor without a newline, in all its
    processes that have it, it can't become ready any more: ``ReadyError``, at once.

    Attributes:
        fd: The descriptor's number in the daemon, from 3 to 249.
    """

    fd: int = field(converter=_fd)

    @property
    def channels(self) -> frozenset[str]:
        """The descriptor."""
        return frozenset({f"fd {self.fd}"})

    async def arm(self, start: Start) -> "ArmedNewline":
        """Make the pipe.

        Raises:
            ReadyError: There are no descriptors left.
        """
        try:
            return ArmedNewline(start, self.fd, *os.pipe2(os.O_CLOEXEC))
        except OSError as error:
            problem = f"the pipe for its newline can't be made: {error.strerror}"
            raise ReadyError(start.name, problem) from error


class ArmedNewline(ArmedReady):
    """The pipe of one spawn."""

    def __init__(self, start: Start, number: int, read_end: int, write_end: int) -> None:
        self._start = start
        self._number = number
        self._read_end = read_end
        self._write_end = write_end
        self._report: Report | None = None
        self._has_written = False
        self._has_ended = False
        os.set_blocking(read_end, False)

    @property
    def descriptors(self) -> Mapping[int, int]:
        """The end that is written to."""
        return {self._number: self._write_end}

    @property
    def awaited(self) -> str:
        """A newline."""
        return f"its newline on descriptor {self._number}"

    @property
    def last_seen(self) -> str:
        """Whether there was anything."""
        what = "no newline" if self._has_written else "nothing"
        ended = ", and has closed it" if self._has_ended else ""
        return f"it has written {what} to descriptor {self._number}{ended}"

    def begin(self, process: Process) -> None:
        """Let go of the end that the daemon has now, so that its end can be seen."""
        self._close_write_end()

    def _close_write_end(self) -> None:
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    async def wait(self, process: Process) -> Report:
        """Read until there is a newline."""
        while True:
            is_empty = not self._take()
            if self._report is not None:
                return self._report
            if self._has_ended:
                await trio.sleep(_END_PATIENCE_S)
                raise ReadyError(self._start.name, self.last_seen)
            if is_empty:
                await trio.lowlevel.wait_readable(self._read_end)
            else:
                # Others must have their turn however much it writes.
                await trio.lowlevel.checkpoint()

    async def ask(self, process: Process) -> Report | None:
        """Read what is written already."""
        await trio.lowlevel.checkpoint()
        for _ in range(_MOST_LOOKED_AT):
            if self._report is not None or not self._take():
                break
        return self._report

    def _take(self) -> bool:
        """Read, and say whether anything was there."""
        if self._read_end < 0:
            return False
        try:
            chunk = os.read(self._read_end, _READ_BYTES)
        except BlockingIOError:
            return False
        self._has_written = self._has_written or bool(chunk)
        self._has_ended = not chunk
        if b"\n" in chunk:
            self._report = Report(None, self._start.port)
        return bool(chunk)

    async def disarm(self) -> None:
        """Let go of the pipe."""
        self._close_write_end()
        if self._read_end >= 0:
            trio.lowlevel.notify_closing(self._read_end)
            os.close(self._read_end)
            self._read_end = -1
