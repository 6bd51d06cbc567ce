"""Which hives the queen knows, and when each was last heard of: in a database, so that it stays."""

import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path
from typing import Final, Literal

import trio
from attrs import frozen

HiveState = Literal["online", "offline", "unknown"]

_TABLE: Final = """
CREATE TABLE IF NOT EXISTS hives (
    host TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    heard_at REAL NOT NULL
)
"""


class HiveRegistryError(Exception):
    """The database can't be used; the text says why."""


@frozen
class HiveRecord:
    """What is remembered of a hive.

    Attributes:
        host: Its machine.
        state: "online" while it answers; "unknown" when it does not, and nobody can say why;
            "offline" when it was seen to be gone.
        heard_at: When it answered last: seconds since the epoch; 0 if it never did.
    """

    host: str
    state: HiveState
    heard_at: float = 0.0


class HiveRegistry:
    """The hives of a queen. What is written is on the disk when the call returns.

    Args:
        path: The database. Where it can't be used, each call raises ``HiveRegistryError``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Threads take no turns by themselves, and what is noted last must stay.
        self._lock = trio.Lock()

    async def hives(self) -> list[HiveRecord]:
        """List all of them, by their machine."""
        async with self._turn():
            rows = await trio.to_thread.run_sync(self._read)
        return [HiveRecord(*row) for row in rows]

    async def note(self, host: str, state: HiveState) -> None:
        """Note how it is with a hive; one that is online was heard of just now."""
        change = "state = excluded.state, heard_at = max(heard_at, excluded.heard_at)"
        text = f"INSERT INTO hives VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE SET {change}"
        heard_at = time.time() if state == "online" else 0.0
        async with self._turn():
            await trio.to_thread.run_sync(self._write, text, host, state, heard_at)

    async def forget(self, host: str) -> None:
        """Remember a hive no longer."""
        async with self._turn():
            await trio.to_thread.run_sync(self._write, "DELETE FROM hives WHERE host = ?", host)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        async with self._lock:
            try:
                yield
            except (OSError, sqlite3.Error) as error:
                what = f"{self._path}, where hives are remembered, can't be used: {error}"
                raise HiveRegistryError(what) from error

    def _read(self) -> list[tuple[str, HiveState, float]]:
        with self._opened() as database:
            text = "SELECT host, state, heard_at FROM hives ORDER BY host"
            return database.execute(text).fetchall()

    def _write(self, text: str, *values: object) -> None:
        with self._opened() as database, database:
            database.execute(text, values)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with closing(sqlite3.connect(self._path)) as database:
            database.execute(_TABLE)
            yield database
