"""What a registry adds: one start, found again, by whoever asks; in simulated time.

Lifecycles that share a registry stand for programs that do.
"""

import signal
from contextlib import suppress
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    AnyOf,
    Callback,
    ClaimTimeoutError,
    ConfigChangedError,
    DaemonNotRunningError,
    DaemonRecord,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    FileAppears,
    ForeignDaemonError,
    HealthCheck,
    LifecycleError,
    LogLine,
    Manual,
    MemoryRegistry,
    RegistryError,
    StopLadder,
    UnlessLine,
    attach,
)
from trio_lifecycle.abc import Answer, ReadyMode
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

HEALTH = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/", interval=0.1)
MANY_HEALTHY = evolve(HEALTH, success_threshold=11)


async def left_by_a_dead_starter(simulated: SimulatedDaemon, **facts: Any) -> DaemonRecord:
    """Have a daemon that runs, and its record, with nobody at work on either."""
    lifecycle = simulated.lifecycle(detach=True)
    await lifecycle.ensure_running()
    record = await simulated.registry.get("simulated")
    assert record is not None
    record = evolve(record, **facts)
    await simulated.registry.put(record)
    return record


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


# --- running, gone, unknown ---


@pytest.mark.fault(67, 89)
@in_simulated_time
async def test_the_record_of_a_daemon_that_has_died_is_replaced() -> None:
    simulated = SimulatedDaemon(dies_after=5.0)
    trace = Trace()
    await simulated.lifecycle(detach=True).ensure_running()
    await trio.sleep(6.0)

    await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert ["starting", "record_stale", "found", "spawned", "ready"] == trace.kinds
    assert (2, 1) == (simulated.spawned, simulated.alive)
    assert 1 == len(await simulated.registry.daemons())


@in_simulated_time
async def test_where_it_can_not_be_told_whether_it_lives_no_second_is_started() -> None:
    simulated = SimulatedDaemon()
    await simulated.lifecycle(detach=True).ensure_running()
    simulated.unseen = True

    with pytest.raises(DaemonStateUnknownError):
        await simulated.lifecycle(detach=True).ensure_running()

    assert 1 == simulated.spawned
    assert 1 == len(await simulated.registry.daemons())


@pytest.mark.fault(58)
@in_simulated_time
async def test_one_whose_starter_was_killed_is_waited_for_and_noted_as_ready() -> None:
    simulated = SimulatedDaemon()
    record = await left_by_a_dead_starter(simulated, state="starting", url=None)
    simulated.health = [(0.0, 503), (trio.current_time() + 8.0, 200)]

    daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert ("adopted", record.instance_id) == (daemon.origin, daemon.instance_id)
    assert 1 == simulated.spawned
    (now,) = await simulated.registry.daemons()
    assert ("ready", daemon.url) == (now.state, now.url)


@in_simulated_time
async def test_one_that_gave_its_word_once_and_answers_nobody_is_found_again() -> None:
    simulated = SimulatedDaemon(says=[(1.0, "up")], health=[(0.0, 503)])
    mode = AnyOf(HEALTH, LogLine("up"))
    first = await simulated.lifecycle(detach=True, ready_mode=mode).ensure_running()
    assert "running" == await first.check()
    second = await simulated.lifecycle(detach=True, ready_mode=mode).ensure_running()
    assert ("adopted", first.instance_id) == (second.origin, second.instance_id)


@in_simulated_time
async def test_one_whose_starter_was_killed_and_that_never_is_up_is_unknown() -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, state="starting")
    simulated.health = [(0.0, 503)]

    with pytest.raises(DaemonStateUnknownError, match="answered 503"):
        await simulated.lifecycle(detach=True, ready_timeout=5.0).ensure_running()

    assert (1, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_one_whose_starter_was_killed_and_that_dies_is_started_anew() -> None:
    simulated = SimulatedDaemon(dies_after=5.0)
    await left_by_a_dead_starter(simulated, state="starting")
    simulated.health = [(0.0, 503)]

    with suppress(LifecycleError):
        await simulated.lifecycle(detach=True, ready_timeout=9.0).ensure_running()

    assert 2 == simulated.spawned


@pytest.mark.parametrize(
    "mode", [HEALTH.stable_for(1.0), AllOf(HEALTH, HEALTH.stable_for(1.0)), MANY_HEALTHY], ids=repr
)
@in_simulated_time
async def test_one_whose_starter_was_killed_must_hold_as_any_other(mode: ReadyMode) -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, state="starting")
    began = trio.current_time()
    simulated.health = [(0.0, 200), (began + 0.5, 503), (began + 2.0, 200)]

    lifecycle = simulated.lifecycle(detach=True, ready_mode=mode, ready_timeout=5.0)
    daemon = await lifecycle.ensure_running()

    assert 3.0 <= trio.current_time() - began <= 3.3
    assert "adopted" == daemon.origin


