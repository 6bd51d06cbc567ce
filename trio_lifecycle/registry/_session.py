"""One connection to a database that is sound, private and ours."""

import os
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from trio_lifecycle._state_dir import make_private
from trio_lifecycle.registry import _schema
from trio_lifecycle.registry._opening import (
    Gate,
    make_current,
    open_as_it_is,
    open_current,
    places_of,
    times_of,
)
from trio_lifecycle.registry._private_files import find_private
from trio_lifecycle.registry._set_aside import COMPANIONS, set_database_aside

ResultT = TypeVar("ResultT")


class Mark(NamedTuple):
    """What differs once anything in a database has changed.

    Attributes:
        connection: Through which it was read; a new one may be to another file.
        others: A number that changes with the changes of others (PRAGMA data_version).
        own: The same for those of the connection.
    """

    connection: sqlite3.Connection
    others: int
    own: int


def mark_of(connection: sqlite3.Connection) -> Mark:
    """Take the mark of a database as it is now, or within a transaction as that sees it."""
    others = connection.execute("PRAGMA data_version").fetchone()[0]
    return Mark(connection, others, connection.total_changes)


class Session:
    """One connection, and which files it was opened on.

    Making a file, and setting a damaged one aside, is for one program at a time, while no other
    opens it. Those that find it as it should be open it beside each other, and beside whoever
    writes in it. What is done in a session needs no such turn; SQLite sees to that.

    Args:
        path: The database; made if need be.
        writes: Whether anything is to be changed. If not, a place where nothing can be written will
            do, for one transaction: nobody is told of changes there.

    Attributes:
        connection: The connection.
        lasts: Whether it serves for more than one transaction.
        pid: The process that opened it.

    Raises:
        OccupiedError: Somebody else is opening it at this moment.
        ConfigError, RefusalError: It is not ours alone, or not ours at all.
        sqlite3.Error, OSError: It can't be opened. One that was damaged was set aside.
    """

    def __init__(self, path: str, *, writes: bool = True) -> None:
        self._path = path
        make_private(Path(path).parent)
        # Before the first file is made: nothing is written where something is wrong.
        for suffix in ("", *COMPANIONS):
            find_private(path + suffix)
        try:
            opened = open_current(path) or make_current(path)
        except (OSError, sqlite3.Error) as error:
            as_it_is = None if writes else open_as_it_is(path, error)
            if as_it_is is None:
                raise
            opened = as_it_is
        self.connection, self._places, self.lasts, self._times = opened
        self.pid = os.getpid()

    def in_place(self) -> bool:
        """Whether the files at the path are still what was opened.

        What is written into a file that was removed is lost, and so is what is written past a log
        (-wal) that was removed. What was read without a lock counts only if nobody wrote meanwhile.
        """
        if self._times is not None and self._times != times_of(self._path):
            return False
        return self._places == places_of(self._path)

    def transact(self, work: Callable[[sqlite3.Connection], ResultT], begin: str) -> ResultT:
        """Do some work in a transaction: all of it, or nothing."""
        self.connection.execute(begin)
        try:
            # A later version of this package may have changed the tables meanwhile.
            _schema.check_version(_schema.version_of(self.connection), _schema.STEPS)
            result = work(self.connection)
            self.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):  # the first error tells more
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
            raise
        return result

    def set_aside(self, reason: BaseException) -> None:
        """Set the damaged file aside, unless somebody did so before; the session is over then.

        Raises:
            OccupiedError: Somebody else is opening it at this moment.
            OSError: It can't be renamed.
        """
        with Gate(self._path) as lock:
            if self.in_place():
                set_database_aside(self._path, reason)
                # Without the note, nobody takes it for one that was removed.
                lock.write(b"")
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()
