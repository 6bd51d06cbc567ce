"""What others do with the record of a daemon while that is being started; in simulated time."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
from attrs import evolve

from tests.simulated import in_simulated_time
from trio_lifecycle import (
    DaemonLifecycle,
    DaemonNotRunningError,
    DiedBeforeReadyError,
    ForeignDaemonError,
    MemoryRegistry,
    ReadyTimeoutError,
    RegistryError,
    attach,
)
from trio_lifecycle._diary import Diary
from trio_lifecycle._entry import Entry
from trio_lifecycle._states import State
from trio_lifecycle.abc import DaemonRecord, Process, Report, SpawnRequest
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner
from trio_lifecycle.testing._spawner import SimulatedProcess


@asynccontextmanager
async def meanwhile(act: Callable[[], Awaitable[object]]) -> AsyncIterator[None]:
    """Do something while the block runs, a second after its beginning."""
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def act_later() -> None:
            await trio.sleep(1.0)
            await act()

        yield


@pytest.mark.fault(60)
@in_simulated_time
async def test_who_starts_one_that_another_stops_is_told_that_it_was_stopped() -> None:
    simulated = SimulatedDaemon(ready_after=10.0)

    async def stop() -> None:
        spawner = SimulatedSpawner(simulated)
        await (await attach("simulated", simulated.registry, spawner=spawner)).stop()

    async with meanwhile(stop):
        with pytest.raises(DaemonNotRunningError, match="another program stopped it") as caught:
            await simulated.lifecycle(detach=True).ensure_running()

    assert isinstance(caught.value.__cause__, DiedBeforeReadyError)
    assert (1, 0) == (simulated.spawned, simulated.alive)


@pytest.mark.parametrize("can_be_read", [True, False])
@in_simulated_time
async def test_one_that_dies_by_itself_was_not_stopped(can_be_read: bool) -> None:
    class Registry(MemoryRegistry):
        async def get(self, name: str) -> DaemonRecord | None:
            if simulated.spawned and not can_be_read:
                raise RegistryError("memory", "it can't be read")
            return await super().get(name)

    simulated = SimulatedDaemon(ready_after=10.0, dies_after=1.0, registry=Registry())

    with pytest.raises(DiedBeforeReadyError, match="status 1"):
        await simulated.lifecycle(detach=True).ensure_running()


@pytest.mark.fault(67)
@in_simulated_time
async def test_one_whose_record_is_lost_while_it_starts_is_recorded_when_it_is_ready() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)
    registry = simulated.registry

    async def lose() -> None:
        (record,) = await registry.daemons()
        await registry.remove(record)

    async with meanwhile(lose):
        await simulated.lifecycle(detach=True).ensure_running()

    (record,) = await registry.daemons()
    assert ("ready", 1) == (record.state, simulated.alive)


@in_simulated_time
async def test_one_that_somebody_else_has_noted_as_ready_is_ready() -> None:
    simulated = SimulatedDaemon()
    daemon = await simulated.lifecycle(detach=True).ensure_running()
    (noted,) = await simulated.registry.daemons()
    (incarnation,) = simulated.incarnations
    process = SimulatedProcess(incarnation)
    entry = Entry(simulated.registry, evolve(noted, state="starting"))

    assert await entry.note_ready(process, Report(daemon.url, daemon.port))
    assert noted == entry.record

    await simulated.registry.put(evolve(noted, state="stopping"))
    assert not await entry.note_ready(process, Report(daemon.url, daemon.port))


@in_simulated_time
async def test_one_whose_gate_does_not_open_in_time_was_not_ready_in_time() -> None:
    class Slow(SimulatedProcess):
        async def open_gate(self) -> None:
            await trio.sleep(60.0)
            await super().open_gate()

    class SlowSpawner(SimulatedSpawner):
        async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
            await super().spawn(request, nursery)
            return Slow(simulated.incarnations[-1])

    simulated = SimulatedDaemon()
    config = simulated.lifecycle(detach=True, ready_timeout=5.0).config
    lifecycle = DaemonLifecycle(config, spawner=SlowSpawner(simulated), registry=simulated.registry)

    with pytest.raises(ReadyTimeoutError, match="nothing of it had run yet") as caught:
        await lifecycle.ensure_running()

    assert 5.0 == pytest.approx(caught.value.waited_s)
    assert (1, 0, 0) == (simulated.spawned, simulated.opened, simulated.alive)


@pytest.mark.parametrize("claimed", [True, False])
@in_simulated_time
async def test_the_record_of_one_that_died_while_it_started_is_its_starters(claimed: bool) -> None:
    simulated = SimulatedDaemon()
    daemon = await simulated.lifecycle(detach=True).ensure_running()
    (record,) = await simulated.registry.daemons()
    simulated.incarnations[0].signal(signal.SIGKILL)
    await simulated.registry.put(evolve(record, state="starting"))

    diary = Diary(daemon.name, daemon.instance_id, None, State.LOOKING)
    entry = Entry(simulated.registry)
    found = await entry.look(daemon.name, SimulatedSpawner(simulated), diary, claimed=claimed)

    assert found is None
    assert claimed == (await simulated.registry.get(daemon.name) is None)


@in_simulated_time
async def test_one_that_is_recorded_by_another_name_is_a_stranger() -> None:
    simulated = SimulatedDaemon()
    await simulated.lifecycle(detach=True, free_port=False, name="alpha").ensure_running()

    with pytest.raises(ForeignDaemonError, match="recorded as alpha"):
        await simulated.lifecycle(detach=True, free_port=False, name="beta").ensure_running()

    assert ["alpha"] == [record.name for record in await simulated.registry.daemons()]
