"""The registry of one machine: an SQLite database, and a lock file for each claim."""

import logging
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, TypeVar

import trio

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._names import check_name
from trio_lifecycle._paths import absolute
from trio_lifecycle._state_dir import registry_path
from trio_lifecycle.abc import ClaimHolder, DaemonRecord, RecordChange, Registry
from trio_lifecycle.registry import _rows
from trio_lifecycle.registry._changes import Changes, Look, look
from trio_lifecycle.registry._claim_files import ClaimFile
from trio_lifecycle.registry._complaints import OccupiedError, complaining
from trio_lifecycle.registry._database_file import DatabaseFile
from trio_lifecycle.registry._patience import FIRST_PAUSE_S, Patience
from trio_lifecycle.registry._pauses import pauses
from trio_lifecycle.registry._same_name import check_same_name
from trio_lifecycle.registry._session import Mark, mark_of
from trio_lifecycle.registry._turns import Turns

ResultT = TypeVar("ResultT")

_log: Final = logging.getLogger("trio_lifecycle")

# A start takes from some milliseconds to minutes, and somebody waits for it: a look every 50 ms
# costs him nothing that he would notice, and this machine a few microseconds.
LONGEST_CLAIM_PAUSE_S: Final = 0.05

_limiter: Final = trio.lowlevel.RunVar[trio.CapacityLimiter]("trio_lifecycle.registry")


