"""The log file of a daemon of another machine, which the daemon writes itself."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from trio_lifecycle._framing import LineFramer
from trio_lifecycle._ssh import _remote_files
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_files import Chunk
from trio_lifecycle.abc import Hearing, Process

# As much as is read at once.
_READ_BYTES: Final = 65_536

# Between two looks at a file that somebody follows. Each takes a round trip and some milliseconds
# of the other machine.
LOG_INTERVAL_S: Final = 0.1


class RemoteLog:
    """Reads a log file from an offset on; who wants what is yet to come skips the rest.

    Args:
        machine: Where it is.
        path: Its path there.
        offset: Where to begin.
    """

    def __init__(self, machine: Machine, path: str, offset: int = 0) -> None:
        self.path = path
        self._machine = machine
        self._offset = offset
        # Two who read from one offset would both get what stands there.
        self._turn = trio.Lock()

    async def skip(self) -> None:
        """Begin at its end.

        Raises:
            SSHConnectError: The machine can't be reached.
        """
        self._offset = (await self._read(0, 0)).size

    async def take(self) -> bytes:
        """Give what was written since, at most 64 KiB; nothing when the file can't be read.

        One task asks at a time.

        Raises:
            SSHConnectError: The machine can't be reached.
        """
        part = await self._read(self._offset, _READ_BYTES)
        if part.size < self._offset:
            # Cut short under its writer, or another file by now.
            self._offset = 0
            return b""
        self._offset += len(part.data)
        return part.data

    async def rewind(self, most_bytes: int) -> Chunk:
        """Give what stands before the place that was reached, and stay there."""
        most_bytes = min(most_bytes, self._offset)
        return await self._read(self._offset - most_bytes, most_bytes)

    async def _read(self, offset: int, most_bytes: int) -> Chunk:
        async def look(line: Line) -> Chunk | None:
            return await _remote_files.read_log(line, self.path, offset, most_bytes)

        try:
            return await self._machine.look(look) or Chunk(0, b"")
        except OSError:
            return Chunk(0, b"")

    async def take_all(self, feed: Callable[[bytes], None]) -> None:
        """Pass on all that was written since; several tasks may ask.

        Raises:
            SSHConnectError: The machine can't be reached.
        """
        async with self._turn:
            while data := await self.take():
                feed(data)
                if len(data) < _READ_BYTES:
                    break


async def end_of(machine: Machine, path: str, most_bytes: int) -> bytes:
    """Give the end of a log file; nothing when it can't be read.

    Raises:
        SSHConnectError: The machine can't be reached.
    """
    log = RemoteLog(machine, path)
    await log.skip()
    return (await log.rewind(most_bytes)).data


class LogLines(AsyncIterator[str]):
    """Lines that a daemon writes from now on, until its end."""

    def __init__(self, log: RemoteLog, process: Process) -> None:
        self._log = log
        self._process = process
        self._framer = LineFramer()
        self._lines: deque[str] = deque()
        self._begun = False
        self._done = False

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        if not self._begun:
            await self._log.skip()
            self._begun = True
        while not self._lines:
            if self._done:
                raise StopAsyncIteration
            await self._process.look()
            # Looked at before the file is read: what an ended process wrote is all there.
            ended = self._process.ended
            data = await self._log.take()
            self._lines.extend(self._framer.feed(data))
            self._done = ended and not data
            if self._done:
                self._lines.extend(self._framer.close())
            elif not self._lines:
                await trio.sleep(LOG_INTERVAL_S)
        return self._lines.popleft()


class LogHearing(Hearing):
    """The lines of a log file on their way to one who hears every one of them."""

    def __init__(self, lines: LogLines, hear: Callable[[list[str]], None]) -> None:
        self._lines = lines
        self._hear = hear
        self._scope: trio.CancelScope | None = None
        self._is_closed = False

    async def run(self) -> None:
        """Read."""
        if self._is_closed:
            return
        with trio.CancelScope() as self._scope:
            async for line in self._lines:
                if not self._is_closed:
                    self._hear([line])

    def look(self) -> None:
        """Who looks at another machine has to wait."""

    def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        if self._scope is not None:
            self._scope.cancel()