@pytest.mark.parametrize(
    "mode",
    [
        *(Callback(), Manual(), AllOf(HEALTH, Callback()), UnlessLine(HEALTH, "FATAL")),
        *(
            FileAppears("/run/queen"),
            AnyOf(HEALTH, LogLine("up")),
            AnyOf(LogLine("up"), AllOf(HEALTH, LogLine("up"))),
        ),
    ],
    ids=repr,
)
@in_simulated_time
async def test_one_whose_starter_was_killed_and_that_can_not_be_asked_is_started_anew(
    mode: Any,
) -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, state="starting")

    lifecycle = simulated.lifecycle(detach=True, ready_mode=mode, ready_timeout=5.0)
    with suppress(LifecycleError):
        # A simulated daemon calls nobody back.
        await lifecycle.ensure_running()

    assert 2 == simulated.spawned
    assert simulated.incarnations[0].ended


@in_simulated_time
async def test_one_that_calls_back_only_once_is_adopted_for_being_alive() -> None:
    simulated = SimulatedDaemon()
    record = await left_by_a_dead_starter(simulated, fingerprint="", report={"model": "m"})

    daemon = await simulated.lifecycle(detach=True, ready_mode=Callback()).ensure_running()

    assert (record.url, {"model": "m"}) == (daemon.url, daemon.report)
    assert 1 == simulated.spawned


# --- stopped meanwhile ---


@pytest.mark.fault(60)
@in_simulated_time
async def test_a_daemon_that_another_program_stops_is_not_given_but_started_anew() -> None:
    simulated = SimulatedDaemon(stops_after=3.0)
    first = await simulated.lifecycle(detach=True).ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.stop)
        await trio.sleep(1.0)
        second = await simulated.lifecycle(detach=True).ensure_running()

    assert ("spawned", 1) == (second.origin, simulated.alive)
    assert first.instance_id != second.instance_id


@in_simulated_time
async def test_a_stop_that_was_left_half_way_is_finished_before_the_next_start() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)
    await left_by_a_dead_starter(simulated, state="stopping")

    daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert ("spawned", 2, 1) == (daemon.origin, simulated.spawned, simulated.alive)
    (record,) = await simulated.registry.daemons()
    assert (daemon.instance_id, "ready") == (record.instance_id, record.state)


@in_simulated_time
async def test_a_start_that_another_program_stops_is_no_success() -> None:
    simulated = SimulatedDaemon(ready_after=4.0, stops_after=9.0)
    spawner = SimulatedSpawner(simulated)

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stop() -> None:
            await trio.sleep(2.0)
            daemon = await attach("simulated", simulated.registry, spawner=spawner)
            await daemon.stop()

        with pytest.raises(DaemonNotRunningError, match="another program stopped it"):
            await simulated.lifecycle(detach=True).ensure_running()

    assert 0 == simulated.alive
    assert [] == await simulated.registry.daemons()


# --- the right to start it ---


@pytest.mark.fault(59)
@in_simulated_time
async def test_who_holds_the_claim_for_too_long_is_named_and_not_robbed() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()
    lifecycle = simulated.lifecycle(detach=True, ready_timeout=5.0, observer=trace.observe)
    began = trio.current_time()

    async with simulated.registry.claim("simulated"):
        with pytest.raises(ClaimTimeoutError, match=r"process \d+ is starting it, since"):
            await lifecycle.ensure_running()

    assert 15.0 == pytest.approx(trio.current_time() - began)
    assert ["starting", "claim_awaited", "failed"] == trace.kinds
    assert 0 == simulated.spawned