class SQLiteRegistry(Registry):
    """Remembers in a file, for all programs of one user on one machine.

    The file is read and written in a thread; a wait for another program is a wait in Trio, and
    can be cancelled at once; it ends with an error where nobody has got on for ten seconds, as when
    the one at work was stopped. Nothing is touched before the first use. Claims are lock files in a
    directory beside it, which the system frees when their holder is gone, however it ended; they
    are never removed.

    A record that a later version wrote is used as far as it is understood, and one that tells no
    process is set aside, with a warning.

    The directory, the file and all beside it must be this user's, and written by nobody else. A
    damaged file is set aside under a name of its own and a new one begun; a file of a later version
    or of another program is refused. Keep it on a disk of this machine: network file systems have
    no locks that could be relied on.

    Args:
        path: The database. Defaults to ``$XDG_STATE_HOME/trio-lifecycle/registry.sqlite``, or
            ``~/.local/state/trio-lifecycle/registry.sqlite``. Programs with different paths know
            nothing of each other's daemons.

    Raises:
        ConfigError: The path is none.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        default = registry_path(os.environ)
        self._path = _absolute(default if path is None else path)
        self._is_default = self._path == str(default)
        self._file = DatabaseFile(self._path)
        self._claims = Path(f"{self._path}.claims")
        self._turns = Turns()
        self._held: dict[str, ClaimFile] = {}
        self._known: dict[str, tuple[Mark, DaemonRecord | None]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    @property
    def path(self) -> Path:
        """The database."""
        return Path(self._path)

    @property
    def log_directory(self) -> Path | None:
        """``logs`` beside this user's own registry; for any other a directory named after it."""
        return None if self._is_default else Path(f"{self._path}.logs")

    def close(self) -> None:
        """Let go of the file; the next use opens it again. Calling it again is fine."""
        self._file.close()

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def claim(self, name: str) -> AsyncIterator[None]:
        """Hold the exclusive right to start the daemon of this name for the length of a block."""
        file = self._claim_file(name)
        # Those of this run come one after the other, without looking at the file in between.
        async with self._turns.turn(name):
            try:
                for pause in pauses(FIRST_PAUSE_S, LONGEST_CLAIM_PAUSE_S):
                    if self._looks_free(file) and await self._in_thread(file.try_take):
                        break
                    await trio.sleep(pause)
                self._held[name] = file
                yield
            finally:
                if self._held.get(name) is file:
                    del self._held[name]
                file.release()

    async def find_claim(self, name: str) -> ClaimHolder | None:
        """Say who holds the claim of this name at this moment; None when nobody does."""
        return await self._in_thread(self._claim_file(name).find_holder)

    async def get(self, name: str) -> DaemonRecord | None:
        """Give the record of this name, None when there is none."""
        check_name("name", name)
        mark, record = await self._read(partial(_find, name=name))
        self._known[name] = mark, record
        return record

    def confirms(self, record: DaemonRecord) -> bool:
        """Look whether anything has changed since the name was last read through this object."""
        mark, found = self._known.get(record.name, (None, None))
        if mark is None or found is None or not found.is_about_same(record):
            return False
        return mark == self._file.find_mark()

    async def put(self, record: DaemonRecord) -> None:
        """Store a record in the place of any other of its name.

        Refused under a claim of this object whose file was removed, which keeps nobody out any
        more.
        """
        held = self._held.get(record.name)

        def put(connection: sqlite3.Connection) -> None:
            # A claim whose file was removed keeps nobody out any more. Who finds that out here has
            # run nothing of the daemon yet.
            if held is not None:
                held.insist()
            _rows.put(connection, record)

        await self._write(put)

    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Store ``new`` if what is stored is still of ``old``'s instance and in its state."""
        check_same_name(old, new)
        return await self._write(partial(_rows.replace, old=old, new=new))

    async def remove(self, record: DaemonRecord) -> bool:
        """Remove the record of this name if it still is about this instance."""
        return await self._write(partial(_rows.remove, record=record))

    async def daemons(self) -> list[DaemonRecord]:
        """Give all records, ordered by name."""
        return await self._read(_rows.find_all)

    def watch(self) -> AsyncIterator[RecordChange]:
        """Give every record that is there, and then each change, without an end."""
        return Changes(self._look)

    async def _look(self, last: Look | None) -> Look:
        return await self._read(partial(look, last=last))

    def _looks_free(self, file: ClaimFile) -> bool:
        with complaining(self._path):
            return file.looks_free()

    def _claim_file(self, name: str) -> ClaimFile:
        return ClaimFile(self._claims, check_name("name", name))

    async def _read(self, find: Callable[[sqlite3.Connection, Container[int]], ResultT]) -> ResultT:
        """Look into the database; rows that can't be records are passed over."""
        passed: set[int] = set()

        def find_the_rest() -> ResultT:
            return self._file.run(lambda connection: find(connection, passed), writes=False)

        def pass_over(bad: _rows.BadRowsError) -> None:
            try:
                self._set_aside(bad)
            except (sqlite3.Error, OSError):
                # Where nothing can be written, they stay, and keep no other from being found.
                for row, reason in bad.rows:
                    passed.add(row.change)
                    _warn_of_bad_row(self._path, row.name, reason)

        return await self._do(find_the_rest, pass_over)

    async def _write(self, work: Callable[[sqlite3.Connection], ResultT]) -> ResultT:
        """Work in the database; rows that can't be records are set aside."""
        return await self._do(partial(self._file.run, work, writes=True), self._set_aside)

    async def _do(
        self, work: Callable[[], ResultT], mend: Callable[[_rows.BadRowsError], None]
    ) -> ResultT:
        """Work, once others let us."""

        def work_and_mend() -> ResultT:
            while True:
                try:
                    return work()
                except _rows.BadRowsError as bad:
                    mend(bad)

        patience = Patience(self._path)
        while True:
            try:
                return await self._in_thread(work_and_mend)
            except OccupiedError:
                await patience.pause()

    def _set_aside(self, bad: _rows.BadRowsError) -> None:
        def move(connection: sqlite3.Connection) -> list[tuple[object, str]]:
            moved = [_rows.set_aside(connection, row, reason) for row, reason in bad.rows]
            return [
                (row.name, why) for (row, why), done in zip(bad.rows, moved, strict=True) if done
            ]

        for name, reason in self._file.run(move, writes=True):
            _log.warning(
                "the registry %s had a record of %r that can't be meant (%s). It is in the table "
                "set_aside now, and counts as not there.",
                self._path,
                _readable(name),
                reason,
            )

    async def _in_thread(self, call: Callable[[], ResultT]) -> ResultT:
        def complaining_call() -> ResultT:
            with complaining(self._path):
                return call()

        return await trio.to_thread.run_sync(complaining_call, limiter=_limiter_of_this_run())


def _find(
    connection: sqlite3.Connection, passed: Container[int], *, name: str
) -> tuple[Mark, DaemonRecord | None]:
    return mark_of(connection), _rows.find(connection, name, passed)


# Not at each look.
@lru_cache(maxsize=10_000)
def _warn_of_bad_row(path: str, name: object, reason: str) -> None:
    _log.warning(
        "the registry %s has a record of %r that can't be meant (%s) and can't be set aside, for "
        "nothing can be written there. It counts as not there.",
        path,
        _readable(name),
        reason,
    )


def _readable(name: object) -> object:
    return name.decode(errors="replace") if isinstance(name, bytes) else name


def _limiter_of_this_run() -> trio.CapacityLimiter:
    """Give what lets one thread work in registries; a second one would only wait for the first."""
    try:
        return _limiter.get()
    except LookupError:
        limiter = trio.CapacityLimiter(1)
        _limiter.set(limiter)
        return limiter


def _absolute(path: object) -> str:
    try:
        given = os.fspath(path)  # type: ignore[call-overload]
    except TypeError:
        raise ConfigError("path", f"must be a path, not {path!r}") from None
    if not isinstance(given, str) or not given or "\0" in given:
        raise ConfigError("path", f"must be the path of a file, not {given!r}")
    # A program may change its directory between construction and use.
    return os.path.normpath(absolute("path", given))
