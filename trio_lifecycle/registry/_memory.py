"""A registry in memory."""

import os
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakSet

import trio

from trio_lifecycle._names import check_name
from trio_lifecycle.abc import ClaimHolder, DaemonRecord, RecordChange, Registry
from trio_lifecycle.registry._same_name import check_same_name
from trio_lifecycle.registry._turns import Turns


class MemoryRegistry(Registry):
    """Remembers as long as the program lives, for the tasks of one Trio run at a time.

    Claims are given in the order in which they were asked for. It uses no clock and no thread, so
    it is at home in simulated time.
    """

    def __init__(self) -> None:
        self._records: dict[str, DaemonRecord] = {}
        self._claimed: dict[str, float] = {}
        self._turns = Turns()
        self._watches: WeakSet[_Watch] = WeakSet()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(sorted(self._records))})"

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def claim(self, name: str) -> AsyncIterator[None]:
        """Hold the exclusive right to start the daemon of this name for the length of a block."""
        check_name("name", name)
        async with self._turns.turn(name):
            self._claimed[name] = time.time()
            try:
                yield
            finally:
                del self._claimed[name]

    async def find_claim(self, name: str) -> ClaimHolder | None:
        """Say who holds the claim of this name: this program, or nobody."""
        check_name("name", name)
        await trio.lowlevel.checkpoint()
        since = self._claimed.get(name)
        return None if since is None else ClaimHolder(os.getpid(), since)

    async def get(self, name: str) -> DaemonRecord | None:
        """Give the record of this name, None when there is none."""
        check_name("name", name)
        await trio.lowlevel.checkpoint()
        return self._records.get(name)

    def confirms(self, record: DaemonRecord) -> bool:
        """Look; there is nothing to wait for."""
        found = self._records.get(record.name)
        return found is not None and found.is_about_same(record)

    async def put(self, record: DaemonRecord) -> None:
        """Store a record in the place of any other of its name."""
        await trio.lowlevel.checkpoint()
        self._store(record)

    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Store ``new`` if what is stored is still of ``old``'s instance and in its state."""
        check_same_name(old, new)
        await trio.lowlevel.checkpoint()
        found = self._records.get(old.name)
        if found is None or not found.is_about_same(old):
            return False
        self._store(new)
        return True

    async def remove(self, record: DaemonRecord) -> bool:
        """Remove the record of this name if it still is about this instance."""
        await trio.lowlevel.checkpoint()
        found = self._records.get(record.name)
        if found is None or found.instance_id != record.instance_id:
            return False
        del self._records[record.name]
        self._tell(RecordChange(found, removed=True))
        return True

    async def daemons(self) -> list[DaemonRecord]:
        """Give all records, ordered by name."""
        await trio.lowlevel.checkpoint()
        return [self._records[name] for name in sorted(self._records)]

    def watch(self) -> AsyncIterator[RecordChange]:
        """Give every record that is there, and then each change, without an end."""
        watch = _Watch([self._records[name] for name in sorted(self._records)])
        self._watches.add(watch)
        return watch

    def _store(self, record: DaemonRecord) -> None:
        self._records[record.name] = record
        self._tell(RecordChange(record, removed=False))

    def _tell(self, change: RecordChange) -> None:
        for watch in self._watches:
            watch.hear(change)


class _Watch(AsyncIterator[RecordChange]):
    """One look at a registry: what its user has not seen yet, the last of each name."""

    def __init__(self, present: list[DaemonRecord]) -> None:
        self._unseen = deque(RecordChange(record, removed=False) for record in present)
        self._shown: set[str] = set()
        self._news = trio.Event()

    def hear(self, change: RecordChange) -> None:
        """Take a change in the place of an earlier one to the same name."""
        earlier = [news for news in self._unseen if news.record.name == change.record.name]
        for news in earlier:
            self._unseen.remove(news)
        # Who never saw it come need not see it go.
        if not change.removed or change.record.name in self._shown:
            self._unseen.append(change)
            self._news.set()

    async def __anext__(self) -> RecordChange:
        await trio.lowlevel.checkpoint()
        while not self._unseen:
            self._news = trio.Event()
            await self._news.wait()
        change = self._unseen.popleft()
        (self._shown.discard if change.removed else self._shown.add)(change.record.name)
        return change
