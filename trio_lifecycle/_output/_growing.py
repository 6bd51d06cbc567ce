"""A file that a daemon writes: every line of it is heard soon after it was written."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._framing import LineFramer
from trio_lifecycle._inotify import FileChanges
from trio_lifecycle._output._opening import place_in, read_from
from trio_lifecycle._polling import next_interval
from trio_lifecycle.abc import Hearing, Process

# As much as is read at once. Less makes a flood slower to hear; more keeps others waiting.
_READ_BYTES: Final = 65_536

# At a last look: what is written meanwhile must not keep us here for ever.
_MOST_LOOKED_AT_BYTES: Final = 1_048_576

# The longest pause between two looks, where the kernel does not say that something was written.
_LONGEST_INTERVAL_S: Final = 0.05


class FileHearing(Hearing):
    """The lines of a file on their way to one who hears every one of them.

    Args:
        path: The file.
        process: Who writes it.
        hear: It is called with lines.
        start: Where the first line begins.
    """

    def __init__(
        self, path: Path, process: Process, hear: Callable[[list[str]], None], start: int
    ) -> None:
        self._path = path
        self._process = process
        self._hear = hear
        self._offset = start
        self._framer = LineFramer()
        self._changes = FileChanges(path)
        self._closed = False

    async def run(self) -> None:
        """Read whenever something was written, or at growing intervals."""
        with suppress(trio.ClosedResourceError):
            since = trio.current_time()
            while not self._closed:
                # Looked at before the file is read: what an ended process wrote is all there.
                ended = self._process.ended
                if self._take():
                    since = trio.current_time()
                    await trio.lowlevel.checkpoint()
                elif ended:
                    break
                else:
                    elapsed_s = trio.current_time() - since
                    await self._changes.wait(next_interval(elapsed_s, _LONGEST_INTERVAL_S))
        self._pass_on(self._framer.close())

    def look(self) -> None:
        """Read what is there."""
        for _ in range(_MOST_LOOKED_AT_BYTES // _READ_BYTES):
            if self._closed or not self._take():
                break

    def close(self) -> None:
        """Read no more."""
        self._closed = True
        self._changes.close()

    def _take(self) -> int:
        # Once it has ended, a smaller file may be its successor's.
        if not self._process.ended and place_in(self._path, self._offset) < self._offset:
            # The line that was begun will never end.
            self._pass_on(self._framer.close())
            self._offset = 0
        chunk = read_from(self._path, self._offset, _READ_BYTES)
        self._offset += len(chunk)
        self._pass_on(self._framer.feed(chunk))
        return len(chunk)

    def _pass_on(self, lines: list[str]) -> None:
        if lines and not self._closed:
            self._hear(lines)
