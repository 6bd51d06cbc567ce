"""Opening a database: as it is, made, brought up to date, or set aside because it is damaged."""

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from trio_lifecycle.registry import _schema
from trio_lifecycle.registry._complaints import (
    OccupiedError,
    RefusalError,
    is_busy,
    is_damage,
    may_lack_room,
    primary_code,
)
from trio_lifecycle.registry._lock_file import LockFile
from trio_lifecycle.registry._private_files import (
    PRIVATE_MODE,
    create_private,
    find_private,
    tighten,
)
from trio_lifecycle.registry._set_aside import COMPANIONS, set_database_aside, tell_of_removal

# Beside the database, and never removed. What stands in it says that there was a registry once.
_LOCK: Final = ".lock"
_NOTE: Final = b"a registry of trio_lifecycle\n"

# Without -journal, which a database in WAL mode has not.
_LASTING: Final = ("", "-wal", "-shm")

Places = list[tuple[int, int] | None]


class Opened(NamedTuple):
    """A database that was opened.

    Attributes:
        connection: The connection.
        places: Which files it was opened on. They are looked at before anybody can exchange them.
        lasts: Whether it serves for more than one transaction.
        times: When they were last written to, where it is opened without SQLite's locks.
    """

    connection: sqlite3.Connection
    places: Places
    lasts: bool = True
    times: Places | None = None


class Gate:
    """The right to make and to set aside the database of a path; shared, to open it."""

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self._lock = LockFile(os.fsencode(path + _LOCK), shared=shared)

    def __enter__(self) -> LockFile:
        try:
            if not self._lock.try_lock():
                raise OccupiedError
        except BaseException:
            self._lock.release()
            raise
        return self._lock

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _has_note(path: str) -> bool:
    found = find_private(path + _LOCK)
    return found is not None and found.st_size > 0


def places_of(path: str) -> Places:
    """Say which files stand at a path, so that it can be told when others take their place.

    Raises:
        RefusalError: Somebody else could have prepared one.
    """
    found = (find_private(path + suffix) for suffix in _LASTING)
    return [None if stat is None else (stat.st_dev, stat.st_ino) for stat in found]


def times_of(path: str) -> Places:
    """Say when the files that hold records were last written to, and how long they are."""
    found = (find_private(path + suffix) for suffix in ("", "-wal"))
    return [None if stat is None else (stat.st_mtime_ns, stat.st_size) for stat in found]


def open_current(path: str) -> Opened | None:
    """Open a database to which nothing must be done first, None for any other.

    It takes no lock that a writer has: one that was stopped in the middle keeps no reader away.
    """
    with Gate(path, shared=True):
        if not _has_note(path):
            return None
        _tighten_companions(path)
        if not _is_current(path):
            return None
        _tighten_all(path)
        connection = _connect(path)
        try:
            # The first look makes what stands beside the file, so that its place is known.
            _schema.check_version(_schema.version_of(connection), _schema.STEPS)
            _set_pace(connection)
            # Who can't write the file now may be given the right, and SQLite would not notice.
            lasts = os.access(path, os.W_OK, effective_ids=True)
            return Opened(connection, places_of(path), lasts)
        except BaseException:
            connection.close()
            raise


def _is_current(path: str) -> bool:
    found = find_private(path)
    if found is None or not found.st_size:
        return False
    with closing(_connect_to_read(path)) as connection:
        try:
            version = _schema.check_kind(connection, _schema.STEPS)
            mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
        except (RefusalError, sqlite3.Error, UnicodeDecodeError) as error:
            if is_busy(error):
                raise
            # Whoever has it for himself says what is wrong, and mends it.
            return False
    return version == max(_schema.STEPS) and mode == b"wal"


def open_as_it_is(path: str, error: Exception) -> Opened | None:
    """Open a current database where nothing can be written, None if even so it can't be read.

    Args:
        path: The database.
        error: What kept it from being opened as ever.
    """
    if not may_lack_room(error) and _is_writable(path):
        return None
    times = times_of(path)
    log = find_private(path + "-wal")
    # Without a log all is in the file, and SQLite needs nothing beside it that it can't make here:
    # https://sqlite.org/wal.html, "Read-Only Databases". It takes no locks then; who knows what
    # others do meanwhile?
    is_alone = not log or not log.st_size
    connection = _connect_to_read(path, "immutable=1" if is_alone else "mode=ro")
    try:
        if _schema.check_kind(connection, _schema.STEPS) == max(_schema.STEPS):
            times_if_alone = times if is_alone else None
            return Opened(connection, places_of(path), lasts=False, times=times_if_alone)
    except (sqlite3.Error, UnicodeDecodeError):
        # What kept it from being opened as ever tells more.
        pass
    except BaseException:
        connection.close()
        raise
    connection.close()
    return None


def _is_writable(path: str) -> bool:
    return os.access(Path(path).parent, os.W_OK, effective_ids=True)


