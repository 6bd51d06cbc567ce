"""Daemons that a record speaks of, and what has become of them; in simulated time."""

import signal
from contextlib import suppress
from typing import Any

import pytest
import trio

from tests.records import HEALTH, MANY_HEALTHY, left_by_a_dead_starter
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    AllOf,
    AnyOf,
    Callback,
    DaemonNotRunningError,
    DaemonStateUnknownError,
    FileAppears,
    LifecycleError,
    LogLine,
    Manual,
    MemoryRegistry,
    StopLadder,
    UnlessLine,
    attach,
)
from trio_lifecycle.abc import ReadyMode
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

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
