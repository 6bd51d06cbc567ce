"""The changes in a database, as a watch gives them."""

import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from typing import Final, NamedTuple

import trio

from trio_lifecycle.abc import DaemonRecord, RecordChange
from trio_lifecycle.registry._rows import find_last_changes
from trio_lifecycle.registry._session import Mark, mark_of

# SQLite tells nobody of a change. A look takes a tenth of a millisecond in a thread, and people,
# for whom a watch is, take what comes within 0.1 s for immediate.
LOOK_INTERVAL_S: Final = 0.1

LastChanges = Sequence[tuple[object, DaemonRecord | None]]


class Look(NamedTuple):
    """What one look found.

    Attributes:
        mark: The database's at that moment.
        found: Every name with its record, None if it was removed, in the order of their last
            changes; None if nothing has changed since the look before.
    """

    mark: Mark
    found: LastChanges | None


def look(connection: sqlite3.Connection, passed: Container[int] = (), *, last: Look | None) -> Look:
    """Look for changes since the last look, within a transaction of the caller."""
    mark = mark_of(connection)
    if last is not None and mark == last.mark:
        return Look(mark, None)
    return Look(mark, find_last_changes(connection, passed))


class Changes(AsyncIterator[RecordChange]):
    """Looks every now and then, and tells what is different.

    Args:
        look: Looks once, given the look before.
    """

    def __init__(self, look: Callable[[Look | None], Awaitable[Look]]) -> None:
        self._look = look
        self._last: Look | None = None
        self._shown: dict[object, DaemonRecord] = {}
        self._unseen: deque[RecordChange] = deque()

    async def __anext__(self) -> RecordChange:
        await trio.lowlevel.checkpoint()
        while not self._unseen:
            if self._last is not None:
                await trio.sleep(LOOK_INTERVAL_S)
            self._last = await self._look(self._last)
            if self._last.found is not None:
                self._unseen.extend(self._differences(self._last.found))
        return self._unseen.popleft()

    def _differences(self, found: LastChanges) -> list[RecordChange]:
        # Those that vanished without a word: set aside, or gone with their file.
        vanished = self._shown.keys() - {name for name, _ in found}
        changes = [RecordChange(self._shown.pop(name), removed=True) for name in vanished]
        for name, record in found:
            shown = self._shown.pop(name, None)
            if record is not None:
                self._shown[name] = record
                if record != shown:
                    changes.append(RecordChange(record, removed=False))
            elif shown is not None:
                changes.append(RecordChange(shown, removed=True))
        return changes
