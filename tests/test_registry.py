"""Both registries keep the contract, and the check finds who does not."""

import os
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given

from tests.registries import path, record
from tests.simulated import in_simulated_time
from trio_lifecycle import ConfigError
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import ClaimHolder, DaemonRecord, RecordChange, Registry
from trio_lifecycle.registry._memory import MemoryRegistry
from trio_lifecycle.registry._sqlite import SQLiteRegistry
from trio_lifecycle.testing import check_registry, run_simulated, schedules

__all__ = ["path"]

# --- the contract ---


async def test_memory_keeps_the_contract() -> None:
    registry = MemoryRegistry()
    await check_registry(lambda: registry)
    assert [] == await registry.daemons()


@given(seed=schedules())
def test_memory_keeps_the_contract_in_simulated_time_under_any_schedule(seed: int) -> None:
    registry = MemoryRegistry()
    run_simulated(check_registry, lambda: registry, seed=seed)


async def test_sqlite_keeps_the_contract(path: Path) -> None:
    registry = SQLiteRegistry(path)
    await check_registry(lambda: registry)
    assert [] == await registry.daemons()


async def test_many_views_of_one_file_keep_the_contract(path: Path) -> None:
    views: list[SQLiteRegistry] = []

    def view() -> SQLiteRegistry:
        views.append(SQLiteRegistry(path))
        return views[-1]

    await view().put(record("somebody's"))
    await check_registry(view)
    assert [record("somebody's")] == await view().daemons()
    for one in views:
        one.close()


def make_memory(path: Path) -> Registry:
    return MemoryRegistry()


both = pytest.mark.parametrize("make", [make_memory, SQLiteRegistry], ids=["memory", "sqlite"])


@both
def test_a_registry_serves_several_trio_runs_one_after_the_other(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)

    async def use() -> list[DaemonRecord]:
        async with trio.open_nursery() as nursery, registry.claim("queen"):
            for _ in range(2):
                nursery.start_soon(claim_and_put)
        return await registry.daemons()

    async def claim_and_put() -> None:
        async with registry.claim("queen"):
            await registry.put(record())

    for _ in range(3):
        assert [record()] == trio.run(use)


@both
async def test_the_record_of_one_daemon_is_never_replaced_by_that_of_another(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)
    await registry.put(record())
    with pytest.raises(ConfigError, match="is of 'worker', and can't stand in the place of queen"):
        await registry.replace(record(), record("worker"))
    assert [record()] == await registry.daemons()


@both
async def test_the_holder_of_a_claim_is_named(make: Callable[[Path], Registry], path: Path) -> None:
    registry = make(path)
    before = time.time()
    async with registry.claim("queen"):
        holder = await registry.find_claim("queen")
    assert holder is not None
    assert os.getpid() == holder.pid
    assert holder.since is not None
    assert before <= holder.since <= time.time()


@both
async def test_claims_are_given_in_the_order_in_which_the_tasks_of_a_program_asked(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)
    order = []

    async def enter(number: int) -> None:
        async with registry.claim("queen"):
            order.append(number)

    async with trio.open_nursery() as nursery, registry.claim("queen"):
        for number in range(5):
            nursery.start_soon(enter, number)
            await trio.testing.wait_all_tasks_blocked()
    assert list(range(5)) == order


@both
async def test_a_watch_that_was_slow_is_told_the_last_of_each_name(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)
    watch = registry.watch()
    await registry.put(record("first"))
    assert RecordChange(record("first"), removed=False) == await anext(watch)
    ready = record("second", state="ready")
    await registry.put(evolve(ready, state="starting"))
    await registry.put(ready)
    await registry.put(record("short-lived"))
    await registry.remove(record("short-lived"))
    await registry.remove(record("first"))
    assert RecordChange(ready, removed=False) == await anext(watch)
    assert RecordChange(record("first"), removed=True) == await anext(watch)


@both
async def test_a_watch_can_be_left_in_the_middle(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)
    await registry.put(record("a"))
    await registry.put(record("b"))
    seen = []
    async for change in registry.watch():
        seen.append(change.record.name)
        break
    assert ["a"] == seen
    await registry.put(record("c"))


@trio.lowlevel.enable_ki_protection
async def interrupted(registry: Registry) -> None:
    # Protected, so that it is the wait that is interrupted.
    signal.raise_signal(signal.SIGINT)
    async with registry.claim("queen"):
        pass


@both
def test_ctrl_c_in_a_wait_for_a_claim_leaves_nothing_claimed(
    make: Callable[[Path], Registry], path: Path
) -> None:
    registry = make(path)

    async def main() -> None:
        async with registry.claim("queen"):
            with pytest.raises(KeyboardInterrupt):
                await interrupted(registry)
        async with registry.claim("queen"):
            pass
        assert None is await registry.find_claim("queen")

    # Trio hands an interrupt to its main task, and that of a test is pytest-trio's.
    trio.run(main)


def test_memory_shows_the_names_that_it_knows() -> None:
    async def use() -> None:
        registry = MemoryRegistry()
        assert "MemoryRegistry()" == repr(registry)
        await registry.put(record("worker"))
        await registry.put(record("queen"))
        assert "MemoryRegistry(queen, worker)" == repr(registry)

    trio.run(use)


def test_the_error_of_a_registry_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(RegistryError("/x", "it is full")))
    assert "the registry /x can't be used: it is full." == str(error)


# --- the check finds who does not keep it ---


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


@pytest.mark.parametrize(
    ("broken", "finding"),
    [
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
