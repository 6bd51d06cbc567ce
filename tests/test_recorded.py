"""What a registry adds: one start, found again, by whoever asks; in simulated time.

Lifecycles that share a registry stand for programs that do.
"""

import pytest
import trio

from tests.records import left_by_a_dead_starter
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import DaemonRecord, DiedBeforeReadyError, MemoryRegistry, RegistryError, attach
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

# --- one start, and found again ---


@in_simulated_time
async def test_another_program_finds_the_daemon_whatever_its_port() -> None:
    simulated = SimulatedDaemon(ready_after=1.0)
    trace = Trace()
    first = await simulated.lifecycle(detach=True).ensure_running()

    second = await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert ("spawned", "adopted") == (first.origin, second.origin)
    assert first.instance_id == second.instance_id
    assert (first.pid, first.url, first.port) == (second.pid, second.url, second.port)
    assert ["starting", "adopted"] == trace.kinds
    assert 1 == simulated.spawned


@in_simulated_time
async def test_what_the_daemon_said_when_it_became_ready_is_remembered() -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, report={"model": "small"})

    daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert {"model": "small"} == daemon.report


@pytest.mark.fault(57)
@in_simulated_time
async def test_a_hundred_tasks_get_one_spawn_and_one_handle() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)
    lifecycle = simulated.lifecycle(detach=True)
    handles = []

    async def ask() -> None:
        handles.append(await lifecycle.ensure_running())

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(ask)

    assert 100 == len(handles)
    assert 1 == len(set(map(id, handles)))
    assert 1 == simulated.spawned


@in_simulated_time
async def test_many_programs_at_once_get_one_spawn() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)
    instances = set()

    async def ask() -> None:
        daemon = await simulated.lifecycle(detach=True).ensure_running()
        instances.add(daemon.instance_id)

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(ask)

    assert 1 == len(instances)
    assert 1 == simulated.spawned


@pytest.mark.fault(57)
@in_simulated_time
async def test_the_first_who_asks_may_be_cancelled_and_the_others_get_the_daemon() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)
    lifecycle = simulated.lifecycle(detach=True)
    first = trio.CancelScope()

    async def ask_and_be_cancelled() -> None:
        with first:
            await lifecycle.ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_be_cancelled)
        await trio.testing.wait_all_tasks_blocked()
        began = trio.current_time()
        with trio.move_on_after(1.0):
            await trio.sleep(0.5)
            first.cancel()
        daemon = await lifecycle.ensure_running()

    assert first.cancelled_caught
    assert 2.0 == pytest.approx(trio.current_time() - began, abs=0.2)
    assert "spawned" == daemon.origin
    assert 1 == simulated.spawned


@in_simulated_time
async def test_when_all_who_ask_are_cancelled_nothing_is_left() -> None:
    simulated = SimulatedDaemon(ready_after=20.0, stops_after=1.0)
    lifecycle = simulated.lifecycle(detach=True)

    with trio.move_on_after(3.0):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(lifecycle.ensure_running)

    assert 1 == simulated.spawned
    assert 0 == simulated.alive
    assert [] == await simulated.registry.daemons()


@in_simulated_time
async def test_who_asks_while_a_start_is_being_given_up_gets_one_of_his_own() -> None:
    simulated = SimulatedDaemon(ready_after=3.0, stops_after=4.0)
    lifecycle = simulated.lifecycle(detach=True)
    scope = trio.CancelScope()

    async def ask_and_be_cancelled() -> None:
        with scope:
            await lifecycle.ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask_and_be_cancelled)
        await trio.sleep(1.0)
        scope.cancel()
        await trio.sleep(1.0)
        daemon = await lifecycle.ensure_running()

    assert (2, 1) == (simulated.spawned, simulated.alive)
    assert "spawned" == daemon.origin


@in_simulated_time
async def test_all_who_wait_for_a_start_that_fails_hear_of_it_each_by_an_error_of_his_own() -> None:
    simulated = SimulatedDaemon(ready_after=9.0, dies_after=1.0, writes=b"no license\n")
    lifecycle = simulated.lifecycle(detach=True)
    errors = []

    async def ask() -> None:
        try:
            await lifecycle.ensure_running()
        except DiedBeforeReadyError as error:
            errors.append(error)

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)

    assert 5 == len(errors)
    assert 5 == len(set(map(id, errors)))
    assert {"no license\n"} == {error.output_tail for error in errors}
    assert [] == await simulated.registry.daemons()


# --- what is recorded ---


