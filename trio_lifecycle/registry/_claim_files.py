"""Claim files: one lock file for each name, with a note of who holds it."""

import json
import os
import time
from pathlib import Path
from typing import Any

from trio_lifecycle._proc import read_stat
from trio_lifecycle._state_dir import make_private
from trio_lifecycle.abc import ClaimHolder
from trio_lifecycle.registry._complaints import RefusalError
from trio_lifecycle.registry._lock_file import LockFile, read_note


class ClaimFile:
    """The claim of one name.

    Args:
        directory: Where claim files are; made if need be, with what is above it.
        name: Whose claim it is.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        # UTF-8 for everybody, whatever a program's locale says of file names.
        self._path = os.fsencode(directory) + b"/" + name.encode() + b".lock"
        self._lock = LockFile(self._path)
        self._taken = False

    def try_take(self) -> bool:
        """Take the claim if it is free; True when it is taken.

        Raises:
            ConfigError, RefusalError: Others can write where it is.
            OSError: The file can't be opened or locked.
        """
        make_private(self._directory.parent)
        make_private(self._directory)
        try:
            self._taken = self._lock.try_lock()
        except FileNotFoundError:  # the directory was removed just now
            return False
        if self._taken:
            self._lock.write(_note())
        return self._taken

    def looks_free(self) -> bool:
        """Whether another try is worth it; this asks the disk for nothing."""
        return self._lock.looks_free()

    def insist(self) -> None:
        """See that a claim that was taken still keeps others out.

        Raises:
            RefusalError: It does not.
        """
        if self._taken and not self._lock.is_in_place():
            raise RefusalError(
                f"{os.fsdecode(self._path)} was removed or closed while it was locked, so another "
                "program may be starting the same daemon; nothing was noted, start it once more"
            )

    def release(self) -> None:
        """Let others have it. Calling it again is fine."""
        if self._taken:  # else the note is somebody else's
            self._lock.write(b"")
        self._taken = False
        self._lock.release()

    def find_holder(self) -> ClaimHolder | None:
        """Say who holds it at this moment; None when nobody does.

        Raises:
            RefusalError: Somebody else could have prepared the file.
            OSError: It can't be read.
        """
        note = read_note(self._path)
        return None if note is None else _holder(note)


def _note() -> bytes:
    stat = read_stat(os.getpid())
    start_time = None if stat is None else stat.start_time
    return json.dumps([os.getpid(), start_time, time.time()]).encode()


def _holder(note: bytes) -> ClaimHolder:
    """Whom a note means; a stale one, of a holder that was killed, means nobody."""
    try:
        found: Any = json.loads(note)
        pid, start_time, since = found
        stat = read_stat(pid) if type(pid) is int else None
        if stat is not None and stat.start_time == start_time:
            return ClaimHolder(pid, float(since))
    except (TypeError, ValueError, OverflowError, RecursionError):
        pass
    return ClaimHolder(None, None)
