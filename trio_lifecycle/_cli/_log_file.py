"""A log file: its last lines, and what is added to them."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

# As much as is read at once, in both directions.
_CHUNK_BYTES: Final = 65_536


class LogFile:
    """A file that a daemon writes to, read from its beginning unless told otherwise.

    It stays the same file when it is renamed to make room for a new one.

    Args:
        path: Where it is.

    Raises:
        OSError: It is not there, or is no file.
    """

    def __init__(self, path: Path) -> None:
        # O_NONBLOCK: opening a FIFO would wait for who writes to it.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self._offset = 0
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "is no regular file", str(path))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    def skip_to_last(self, lines: int) -> None:
        """Begin with the last so many lines, of however large a file only the end is read."""
        size = start = os.fstat(self._fd).st_size
        # Not counted: the newline that ends the last line.
        wanted = lines if lines == 0 or self._ends_within_line(size) else lines + 1
        while start > 0 and wanted > 0:
            end, start = start, max(0, start - _CHUNK_BYTES)
            chunk = os.pread(self._fd, end - start, start)
            found = chunk.count(b"\n")
            if found < wanted:
                wanted -= found
                continue
            self._offset = start + _after_newline(chunk, wanted)
            return
        self._offset = size if lines == 0 else 0

    def _ends_within_line(self, size: int) -> bool:
        return size > 0 and os.pread(self._fd, 1, size - 1) != b"\n"

    def read(self) -> bytes:
        """Give what comes next; nothing where there is no more at this moment."""
        if os.fstat(self._fd).st_size < self._offset:
            # Somebody emptied it, as logrotate(8) does with copytruncate.
            self._offset = 0
        chunk = os.pread(self._fd, _CHUNK_BYTES, self._offset)
        self._offset += len(chunk)
        return chunk


def _after_newline(chunk: bytes, number: int) -> int:
    """Give the place behind a newline, counted from the end."""
    place = len(chunk)
    for _ in range(number):
        place = chunk.rindex(b"\n", 0, place)
    return place + 1
