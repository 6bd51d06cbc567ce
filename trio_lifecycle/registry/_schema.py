"""The tables of the database, and the steps that lead from each version of them to the next."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final

from trio_lifecycle.registry._complaints import RefusalError

Steps = Mapping[int, Sequence[str]]

# "trlc", for file(1) and for others who meet the file: https://sqlite.org/fileformat.html, 1.3.17
APPLICATION_ID: Final = 0x74726C63

# What leads from the version before to this one. A step that was once released stays as it is: a
# file anywhere may stand before it.
STEPS: Final[Steps] = {
    1: (
        # `change` grows with each change to anything; a record that was removed is NULL, so that
        # a watch sees removals in their place. A record is JSON: a text may hold what UTF-8 can't,
        # such as the path of a log file with bytes of its own.
        """
        CREATE TABLE daemons (
            change INTEGER PRIMARY KEY AUTOINCREMENT,
            name TEXT NOT NULL UNIQUE,
            record TEXT
        )
        """,
        """
        CREATE TABLE set_aside (
            name TEXT NOT NULL,
            record TEXT NOT NULL,
            reason TEXT NOT NULL,
            set_aside_at REAL NOT NULL
        )
        """,
    ),
}


def check_kind(connection: sqlite3.Connection, steps: Steps) -> int:
    """Give the version of the tables; 0 when there are none yet.

    Raises:
        RefusalError: The file is another program's, or of a later version of this one.
        sqlite3.Error: It can't be read.
    """
    application, version, entries = (
        connection.execute(question).fetchone()[0]
        for question in (
            "PRAGMA application_id",
            "PRAGMA user_version",
            "SELECT count(*) FROM sqlite_schema",
        )
    )
    if (application, version, entries) == (0, 0, 0):
        return 0
    if application != APPLICATION_ID:
        raise RefusalError("it is a database of another program; use another path")
    check_version(version, steps)
    return int(version)


def check_version(version: int, steps: Steps) -> None:
    """Refuse tables that this program does not know.

    Raises:
        RefusalError: They are of a later version.
    """
    if version not in steps:
        raise RefusalError(
            f"its version is {version}, and this program knows none but 1 to {max(steps)}; "
            "update trio_lifecycle, or use another path"
        )


def application_of(connection: sqlite3.Connection) -> int:
    """Give the number of the program whose database it says to be."""
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


def version_of(connection: sqlite3.Connection) -> int:
    """Give the version of the tables, at once."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def bring_up_to_date(connection: sqlite3.Connection, steps: Steps) -> None:
    """Take the steps that are missing, all of them or none, within a transaction of the caller.

    Raises:
        RefusalError: The file is another program's, or of a later version of this one.
        sqlite3.Error: A step failed.
    """
    version = check_kind(connection, steps)
    for step in range(version + 1, max(steps) + 1):
        for statement in steps[step]:
            connection.execute(statement)
        # A PRAGMA takes no parameters.
        connection.execute(f"PRAGMA user_version = {step}")
    if not version:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
