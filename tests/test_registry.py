"""Both registries keep the contract."""

import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve
from hypothesis import given

from tests.registries import path, record
from trio_lifecycle import ConfigError
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import DaemonRecord, RecordChange, Registry
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
