"""Output that the daemon writes into a file itself."""

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._framing import LineFramer
from trio_lifecycle._output._growing import FileHearing
from trio_lifecycle._output._opening import place_in, read_end, read_from
from trio_lifecycle.abc import Hearing, Process

# As much as is read at once.
READ_BYTES: Final = 65_536

# A file can't be waited for. Nobody reads a log faster than this.
_FILE_LOOK_INTERVAL_S: Final = 0.05


class FileOutput:
    """The log file of a daemon that writes to it itself.

    Attributes:
        path: Where it is.
    """

    def __init__(self, path: Path, tail_bytes: int, start: int) -> None:
        self.path = path
        self._tail_bytes = tail_bytes
        self._start = self._seen_size = start
        self._unheard: int | None = start
        self._heard_at: float | None = None

    @property
    def heard_at(self) -> float | None:
        """When the file was first seen to have grown to what it is now."""
        size = _size_of(self.path)
        if size != self._seen_size:
            self._seen_size, self._heard_at = size, trio.current_time()
        return self._heard_at

    async def run(self) -> None:
        """Nothing is to be moved."""

    def take_rest(self) -> None:
        """Nothing is to be moved."""

    def close(self) -> None:
        """Nothing is open."""

    def tail(self) -> bytes:
        """Give the end of what was written since the spawn."""
        return read_end(self.path, self._start, self._tail_bytes)

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on; the file is looked at again and again."""
        return FileReader(self.path, process)

    def hear_lines(self, process: Process, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard from now on; who is the first hears all since the spawn."""
        start, self._unheard = self._unheard, None
        return FileHearing(
            self.path, process, hear, _size_of(self.path) if start is None else start
        )


class FileReader(AsyncIterator[str]):
    """Lines that a process writes into a file, from the file's present end until its own."""

    def __init__(self, path: Path, process: Process) -> None:
        self._path = path
        self._process = process
        self._offset = _size_of(path)
        self._framer = LineFramer()
        self._lines: deque[str] = deque()
        self._done = False

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._lines:
            if self._done:
                raise StopAsyncIteration
            # Looked at before the file is read: what an ended process wrote is all there.
            self._done = self._process.ended
            self._read()
            if not self._lines and not self._done:
                await trio.sleep(_FILE_LOOK_INTERVAL_S)
        return self._lines.popleft()

    def _read(self) -> None:
        # Once it has ended, a smaller file may be its successor's.
        if not self._process.ended and place_in(self._path, self._offset) < self._offset:
            # The line that was begun will never end.
            self._lines.extend(self._framer.close())
            self._offset = 0
        chunk = read_from(self._path, self._offset, READ_BYTES)
        self._offset += len(chunk)
        self._lines.extend(self._framer.feed(chunk))
        self._done = self._done and len(chunk) < READ_BYTES
        if self._done:
            self._lines.extend(self._framer.close())


def _size_of(path: Path) -> int:
    with suppress(OSError):
        return path.lstat().st_size
    return 0
