"""Registries that break the contract, each in one point that is easy to see."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import evolve

from trio_lifecycle import ConfigError
from trio_lifecycle.abc import ClaimHolder, DaemonRecord, RecordChange, Registry
from trio_lifecycle.registry._memory import MemoryRegistry


class PutsNothing(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await trio.lowlevel.checkpoint()


class KeepsTheFirst(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        if await self.get(record.name) is None:
            await super().put(record)


class LosesTheReport(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await super().put(evolve(record, report={}))


class RemovesAnybodys(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        found = await self.get(record.name)
        return found is not None and await super().remove(found)


class RemovesItsStateOnly(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        found = await self.get(record.name)
        return found is not None and found.state == record.state and await super().remove(record)


class SaysItRemoved(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        await super().remove(record)
        return True


class RemovesNothing(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        found = await self.get(record.name)
        return found is not None and found.instance_id == record.instance_id


class ReplacesAnything(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        await self.put(new)
        return True


class ReplacesAnybodys(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        found = await self.get(old.name)
        return found is not None and await super().replace(found, new)


class ReplacesAnyState(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        found = await self.get(old.name)
        return found is not None and await super().replace(evolve(old, state=found.state), new)


class ReplacesEqualsOnly(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        return await self.get(old.name) == old and await super().replace(old, new)


class ReplacesByTheOld(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        return await super().replace(old, old)


class ReplacesWhatItRefuses(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        done = await super().replace(old, new)
        found = await self.get(old.name)
        if found is not None and found.instance_id == old.instance_id:
            await self.put(new)
        return done


class ConfirmsAnything(MemoryRegistry):
    def confirms(self, record: DaemonRecord) -> bool:
        return True


class ListsAsItPleases(MemoryRegistry):
    async def daemons(self) -> list[DaemonRecord]:
        return (await super().daemons())[::-1]


class TakesAnyName(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        async with super().claim(name.replace("/", "_") or "nobody"):
            yield


class ClaimsNothing(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        await self.get(name)
        yield


class ClaimsAllAtOnce(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        await self.get(name)
        async with super().claim("all"):
            yield


class KeepsTheClaim(MemoryRegistry):
    """Forgets that somebody left by an exception."""

    def __init__(self) -> None:
        super().__init__()
        self._held: set[str] = set()

    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        async with super().claim(name):
            if name in self._held:
                await trio.sleep_forever()
            self._held.add(name)
            yield
            self._held.remove(name)


class KeepsTheClaimOfWhoIsCancelled(KeepsTheClaim):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        try:
            async with super().claim(name):
                yield
        except trio.Cancelled:
            raise
        except BaseException:
            self._held.discard(name)
            raise


class EatsExceptions(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        try:
            async with super().claim(name):
                yield
        except ConfigError:
            raise
        except Exception:
            return


class WaitersStay(MemoryRegistry):
    """Counts who waits, and forgets to count who leaves."""

    def __init__(self) -> None:
        super().__init__()
        self._left = False

    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        if self._left:
            await trio.sleep_forever()
        try:
            async with super().claim(name):
                yield
        except trio.Cancelled:
            self._left = True
            raise


class FindsNobody(MemoryRegistry):
    async def find_claim(self, name: str) -> ClaimHolder | None:
        await super().find_claim(name)
        return None


class FindsAlways(MemoryRegistry):
    async def find_claim(self, name: str) -> ClaimHolder | None:
        await super().find_claim(name)
        return ClaimHolder(None, None)


class WatchesChangesOnly(MemoryRegistry):
    def watch(self) -> AsyncIterator[RecordChange]:
        present, self._records = self._records, {}
        watch = super().watch()
        self._records = present
        return watch


class WatchesNoRemoval(MemoryRegistry):
    def _tell(self, change: RecordChange) -> None:
        if not change.removed:
            super()._tell(change)


class WatchesNoReplacing(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        watches = list(self._watches)
        self._watches.clear()
        try:
            return await super().replace(old, new)
        finally:
            for watch in watches:
                self._watches.add(watch)


class WatchesNothing(MemoryRegistry):
    def _tell(self, change: RecordChange) -> None:
        pass


# Each, and what the check says of it.
BROKEN: list[tuple[type[Registry], str]] = [
    (PutsNothing, r"put\(\) stored"),
    (KeepsTheFirst, r"put\(\) stored"),
    (LosesTheReport, r"put\(\) stored"),
    (RemovesAnybodys, "says it removed another instance's"),
    (RemovesItsStateOnly, r"remove\(\) minds the state"),
    (SaysItRemoved, r"remove\(\) removed what was never put"),
    (RemovesNothing, r"remove\(\) has left it"),
    (ReplacesAnything, r"replace\(\) replaced nothing"),
    (ReplacesAnybodys, "replaced another instance's"),
    (ReplacesAnyState, r"replace\(\) forgets the state"),
    (ReplacesEqualsOnly, "minds the heartbeat"),
    (ReplacesByTheOld, "forgets the state"),
    (ReplacesWhatItRefuses, "that was refused has left"),
    (ConfirmsAnything, r"confirms\(\) says yes"),
    (ListsAsItPleases, r"daemons\(\) gave"),
    (TakesAnyName, "was taken for a name"),
    (ClaimsNothing, "20 tasks had the claim at once"),
    (ClaimsAllAtOnce, "one claim keeps another name's from others"),
    (KeepsTheClaim, "not free after an exception"),
    (KeepsTheClaimOfWhoIsCancelled, "not free after a cancellation"),
    (EatsExceptions, "ate the exception"),
    (WaitersStay, "waiters that were cancelled keep the claim"),
    (FindsNobody, "did not find the holder"),
    (FindsAlways, "found nobody's claim"),
    (WatchesChangesOnly, r"watch\(\) gave None"),
    (WatchesNoRemoval, r"watch\(\) gave None"),
    (WatchesNoReplacing, r"watch\(\) gave None"),
    (WatchesNothing, r"watch\(\) gave None"),
]