@in_simulated_time
async def test_how_long_a_claim_is_waited_for_is_configuration() -> None:
    simulated = SimulatedDaemon()
    began = trio.current_time()

    async with simulated.registry.claim("simulated"):
        with pytest.raises(ClaimTimeoutError):
            await simulated.lifecycle(detach=True, claim_timeout=2.0).ensure_running()

    assert 2.0 == pytest.approx(trio.current_time() - began)


@in_simulated_time
async def test_a_claim_that_is_freed_in_time_is_taken() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def hold() -> None:
            async with simulated.registry.claim("simulated"):
                await trio.sleep(7.0)

        await trio.testing.wait_all_tasks_blocked()
        await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert ["starting", "claim_awaited", "found", "spawned", "ready"] == trace.kinds


@in_simulated_time
async def test_a_daemon_that_is_up_is_found_although_somebody_has_the_claim() -> None:
    simulated = SimulatedDaemon()
    await simulated.lifecycle(detach=True).ensure_running()

    async with simulated.registry.claim("simulated"):
        daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert "adopted" == daemon.origin


# --- another configuration ---


async def run_with_other_arguments(simulated: SimulatedDaemon) -> DaemonRecord:
    """Have it run, started with arguments that differ."""
    return await left_by_a_dead_starter(
        simulated, fingerprint="binary_name:0 args:0 env:4f53cda1", stop_ladder=()
    )


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_kept_with_an_event_that_says_so() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()
    record = await run_with_other_arguments(simulated)

    daemon = await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert record.instance_id == daemon.instance_id
    assert ["starting", "config_changed", "adopted"] == trace.kinds
    assert ("binary_name", "args") == trace.events[1].fields
    assert "keep" == trace.events[1].action


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_an_error_if_it_is_to_be() -> None:
    simulated = SimulatedDaemon()
    record = await run_with_other_arguments(simulated)

    with pytest.raises(ConfigChangedError, match=f"{record.pid}.*binary_name, args"):
        await simulated.lifecycle(detach=True, on_change="error").ensure_running()

    assert (1, 1) == (simulated.spawned, simulated.alive)
    assert [record] == await simulated.registry.daemons()


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_started_anew_if_it_is_to_be() -> None:
    simulated = SimulatedDaemon(stops_after=2.0)
    trace = Trace()
    old = await run_with_other_arguments(simulated)

    daemon = await simulated.lifecycle(
        detach=True, on_change="restart", observer=trace.observe
    ).ensure_running()

    assert old.instance_id != daemon.instance_id
    assert (2, 1) == (simulated.spawned, simulated.alive)
    kinds = [(event.kind, event.instance_id == old.instance_id) for event in trace.events]
    assert [
        ("starting", False),
        ("config_changed", False),
        ("stopping", True),
        ("stopped", True),
        ("found", False),
        ("spawned", False),
        ("ready", False),
    ] == kinds


@in_simulated_time
async def test_a_daemon_that_became_ready_otherwise_is_not_asked_what_it_can_not_answer() -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, fingerprint="ready_mode:0")
    simulated.health = [(0.0, 404)]

    daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert "adopted" == daemon.origin


# --- who answers without a record ---


