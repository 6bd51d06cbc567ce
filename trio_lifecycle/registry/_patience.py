"""Patience with those who are at work in a database, as long as any of them gets on."""

import os
from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._proc import command_line
from trio_lifecycle._procfs import exclusive_lockers
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.registry._pauses import pauses

# Another program's transaction takes under a millisecond.
FIRST_PAUSE_S: Final = 0.001
LONGEST_PAUSE_S: Final = 0.02

# Of two hundred programs that write at once, one gets on every few milliseconds, and the unluckiest
# waited for 17 s on two processors. Where none has got on for this long, the one whose turn it is
# was stopped or hangs; and a person at a terminal still waits for the answer.
PATIENCE_S: Final = 10.0

# What a program changes that gets on.
_TOUCHED: Final = ("", "-wal", ".lock")
# What a program locks that is at work: https://sqlite.org/walformat.html, 2.3
_LOCKED: Final = ("-shm", "", ".lock")

Traces = list[tuple[int, int, int] | None]


class Patience:
    """Waits for others, again and again, until none of them has got on for ten seconds.

    It counts its pauses and looks at no clock: a program that was stopped itself has not waited.

    Args:
        path: The database.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._pauses = pauses(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._traces = _traces(path)
        self._waited_s = 0.0

    async def pause(self) -> None:
        """Wait until another try is worth it.

        Raises:
            RegistryError: Nobody gets on. It says who is in the way, where that can be told.
        """
        traces = _traces(self._path)
        if traces != self._traces:
            self._traces, self._waited_s = traces, 0.0
        if self._waited_s >= PATIENCE_S:
            raise RegistryError(self._path, _complaint(self._path))
        pause = next(self._pauses)
        await trio.sleep(pause)
        self._waited_s += pause


def _traces(path: str) -> Traces:
    found = (_look(path + suffix) for suffix in _TOUCHED)
    return [file and (file.st_ino, file.st_size, file.st_mtime_ns) for file in found]


def _complaint(path: str) -> str:
    pids = dict.fromkeys(
        pid
        for suffix in _LOCKED
        if (file := _look(path + suffix)) is not None
        for pid in exclusive_lockers(file)
    )
    names = " and ".join(f"process {pid} ({command_line(pid)})" for pid in pids)
    cure = f"kill -CONT {' '.join(map(str, pids))}" if pids else f"fuser {path} shows who has it"
    return (
        f"{names or 'another program'} keeps it locked and has not got on for {PATIENCE_S:g} s, "
        f"as one that was stopped or hangs; let it go on or end it ({cure})"
    )


def _look(path: str) -> os.stat_result | None:
    with suppress(OSError):
        return os.lstat(path)
    return None