def make_current(path: str) -> Opened:
    """Open a database that is made or brought up to date first, while nobody else opens it.

    Raises:
        OccupiedError: Somebody else is opening it at this moment.
        RefusalError: It is not ours alone, or not ours at all.
        sqlite3.Error, OSError: It can't be opened. One that was damaged was set aside.
    """
    with Gate(path) as lock:
        is_ours = _has_note(path)
        if is_ours:
            _tighten_companions(path)
        try:
            connection = _make(path, is_ours=is_ours)
        except BaseException:
            if not os.path.lexists(path):
                # It was told of already.
                lock.write(b"")
            raise
        lock.write(_NOTE)
        return Opened(connection, places_of(path))


def _make(path: str, *, is_ours: bool) -> sqlite3.Connection:
    is_there = _is_worth_opening(path, is_ours=is_ours)
    if not is_there:
        create_private(path)
    connection = _connect(path)
    try:
        _set_up(connection)
        # Only now it is known to be no file of the user's that a mistyped path led to.
        _tighten_all(path)
    except BaseException as error:
        if is_damage(error):
            set_database_aside(path, error)
        connection.close()
        if not is_there:
            _unmake(path)
        raise
    return connection


def _is_worth_opening(path: str, *, is_ours: bool) -> bool:
    """Say whether there is a database; what others have left of one is set aside or told of."""
    found = find_private(path)
    if found is None:
        # SQLite would remove the log of a database that is not there, with all that is in it.
        if any(os.path.lexists(path + suffix) for suffix in COMPANIONS):
            set_database_aside(path, ValueError("the file was removed, and not what is beside it"))
        elif is_ours:
            tell_of_removal(path)
        return False
    if not found.st_size:
        lost = "it is empty"
    elif _look_first(path, is_ours=is_ours) == 0:
        lost = "its tables are gone, as with a log (-wal) that was removed"
    else:
        return True
    if is_ours:
        set_database_aside(path, ValueError(lost))
    return not is_ours


def _tighten_all(path: str) -> None:
    tighten(path)
    _tighten_companions(path)


def _tighten_companions(path: str) -> None:
    for suffix in COMPANIONS:
        # SQLite makes them with the rights of the database, and they keep these when that, closed
        # to its owner for a while, is opened to him again.
        tighten(path + suffix, at_least=PRIVATE_MODE)


def _unmake(path: str) -> None:
    """Remove what could not be set up: an empty file would look like one that lost everything."""
    for suffix in (*COMPANIONS, ""):
        with suppress(OSError):
            os.unlink(path + suffix)  # noqa: PTH108 - texts, as SQLite has them


def _look_first(path: str, *, is_ours: bool) -> int | None:
    """Refuse a database that is not ours, or of a later version, without leaving a trace in it.

    Returns:
        The version of its tables; None where that can't be told yet.
    """
    # A connection that may write would carry the file's log into it when it is closed.
    with closing(_connect_to_read(path)) as connection:
        try:
            return _schema.check_kind(connection, _schema.STEPS)
        except (sqlite3.Error, UnicodeDecodeError) as error:
            # A transaction that was cut off must be undone first, which takes the right to write.
            if primary_code(error) == sqlite3.SQLITE_READONLY:
                return None
            if is_damage(error) and not is_ours and not _bears_our_number(connection):
                # A path that was mistyped may lead to anything of the user's.
                raise RefusalError("it is a file, but no registry; use another path") from error
            if is_damage(error):
                set_database_aside(path, error)
            raise


def _bears_our_number(connection: sqlite3.Connection) -> bool:
    try:
        return _schema.application_of(connection) == _schema.APPLICATION_ID
    except (sqlite3.Error, UnicodeDecodeError):
        return False


def _connect_to_read(path: str, how: str = "mode=ro") -> sqlite3.Connection:
    return _connect(f"{Path(path).as_uri()}?{how}", uri=True)


def _connect(path: str, *, uri: bool = False) -> sqlite3.Connection:
    # No timeout: a wait in a thread can't be cancelled. One thread after the other uses it.
    connection = sqlite3.connect(
        path, timeout=0, isolation_level=None, check_same_thread=False, uri=uri
    )
    # Anybody may have put what is no UTF-8 into a text.
    connection.text_factory = bytes
    return connection


def _set_up(connection: sqlite3.Connection) -> None:
    mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != b"wal":
        raise RefusalError(
            "its file system lacks the shared memory that SQLite's write-ahead log needs; "
            "keep it on a disk of this machine"
        )
    _set_pace(connection)
    connection.execute("BEGIN IMMEDIATE")
    _schema.bring_up_to_date(connection, _schema.STEPS)
    connection.execute("COMMIT")
    # Out of the log, so that what is lost with a log are records, and never the tables as well.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _set_pace(connection: sqlite3.Connection) -> None:
    # What a program has written outlives it; only a loss of power may take the last of it.
    connection.execute("PRAGMA synchronous = NORMAL")
