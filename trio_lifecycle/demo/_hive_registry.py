"""Which hives the queen knows, and when each was last heard of: in a database, so that it stays."""

import sqlite3
import time
from contextlib import closing
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
        path: The database.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # Threads take no turns by themselves, and what is noted last must stay.
        self._turn = trio.Lock()

    async def hives(self) -> list[HiveRecord]:
        """List all of them, by their machine."""
        rows = await trio.to_thread.run_sync(self._read)
        return [HiveRecord(*row) for row in rows]

    async def note(self, host: str, state: HiveState) -> None:
        """Note how it is with a hive; one that is online was heard of just now."""
        async with self._turn:
            await trio.to_thread.run_sync(self._write, host, state)

    def _read(self) -> list[tuple[str, HiveState, float]]:
        with closing(self._open()) as database:
            return database.execute("SELECT * FROM hives ORDER BY host").fetchall()

    def _write(self, host: str, state: HiveState) -> None:
        change = "state = excluded.state, heard_at = max(heard_at, excluded.heard_at)"
        text = f"INSERT INTO hives VALUES (?, ?, ?) ON CONFLICT (host) DO UPDATE SET {change}"
        heard_at = time.time() if state == "online" else 0.0
        with closing(self._open()) as database, database:
            database.execute(text, (host, state, heard_at))

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = sqlite3.connect(self._path)
        database.execute(_TABLE)
        return database
