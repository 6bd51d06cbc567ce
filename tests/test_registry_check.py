"""The check of registries finds who does not keep the contract, or keeps it almost."""

import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve

from tests.broken_registries import BROKEN
from tests.simulated import in_simulated_time
from trio_lifecycle import ConfigError
from trio_lifecycle.abc import ClaimHolder, DaemonRecord, RecordChange, Registry
from trio_lifecycle.registry._memory import MemoryRegistry
from trio_lifecycle.registry._same_name import check_same_name
from trio_lifecycle.testing import check_registry


class ForgetsTheOwner(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await super().put(evolve(record, owner_pid=None, owner_start_time=0))


class ForgetsWhenItLived(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await super().put(evolve(record, seen_alive=0))


class HasSmallNumbers(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await super().put(evolve(record, start_time=record.start_time % 2**31))


class RoundsTimes(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        await super().put(evolve(record, started_at=round(record.started_at, 1)))


class RemovesEqualsOnly(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        found = await self.get(record.name)
        is_equal = found is not None and found.heartbeat_at == record.heartbeat_at
        return is_equal and await super().remove(record)


class ConfirmsWhatItOnceRead(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self._read: dict[str, DaemonRecord | None] = {}

    async def get(self, name: str) -> DaemonRecord | None:
        self._read[name] = found = await super().get(name)
        return found

    def confirms(self, record: DaemonRecord) -> bool:
        found = self._read.get(record.name)
        return found is not None and found.is_about_same(record)


class ConfirmsOrRaises(MemoryRegistry):
    def confirms(self, record: DaemonRecord) -> bool:
        return self._records[record.name].is_about_same(record)


class ReplacesOtherNames(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        if old.name == new.name:
            return await super().replace(old, new)
        await self.put(new)
        return True


class ReplacesTooLate(MemoryRegistry):
    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        check_same_name(old, new)
        found = self._records.get(old.name)
        if found is None or not found.is_about_same(old):
            return False
        await trio.lowlevel.checkpoint()
        self._store(new)
        return True


class RemovesTooLate(MemoryRegistry):
    async def remove(self, record: DaemonRecord) -> bool:
        found = self._records.get(record.name)
        if found is None or found.instance_id != record.instance_id:
            return False
        await trio.lowlevel.checkpoint()
        self._records.pop(record.name, None)
        return True


class PutsByHalves(MemoryRegistry):
    async def put(self, record: DaemonRecord) -> None:
        self._records.pop(record.name, None)
        await super().put(record)


class ListsNoneThatStops(MemoryRegistry):
    async def daemons(self) -> list[DaemonRecord]:
        return [found for found in await super().daemons() if found.state != "stopping"]


class TakesOneNameForAnother(MemoryRegistry):
    def _alike(self, name: str) -> str:
        raise NotImplementedError

    def _store(self, record: DaemonRecord) -> None:
        for name in list(self._records):
            if self._alike(name) == self._alike(record.name):
                del self._records[name]
        super()._store(record)


class MindsNoCase(TakesOneNameForAnother):
    def _alike(self, name: str) -> str:
        return name.lower()


class MindsTheLooks(TakesOneNameForAnother):
    def _alike(self, name: str) -> str:
        return unicodedata.normalize("NFC", name)


class RefusesLongNames(MemoryRegistry):
    async def get(self, name: str) -> DaemonRecord | None:
        if len(name) > 120:
            raise ConfigError("name", "is too long")
        return await super().get(name)


class ClaimsWithoutCase(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        async with super().claim(name.lower()):
            yield

    async def find_claim(self, name: str) -> ClaimHolder | None:
        return await super().find_claim(name.lower())


class RobsAfterAWhile(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        await self.get(name)
        ends_at = trio.current_time() + 1
        while name in self._claimed and trio.current_time() < ends_at:  # noqa: ASYNC110
            await trio.sleep(0.01)
        self._claimed[name] = 0.0
        try:
            yield
        finally:
            self._claimed.pop(name, None)


class WaitsShielded(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        with trio.CancelScope(shield=True) as scope:
            async with super().claim(name):
                scope.shield = False
                yield


class LeavesSlowly(MemoryRegistry):
    @asynccontextmanager
    async def claim(self, name: str) -> AsyncIterator[None]:
        try:
            async with super().claim(name):
                yield
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(3)
            raise


class FindsSomebodyElse(MemoryRegistry):
    async def find_claim(self, name: str) -> ClaimHolder | None:
        holder = await super().find_claim(name)
        return None if holder is None else ClaimHolder(1, 0.0)


class Ending(AsyncIterator[RecordChange]):
    """Has ended once a wait was cancelled, as an async generator has."""

    def __init__(self, watch: AsyncIterator[RecordChange]) -> None:
        self._watch = watch
        self._has_ended = False

    async def __anext__(self) -> RecordChange:
        if self._has_ended:
            raise StopAsyncIteration
        try:
            return await anext(self._watch)
        except trio.Cancelled:
            self._has_ended = True
            raise


class WatchesUntilCancelled(MemoryRegistry):
    def watch(self) -> AsyncIterator[RecordChange]:
        return Ending(super().watch())


class Careless(AsyncIterator[RecordChange]):
    """Loses a change when it is cancelled in the moment in which one comes."""

    def __init__(self, watch: AsyncIterator[RecordChange]) -> None:
        self._watch = watch

    async def __anext__(self) -> RecordChange:
        change = await anext(self._watch)
        await trio.lowlevel.checkpoint()
        return change


class WatchesCarelessly(MemoryRegistry):
    def watch(self) -> AsyncIterator[RecordChange]:
        return Careless(super().watch())


class WatchesForOneOnly(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self._watch: AsyncIterator[RecordChange] | None = None

    def watch(self) -> AsyncIterator[RecordChange]:
        self._watch = self._watch or super().watch()
        return self._watch


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
        *BROKEN,
        (ForgetsTheOwner, r"put\(\) stored"),
        (ForgetsWhenItLived, r"put\(\) stored"),
        (HasSmallNumbers, r"put\(\) stored"),
        (RoundsTimes, r"put\(\) stored"),
        (RemovesEqualsOnly, r"remove\(\) did not find"),
        (ConfirmsWhatItOnceRead, r"confirms\(\) says yes"),
        (ConfirmsOrRaises, r"confirms\(\) raised KeyError"),
        (ReplacesOtherNames, r"replace\(\) put .* in the place of"),
        (ReplacesTooLate, r"replace\(\) of one record was done 20 times"),
        (RemovesTooLate, r"remove\(\) of one record was done 20 times"),
        (PutsByHalves, "a change that was cancelled has left None"),
        (ListsNoneThatStops, r"daemons\(\) gave"),
        (MindsNoCase, r"daemons\(\) gave"),
        (MindsTheLooks, r"daemons\(\) gave"),
        (RefusesLongNames, "a name of 200 bytes was refused"),
        (ClaimsWithoutCase, "one claim keeps another name's from others"),
        (RobsAfterAWhile, "a claim was given twice"),
        (WaitsShielded, "did not end at once"),
        (LeavesSlowly, "did not end at once"),
        (FindsSomebodyElse, r"find_claim\(\) found process 1"),
        (WatchesUntilCancelled, r"watch\(\) has ended"),
        (WatchesCarelessly, r"watch\(\) gave None"),
        (WatchesForOneOnly, r"watch\(\) gave None"),
    ],
)
@in_simulated_time
async def test_the_check_finds_a_registry_that(broken: type[Registry], finding: str) -> None:
    registry = broken()
    with pytest.raises(AssertionError, match=finding):
        await check_registry(lambda: registry)


@in_simulated_time
async def test_the_check_finds_views_that_know_nothing_of_each_other() -> None:
    with pytest.raises(AssertionError, match=r"put\(\) stored"):
        await check_registry(MemoryRegistry)
