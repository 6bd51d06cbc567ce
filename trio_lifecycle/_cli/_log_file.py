"""A log file: its last lines, and what is added to them."""

import errno
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, NamedTuple

import trio

# As much as is read at once, in both directions.
_CHUNK_BYTES: Final = 65_536


class Piece(NamedTuple):
    """A part of a file, and how large the whole was right before."""

    size: int
    data: bytes


class LogFile(ABC):
    """A file that a daemon writes to, read from its beginning unless told otherwise."""

    def __init__(self) -> None:
        self._offset = 0

    @abstractmethod
    async def _read_at(self, offset: int, most_bytes: int) -> Piece:
        """Give what stands at a place, at most so many bytes of it."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""

    async def skip_to_last(self, lines: int) -> None:
        """Begin with the last so many lines, of however large a file only the end is read.

        Raises:
            OSError: It can't be read.
        """
        size = start = (await self._read_at(0, 0)).size
        # Not counted: the newline that ends the last line.
        within_line = lines == 0 or await self._ends_within_line(size)
        wanted = lines if within_line else lines + 1
        while start > 0 and wanted > 0:
            end, start = start, max(0, start - _CHUNK_BYTES)
            chunk = (await self._read_at(start, end - start)).data
            found = chunk.count(b"\n")
            if found < wanted:
                wanted -= found
                continue
            self._offset = start + _after_newline(chunk, wanted)
            return
        self._offset = size if lines == 0 else 0

    async def _ends_within_line(self, size: int) -> bool:
        return size > 0 and (await self._read_at(size - 1, 1)).data != b"\n"

    async def read(self) -> bytes:
        """Give what comes next; nothing where there is no more at this moment.

        Raises:
            OSError: It can't be read.
        """
        piece = await self._read_at(self._offset, _CHUNK_BYTES)
        if piece.size < self._offset:
            # Somebody emptied it, as logrotate(8) does with copytruncate.
            self._offset = 0
            piece = await self._read_at(0, _CHUNK_BYTES)
        self._offset += len(piece.data)
        return piece.data


class LocalLogFile(LogFile):
    """A file of this machine; it stays the same when it is renamed to make room for a new one.

    Args:
        path: Where it is.

    Raises:
        OSError: It is not there, or is no file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        # O_NONBLOCK: opening a FIFO would wait for who writes to it.
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        if not stat.S_ISREG(os.fstat(self._fd).st_mode):
            self.close()
            raise OSError(errno.EINVAL, "is no regular file", str(path))

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)

    async def _read_at(self, offset: int, most_bytes: int) -> Piece:
        await trio.lowlevel.checkpoint()
        size = os.fstat(self._fd).st_size
        return Piece(size, os.pread(self._fd, most_bytes, offset))


def _after_newline(chunk: bytes, number: int) -> int:
    """Give the place behind a newline, counted from the end."""
    place = len(chunk)
    for _ in range(number):
        place = chunk.rindex(b"\n", 0, place)
    return place + 1
