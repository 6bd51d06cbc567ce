"""A lock file: flock(2)ed by one at a time, never removed, and free when its holder is gone."""

import fcntl
import os
from contextlib import suppress
from typing import Final

from trio_lifecycle.registry._private_files import is_at, open_private


class LockFile:
    """One try after the other at the lock of one file.

    Two of them exclude each other within a program, too: the lock belongs to the open file
    description. A fork of the program has no part in it: its copy of the descriptor is closed at
    once, without which the lock would outlive the holder's death.

    Args:
        path: The file; made if need be.
        shared: Whether others may lock it at the same time, if they share it, too.
    """

    def __init__(self, path: bytes, *, shared: bool = False) -> None:
        self._path = path
        self._kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        self._descriptor: int | None = None

    def try_lock(self) -> bool:
        """Lock the file that is at the path if nobody else has; True while it is locked.

        Raises:
            RefusalError: Somebody else could have prepared the file.
            OSError: It can't be opened or locked.
        """
        if self._descriptor is None:
            self._descriptor = open_private(self._path, create=True)
            _open.add(self)
        if not self.looks_free():
            return False
        if not is_at(self._descriptor, self._path):
            # Removed by hand while we waited; whoever comes now locks another one.
            self.release()
            return False
        return True

    def looks_free(self) -> bool:
        """Lock the open file if nobody else has, without asking the disk for anything."""
        if self._descriptor is None:
            return True
        try:
            fcntl.flock(self._descriptor, self._kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_in_place(self) -> bool:
        """Whether what was opened is still what others find at the path, and would lock."""
        return self._descriptor is None or is_at(self._descriptor, self._path)

    def write(self, note: bytes) -> None:
        """Put a note into the open file, in the place of another one."""
        # A note is for a sentence in a message; a full disk must not keep the lock from its holder.
        with suppress(OSError):
            if self._descriptor is not None:
                os.ftruncate(self._descriptor, 0)
                os.pwrite(self._descriptor, note, 0)

    def release(self) -> None:
        """Let others have it. Calling it again is fine."""
        descriptor, self._descriptor = self._descriptor, None
        _open.discard(self)
        if descriptor is not None:
            # Closing alone would leave it to a copy of the descriptor in some other process. If
            # either fails, the descriptor is no more all the same (close(2)), and its lock neither.
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            with suppress(OSError):
                os.close(descriptor)

    def forget(self) -> None:
        """Close this process's descriptor, and leave the lock to whom it belongs."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def read_note(path: bytes) -> bytes | None:
    """Give the note in a lock file if it is locked at this moment, None if it is free.

    Raises:
        RefusalError: Somebody else could have prepared the file.
        OSError: It can't be opened or locked.
    """
    try:
        descriptor = open_private(path, create=False)
    except FileNotFoundError:
        return None
    try:
        # Whoever tries for the lock in this instant is refused, and tries again.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(descriptor, LONGEST_NOTE_BYTES, 0)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return None
    finally:
        os.close(descriptor)


# Three numbers and their names.
LONGEST_NOTE_BYTES: Final = 200

_open: Final[set[LockFile]] = set()


def _forget_all() -> None:
    for file in _open:
        file.forget()
    _open.clear()


os.register_at_fork(after_in_child=_forget_all)