@in_simulated_time
async def test_the_record_says_starting_until_the_daemon_is_ready() -> None:
    # Who watches sees the last state of each moment, so each is to last for a while.
    simulated = SimulatedDaemon(ready_after=2.0, stops_after=1.0)
    states = []

    async def watch() -> None:
        async for change in simulated.registry.watch():
            states.append((change.record.state, change.removed))  # noqa: PERF401  # as they come

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        daemon = await simulated.lifecycle(detach=True).ensure_running()
        await trio.testing.wait_all_tasks_blocked()
        await daemon.stop()
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert [
        ("starting", False),
        ("ready", False),
        ("stopping", False),
        ("stopping", True),
    ] == states


class Failing(MemoryRegistry):
    """A registry that fails from some moment on."""

    def __init__(self, *broken: str) -> None:
        super().__init__()
        self.broken = broken

    async def put(self, record: DaemonRecord) -> None:
        """Fail if it is to."""
        if "put" in self.broken:
            raise RegistryError("memory", "it is full")
        await super().put(record)

    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Fail if it is to."""
        if f"replace {new.state}" in self.broken:
            raise RegistryError("memory", "it is full")
        return await super().replace(old, new)

    async def remove(self, record: DaemonRecord) -> bool:
        """Fail if it is to."""
        if "remove" in self.broken:
            raise RegistryError("memory", "it is full")
        return await super().remove(record)


@pytest.mark.fault(54)
@in_simulated_time
async def test_nothing_of_a_daemon_runs_that_can_not_be_recorded() -> None:
    simulated = SimulatedDaemon(registry=Failing("put"))

    with pytest.raises(RegistryError):
        await simulated.lifecycle(detach=True).ensure_running()

    assert (1, 0, 0) == (simulated.spawned, simulated.opened, simulated.alive)


@pytest.mark.fault(88)
@in_simulated_time
async def test_a_daemon_that_can_not_be_noted_as_ready_is_stopped_and_the_reason_is_raised() -> (
    None
):
    simulated = SimulatedDaemon(registry=Failing("replace ready"))

    with pytest.raises(RegistryError):
        await simulated.lifecycle(detach=True).ensure_running()

    assert (1, 0) == (simulated.spawned, simulated.alive)
    assert [] == await simulated.registry.daemons()


@in_simulated_time
async def test_a_registry_that_fails_keeps_no_daemon_from_being_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulated = SimulatedDaemon(registry=Failing("replace stopping", "remove"))
    daemon = await simulated.lifecycle(detach=True).ensure_running()

    report = await daemon.stop()

    assert "SIGTERM" == report.rung
    assert 0 == simulated.alive
    assert 2 == caplog.text.count("it is full")


@in_simulated_time
async def test_a_registry_that_hangs_keeps_no_daemon_from_being_stopped() -> None:
    class Hanging(MemoryRegistry):
        async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
            if new.state == "stopping":
                await trio.sleep_forever()
            return await super().replace(old, new)

    simulated = SimulatedDaemon(registry=Hanging())
    daemon = await simulated.lifecycle(detach=True).ensure_running()

    await daemon.stop()

    assert 0 == simulated.alive


@in_simulated_time
async def test_a_record_that_was_removed_although_its_daemon_lives_is_written_again() -> None:
    simulated = SimulatedDaemon()
    lifecycle = simulated.lifecycle(detach=True)
    first = await lifecycle.ensure_running()
    (record,) = await simulated.registry.daemons()
    await simulated.registry.remove(record)

    assert first is await lifecycle.ensure_running()

    assert [record] == await simulated.registry.daemons()
    assert 1 == simulated.spawned


@in_simulated_time
async def test_an_owned_daemon_is_recorded_as_long_as_its_block_lasts() -> None:
    simulated = SimulatedDaemon()

    async with simulated.lifecycle(recorded=True).running() as daemon:
        (record,) = await simulated.registry.daemons()
        assert (daemon.instance_id, daemon.pid) == (record.instance_id, record.pid)
        async with simulated.lifecycle(recorded=True).running() as guest:
            assert ("adopted", daemon.instance_id) == (guest.origin, guest.instance_id)
        assert 1 == simulated.alive

    assert 0 == simulated.alive
    assert [] == await simulated.registry.daemons()


@in_simulated_time
async def test_an_owned_daemon_without_a_registry_is_private_to_its_owner() -> None:
    simulated = SimulatedDaemon()

    async with simulated.lifecycle().running(), simulated.lifecycle().running() as second:
        assert "spawned" == second.origin
        assert 2 == simulated.alive


@in_simulated_time
async def test_a_daemon_that_answered_without_a_record_gets_one() -> None:
    simulated = SimulatedDaemon()
    already = simulated.start()

    await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    (record,) = await simulated.registry.daemons()
    assert (already.pid, "ready", 8080) == (record.pid, record.state, record.port)
    daemon = await attach("simulated", simulated.registry, spawner=SimulatedSpawner(simulated))
    assert record.instance_id == daemon.instance_id
