"""The database file of a registry: opened when it is needed, and again when it was replaced."""

import os
import sqlite3
import threading
from collections.abc import Callable
from typing import Final, TypeVar
from weakref import WeakSet, finalize

from trio_lifecycle.registry._complaints import (
    OccupiedError,
    RefusalError,
    is_busy,
    is_damage,
    primary_code,
)
from trio_lifecycle.registry._session import Mark, Session, mark_of

ResultT = TypeVar("ResultT")

# A file that is damaged again and again was not damaged once: its disk is bad.
_TRIES: Final = 3


class _Slot:
    """Where the session of a file is kept: apart from it, so that it never is in a cycle with it.

    When a file that is part of one goes, Python finds the connection unreachable as well, and may
    see it before whatever would close it. From 3.13 on it complains of one that is open then.
    """

    def __init__(self) -> None:
        self.session: Session | None = None

    def close(self) -> None:
        """Close what is open."""
        with _one_at_a_time:
            session, self.session = self.session, None
            if session is not None:
                session.close()


class DatabaseFile:
    """A database by its path; any thread may use it.

    Nothing is touched before the first use.
    """

    def __init__(self, path: str) -> None:
        self._slot = _Slot()
        self._path = path
        finalize(self, self._slot.close).atexit = False
        with _one_at_a_time:
            _files.add(self)

    def run(self, work: Callable[[sqlite3.Connection], ResultT], *, writes: bool) -> ResultT:
        """Do some work in a transaction: all of it, or nothing.

        Args:
            work: What to do; it may be begun more than once.
            writes: Whether it changes anything.

        Raises:
            OccupiedError: Another connection is at work; soon the same may succeed.
            ConfigError, RefusalError, sqlite3.Error, OSError: The file can't be used.
        """
        with _one_at_a_time:
            for _ in range(_TRIES):
                try:
                    return self._try(work, writes=writes)
                except (sqlite3.Error, UnicodeDecodeError) as error:
                    if not self._set_aside(error):
                        raise
            raise RefusalError(
                f"it was damaged {_TRIES} times in a row; see whether its disk is sound"
            )

    def find_mark(self) -> Mark | None:
        """Take the mark of the database, if that is to be had at once; takes some microseconds."""
        if not _one_at_a_time.acquire(blocking=False):
            return None
        try:
            session = self._slot.session
            if session is None or session.pid != os.getpid() or not session.in_place():
                return None
            return mark_of(session.connection)
        except (sqlite3.Error, OSError, RefusalError):
            # Whoever asks in earnest hears of it.
            return None
        finally:
            _one_at_a_time.release()

    def close(self) -> None:
        """Let go of the file; the next use opens it again. Calling it again is fine."""
        self._slot.close()

    def _try(self, work: Callable[[sqlite3.Connection], ResultT], *, writes: bool) -> ResultT:
        if self._slot.session is not None and not self._slot.session.in_place():
            self.close()
        if self._slot.session is None:
            self._slot.session = Session(self._path, writes=writes)
        if self._slot.session.pid != os.getpid():
            raise RefusalError(
                "this program was forked while it had it open, by something other than Python; "
                "close() it before that"
            )
        session = self._slot.session
        try:
            result = session.transact(work, "BEGIN IMMEDIATE" if writes else "BEGIN")
            if (writes or not session.lasts) and not session.in_place():
                # Removed under our hands, and what was written with it, or changed while it was
                # read: once more, as it is now.
                raise OccupiedError
        finally:
            if not session.lasts:
                self.close()
        return result

    def _set_aside(self, error: sqlite3.Error | UnicodeDecodeError) -> bool:
        """Say whether a damaged file was set aside, so that the next try begins a new one.

        Raises:
            OccupiedError: Another connection is at work; soon the same may succeed.
        """
        if is_busy(error):
            raise OccupiedError from error
        if self._slot.session is None:
            # Had it been damaged, it would have been set aside while it was opened.
            return is_damage(error)
        # What we ask is right, so it is the tables that are not what their version promises.
        if is_damage(error) or primary_code(error) == sqlite3.SQLITE_ERROR:
            self._slot.session.set_aside(error)
            self._slot.session = None
            return True
        # Whatever state the connection is in, a new one is in none.
        self.close()
        return False


_files: Final[WeakSet[DatabaseFile]] = WeakSet()

# SQLite's locks belong to the process (fcntl_locking(2)). A fork has a copy of what SQLite thinks
# it has locked, but no lock, and may not even close a connection; so there is none while a fork
# happens: https://sqlite.org/howtocorrupt.html, 2.6.
_one_at_a_time: Final = threading.RLock()


def _close_all() -> None:
    _one_at_a_time.acquire()
    for file in list(_files):
        file.close()


os.register_at_fork(
    before=_close_all,
    after_in_parent=_one_at_a_time.release,
    after_in_child=_one_at_a_time.release,
)
