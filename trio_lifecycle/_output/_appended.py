"""The user's file that output is appended to, rotated if that is wanted."""

import errno
import logging
import math
import os
import stat
from pathlib import Path
from typing import Final

from trio_lifecycle._destination import Rotate
from trio_lifecycle._framing import LONGEST_LINE_BYTES
from trio_lifecycle._logs import rotate
from trio_lifecycle._output._opening import open_log

_log: Final = logging.getLogger("trio_lifecycle")


class AppendedFile:
    """A file or device that bytes are appended to as they come.

    Args:
        path: Where it is; the last part may be a symbolic link.

    Raises:
        OSError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = open_log(path, through_links=True)

    def write(self, chunk: bytes) -> None:
        """Append a chunk.

        Raises:
            OSError: The file does not take it.
        """
        while chunk:
            chunk = chunk[os.write(self._fd, chunk) :]

    def finish(self) -> None:
        """Append what was held back: nothing."""

    def close(self) -> None:
        """Let go of it."""
        os.close(self._fd)


class RotatedFile(AppendedFile):
    """A file that makes room for a new one before it becomes too large.

    An unfinished line is held back until it is whole, is over the bound for lines, or is the last.
    Where the path leads through a symbolic link, the file at its end is rotated, beside itself. A
    device is never rotated. A rotation that fails is logged once, and tried again after as much as
    a file may hold.

    Args:
        path: Where it is.
        when: How large it may become, and how many are kept.
        name: The daemon's name.
    """

    def __init__(self, path: Path, when: Rotate, name: str) -> None:
        super().__init__(path)
        # By now, so that neither a new directory nor a new link leads us elsewhere.
        self._path = Path(os.path.realpath(path))
        self._when = when
        self._name = name
        self._held = b""
        self._complained = False
        self._measure()

    def write(self, chunk: bytes) -> None:
        """Append whole lines, and hold back what may become one."""
        whole, newline, rest = chunk.rpartition(b"\n")
        if newline:
            self._append(self._held + whole + newline)
            self._held = rest
        else:
            self._held += rest
        if len(self._held) > LONGEST_LINE_BYTES:
            self.finish()

    def finish(self) -> None:
        """Append what was held back."""
        held, self._held = self._held, b""
        self._append(held)

    def _append(self, data: bytes) -> None:
        while data:
            size = self._fitting(data)
            if not size:
                self._rotate()
                # Also where that failed: what does not fit goes into the old file.
                size = self._fitting(data) or len(data)
            super().write(data[:size])
            self._room -= size
            data = data[size:]

    def _fitting(self, data: bytes) -> int:
        """Say how much of it goes into the file now: all, some lines, or of one line what fits."""
        if len(data) <= self._room:
            return len(data)
        room = max(0, int(self._room))
        return data.rfind(b"\n", 0, room) + 1 or (room if self._is_empty else 0)

    @property
    def _is_empty(self) -> bool:
        return self._room == self._when.max_bytes

    def _measure(self) -> None:
        facts = os.fstat(self._fd)
        is_file = stat.S_ISREG(facts.st_mode)
        self._room: float = self._when.max_bytes - facts.st_size if is_file else math.inf

    def _rotate(self) -> None:
        try:
            if self._is_at_its_path():
                rotate(self._path, self._when.keep)
                self._insist_on_room()
            fd = open_log(self._path)
        except OSError as error:
            self._room = self._when.max_bytes
            if not self._complained:
                self._complained = True
                _log.error(
                    "the output of %s goes on into a file that can't be rotated: %s",
                    *(self._name, error),
                )
            return
        os.close(self._fd)
        self._fd = fd
        self._measure()

    def _is_at_its_path(self) -> bool:
        """Say whether nobody else has rotated or removed it meanwhile."""
        try:
            return os.path.samestat(os.fstat(self._fd), self._path.lstat())
        except FileNotFoundError:
            return False

    def _insist_on_room(self) -> None:
        if self._is_at_its_path():
            raise OSError(errno.EPERM, "belongs to another user", str(self._path))
