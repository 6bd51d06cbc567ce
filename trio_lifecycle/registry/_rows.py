"""The rows of the database: records as they are stored, and what is done with them.

Those that can't be records and can't be set aside either are passed over by their number.

Every function but the first two works within a transaction of its caller.
"""

import json
import logging
import os
import sqlite3
import time
from collections.abc import Container, Iterable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from attrs import asdict

from trio_lifecycle.abc import DaemonRecord
from trio_lifecycle.registry._complaints import RefusalError
from trio_lifecycle.registry._mending import REFUSALS, Reading, read

_log: Final = logging.getLogger("trio_lifecycle")

# A record has under 1 KB, most of it its fingerprint and report; what a daemon may report by
# callback is bounded, too.
LONGEST_RECORD_BYTES: Final = 1_048_576

# So many removed names are remembered, for watches; who looks less often sees them go out of order.
REMEMBERED_REMOVALS: Final = 1000

# A reason may repeat the value that it is about.
LONGEST_REASON_CHARS: Final = 500


class Row(NamedTuple):
    """One row as it is stored; the values can be anything, for anybody may have written them."""

    change: int
    name: object
    record: object


class BadRowsError(Exception):
    """Rows that can't be records.

    Attributes:
        rows: Each with the reason.
    """

    def __init__(self, rows: Sequence[tuple[Row, str]]) -> None:
        super().__init__(rows)
        self.rows = rows


def encode(record: DaemonRecord) -> str:
    """Give a record as it is stored.

    Raises:
        RefusalError: It is too long.
    """
    fields = asdict(record, recurse=False) | {"report": dict(record.report)}
    text = json.dumps(fields)
    if len(text) > LONGEST_RECORD_BYTES:
        raise RefusalError(
            f"the record of {record.name} has {len(text)} bytes, more than {LONGEST_RECORD_BYTES}; "
            "let the daemon report less"
        )
    return text


def decode(row: Row) -> Reading:
    """Give a record back, as far as it is understood.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: It can't be one.
    """
    if not isinstance(row.record, bytes) or len(row.record) > LONGEST_RECORD_BYTES:
        raise ValueError("it is no text, or too long")
    reading = read(json.loads(row.record.decode()))
    if reading.record.name.encode() != row.name:
        raise ValueError(f"it is about {reading.record.name!r}")
    return reading


def find(
    connection: sqlite3.Connection, name: str, passed: Container[int] = ()
) -> DaemonRecord | None:
    """Give the record of this name, None when there is none.

    Raises:
        BadRowsError: It can't be one.
    """
    question = "SELECT change, name, record FROM daemons WHERE name = ? AND record IS NOT NULL"
    rows = _without(passed, connection.execute(question, (name,)))
    return next(iter(_decode_all(connection, rows)), None)


def find_all(connection: sqlite3.Connection, passed: Container[int] = ()) -> list[DaemonRecord]:
    """Give all records, ordered by name.

    Raises:
        BadRowsError: Some can't be ones.
    """
    # By bytes of UTF-8, which is the order of Python's strings, too.
    question = "SELECT change, name, record FROM daemons WHERE record IS NOT NULL ORDER BY name"
    return _decode_all(connection, _without(passed, connection.execute(question)))


def find_last_changes(
    connection: sqlite3.Connection, passed: Container[int] = ()
) -> list[tuple[object, DaemonRecord | None]]:
    """Give each name with its record, None if it was removed, in the order of their last changes.

    Raises:
        BadRowsError: Some can't be records.
    """
    question = "SELECT change, name, record FROM daemons ORDER BY change"
    rows = _without(passed, connection.execute(question))
    there = [row for row in rows if row.record is not None]
    records = iter(_decode_all(connection, there))
    return [(row.name, None if row.record is None else next(records)) for row in rows]


def put(connection: sqlite3.Connection, record: DaemonRecord) -> None:
    """Store a record in the place of any other of its name.

    Raises:
        BadRowsError: The other can't be one.
        RefusalError: It is too long.
    """
    find(connection, record.name)
    _store(connection, record.name, encode(record))


def replace(connection: sqlite3.Connection, old: DaemonRecord, new: DaemonRecord) -> bool:
    """Store ``new`` if what is stored is still of ``old``'s instance and in its state.

    Raises:
        BadRowsError: What is stored can't be a record.
        RefusalError: The new one is too long.
    """
    found = find(connection, old.name)
    if found is None or not found.is_about_same(old):
        return False
    _store(connection, new.name, encode(new))
    return True


def remove(connection: sqlite3.Connection, record: DaemonRecord) -> bool:
    """Remove the record of this name if it still is about this instance.

    Raises:
        BadRowsError: What is stored can't be a record.
    """
    found = find(connection, record.name)
    if found is None or found.instance_id != record.instance_id:
        return False
    _store(connection, record.name, None)
    connection.execute(
        "DELETE FROM daemons WHERE record IS NULL "
        "AND change <= (SELECT max(change) FROM daemons) - ?",
        (REMEMBERED_REMOVALS,),
    )
    return True


def set_aside(connection: sqlite3.Connection, row: Row, reason: str) -> bool:
    """Move a row that can't be a record out of the way; False when somebody did so before."""
    text = reason.encode(errors="backslashreplace").decode()[:LONGEST_REASON_CHARS]
    moved = connection.execute(
        "INSERT INTO set_aside SELECT name, record, ?, ? FROM daemons WHERE change = ?",
        (text, time.time(), row.change),
    )
    connection.execute("DELETE FROM daemons WHERE change = ?", (row.change,))
    return moved.rowcount > 0


def _store(connection: sqlite3.Connection, name: str, text: str | None) -> None:
    # What is replaced is removed first, so this has a new number in the order of changes.
    connection.execute("INSERT OR REPLACE INTO daemons (name, record) VALUES (?, ?)", (name, text))


def _without(passed: Container[int], found: Iterable[tuple[int, object, object]]) -> list[Row]:
    return [Row(*values) for values in found if values[0] not in passed]


def _decode_all(connection: sqlite3.Connection, rows: Sequence[Row]) -> list[DaemonRecord]:
    readings, bad = [], []
    for row in rows:
        try:
            readings.append(decode(row))
        except REFUSALS as error:
            bad.append((row, str(error) or type(error).__name__))
    if bad:
        raise BadRowsError(bad)
    for record, lost in readings:
        if lost:
            _warn_of_loss(_path_of(connection), record.name, lost)
    return [reading.record for reading in readings]


def _path_of(connection: sqlite3.Connection) -> str:
    return os.fsdecode(connection.execute("PRAGMA database_list").fetchone()[2])


# Not at each look; more names than anybody has on one machine.
@lru_cache(maxsize=10_000)
def _warn_of_loss(path: str, name: str, lost: Sequence[str]) -> None:
    _log.warning(
        "the registry %s has a record of %r of which this version does not understand %s. It is "
        "used without, as its process can be told; if a later version wrote it, update this one.",
        path,
        name,
        ", ".join(lost),
    )