@in_simulated_time
async def test_a_stranger_at_our_address_is_not_adopted_and_nothing_is_started() -> None:
    simulated = SimulatedDaemon(is_foreign=True)
    simulated.start()

    with pytest.raises(ForeignDaemonError, match="process 1000"):
        await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    assert (1, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_a_stranger_that_is_not_even_up_is_named_at_once() -> None:
    simulated = SimulatedDaemon(is_foreign=True, health=[(0.0, 503)])
    simulated.start()
    began = trio.current_time()

    with pytest.raises(ForeignDaemonError, match="process 1000"):
        await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    assert 1.0 > trio.current_time() - began


@in_simulated_time
async def test_who_is_accepted_is_adopted_whoever_it_is() -> None:
    simulated = SimulatedDaemon(is_foreign=True, health=[(0.0, 503), (3.0, 200)])
    simulated.start()
    statuses = []

    def expect(answer: Answer) -> bool:
        statuses.append(answer.status)
        return True

    mode = HealthCheck("http://127.0.0.1:8080/", expect=expect)
    lifecycle = simulated.lifecycle(detach=True, free_port=False, ready_mode=mode)
    daemon = await lifecycle.ensure_running()

    assert ("adopted", [200]) == (daemon.origin, statuses)
    assert 1 == simulated.spawned


@in_simulated_time
async def test_one_that_was_found_at_its_address_is_asked_again_like_any_other() -> None:
    simulated = SimulatedDaemon()
    simulated.start()
    lifecycle = simulated.lifecycle(detach=True, free_port=False, ready_timeout=5.0)
    daemon = await lifecycle.ensure_running()
    simulated.health = [(0.0, 503)]

    with pytest.raises(DaemonStateUnknownError, match="answered 503"):
        await lifecycle.ensure_running()

    simulated.health = None
    assert daemon is await lifecycle.ensure_running()


@in_simulated_time
async def test_who_is_not_accepted_and_is_a_stranger_is_refused() -> None:
    simulated = SimulatedDaemon(is_foreign=True)
    simulated.start()
    mode = HealthCheck("http://127.0.0.1:8080/", expect=lambda _: False)

    with pytest.raises(ForeignDaemonError):
        await simulated.lifecycle(detach=True, free_port=False, ready_mode=mode).ensure_running()


# --- ports ---


@pytest.mark.fault(14)
@in_simulated_time
async def test_a_daemon_that_lost_its_port_is_started_again_with_another() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"bind: Address already in use\n"
    )
    trace = Trace()
    ports = []

    def note(event: Any) -> None:
        trace.observe(event)
        if event.kind == "spawned":
            ports.append(simulated.incarnations[-1].port)
            if len(ports) == 2:
                simulated.dies_after = None
                simulated.incarnations[-1].ends = simulated.incarnations[-1].goes = float("inf")

    async with simulated.lifecycle(observer=note).running() as daemon:
        assert ports[1] == daemon.port
        assert 1 == simulated.alive

    assert 2 == len(set(ports))
    assert trace.follows_the_table
    assert 0 == simulated.alive


@in_simulated_time
async def test_a_daemon_that_always_says_that_its_port_is_taken_is_given_up() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"Error: listen EADDRINUSE\n"
    )

    with pytest.raises(DiedBeforeReadyError, match="EADDRINUSE"):
        async with simulated.lifecycle().running():
            pytest.fail("it has no port")

    assert 3 == simulated.spawned


@in_simulated_time
async def test_a_daemon_with_a_port_of_its_own_is_tried_once() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"bind: Address already in use\n"
    )

    with pytest.raises(DiedBeforeReadyError):
        async with simulated.lifecycle(free_port=False).running():
            pytest.fail("it has no port")

    assert 1 == simulated.spawned


# --- attach ---


@in_simulated_time
async def test_attach_takes_up_a_daemon_with_all_powers_over_it() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)
    ladder = StopLadder((signal.SIGINT, 3.0))
    lifecycle = simulated.lifecycle(detach=True, stop_ladder=ladder)
    first = await lifecycle.ensure_running()
    began = trio.current_time()

    daemon = await attach("simulated", simulated.registry, spawner=SimulatedSpawner(simulated))

    assert (first.instance_id, first.pid) == (daemon.instance_id, daemon.pid)
    assert (first.url, "adopted") == (daemon.url, daemon.origin)
    report = await daemon.stop()
    assert "SIGKILL" == report.rung
    assert 3.0 == pytest.approx(trio.current_time() - began)
    assert [] == await simulated.registry.daemons()


@in_simulated_time
async def test_attach_says_that_there_is_no_record() -> None:
    with pytest.raises(DaemonNotRunningError, match="has no record"):
        await attach("simulated", MemoryRegistry())


@in_simulated_time
async def test_attach_says_that_the_process_is_gone_and_removes_its_record() -> None:
    simulated = SimulatedDaemon(dies_after=1.0)
    await simulated.lifecycle(detach=True).ensure_running()
    await trio.sleep(2.0)

    with pytest.raises(DaemonNotRunningError, match="is gone; its record was removed"):
        await attach("simulated", simulated.registry, spawner=SimulatedSpawner(simulated))

    assert [] == await simulated.registry.daemons()
