"""What a daemon nursery promises when a daemon in it is stopped, or dies."""

import signal
from contextlib import suppress
from math import inf

import pytest
import trio

from tests.households import named, names
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    DaemonNotRunningError,
    DaemonStateUnknownError,
    Event,
    StopLadder,
    StopReport,
)
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery
from trio_lifecycle.testing import SimulatedDaemon, run_simulated

# --- stop ---


@in_simulated_time
async def test_stop_gives_a_report_and_none_for_one_that_is_not_there() -> None:
    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("queen", SimulatedDaemon(stops_after=0.5)))
        assert StopReport("SIGTERM", -15, 0.5) == await daemons.stop("queen")
        assert None is await daemons.stop("queen")
        assert None is await daemons.stop("nobody")
        assert 0 == len(daemons)


@in_simulated_time
async def test_several_who_stop_it_share_one_stop() -> None:
    trace = Trace()
    reports = []

    async def stop(daemons: DaemonNursery) -> None:
        reports.append(await daemons.stop("queen"))

    simulated = SimulatedDaemon(stops_after=2.0)
    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("queen", simulated, trace.observe))
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(stop, daemons)

    assert {StopReport("SIGTERM", -15, 2.0)} == set(reports)
    assert 1 == trace.kinds.count("stopping")


@in_simulated_time
async def test_a_stop_gives_up_a_start_and_says_so_to_who_waits_for_it() -> None:
    simulated = SimulatedDaemon(ready_after=inf, stops_after=1.0)

    async def ask(daemons: DaemonNursery) -> None:
        with pytest.raises(DaemonNotRunningError, match="stopped while it was being started"):
            await daemons.ensure_running(named("queen", simulated))

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        nursery.start_soon(ask, daemons)
        await trio.sleep(5.0)
        report = await daemons.stop("queen")
        assert report == StopReport("SIGTERM", -15, 1.0)
        assert 0 == simulated.alive


@in_simulated_time
async def test_a_stop_before_the_spawn_gives_nothing() -> None:
    simulated = SimulatedDaemon(spawn_after=9.0)

    async def ask(daemons: DaemonNursery) -> None:
        with pytest.raises(DaemonNotRunningError):
            await daemons.ensure_running(named("queen", simulated))

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        nursery.start_soon(ask, daemons)
        await trio.sleep(5.0)
        assert None is await daemons.stop("queen")
        assert 0 == simulated.spawned


@pytest.mark.fault(60)
@in_simulated_time
async def test_asked_while_it_is_being_stopped_it_is_started_anew_when_it_is_gone() -> None:
    simulated = SimulatedDaemon(stops_after=3.0)
    lifecycle = named("queen", simulated)

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        first = await daemons.ensure_running(lifecycle)
        nursery.start_soon(daemons.stop, "queen")
        await trio.sleep(1.0)
        assert "queen" not in daemons
        second = await daemons.ensure_running(lifecycle)
        assert first.instance_id != second.instance_id
        assert 1 == simulated.alive
        assert simulated.incarnations[0].goes <= simulated.incarnations[1].born


@in_simulated_time
async def test_a_stop_through_the_handle_counts_as_well() -> None:
    simulated = SimulatedDaemon(stops_after=3.0)
    lifecycle = named("queen", simulated)

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        first = await daemons.ensure_running(lifecycle)
        nursery.start_soon(first.stop)
        await trio.sleep(1.0)
        assert first is not await daemons.ensure_running(lifecycle)


@in_simulated_time
async def test_one_that_was_only_asked_to_go_and_stays_is_in_doubt_not_started_twice() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)
    lifecycle = named("queen", simulated)

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(lifecycle)
        await first.terminate()
        with pytest.raises(DaemonStateUnknownError, match="asked to go, and is still there"):
            await daemons.ensure_running(lifecycle)
        assert 1 == simulated.spawned
        await daemons.stop("queen")
        assert first is not await daemons.ensure_running(lifecycle)


@in_simulated_time
async def test_a_stop_that_is_cancelled_is_finished_all_the_same() -> None:
    simulated = SimulatedDaemon(stops_after=5.0)

    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("queen", simulated))
        with trio.move_on_after(1.0):
            await daemons.stop("queen")
        assert 0 == simulated.alive


# --- death ---


@in_simulated_time
async def test_a_death_is_an_event_and_who_asks_next_gets_a_new_one() -> None:
    simulated = SimulatedDaemon(dies_after=3.0, lingers=inf)
    trace = Trace()
    lifecycle = named("queen", simulated, trace.observe, stop_ladder=StopLadder((15, 2.0)))

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(lifecycle)
        await daemons.ensure_running(named("worker"))
        await trio.sleep(10.0)
        assert ["worker"] == names(daemons)
        assert 1 == await first.wait_exit()
        assert (await first.stop()).status == 1
        assert ["died", "stopping", "stopping", "stopped"] == trace.kinds[-4:]
        second = await daemons.ensure_running(lifecycle)
        assert first.instance_id != second.instance_id
        assert ["worker", "queen"] == names(daemons)

    assert trace.follows_the_table
    assert 0 == simulated.alive


@pytest.mark.fault(60)
@in_simulated_time
async def test_one_that_died_a_moment_ago_is_never_given() -> None:
    simulated = SimulatedDaemon()
    lifecycle = named("queen", simulated)

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(lifecycle)
        simulated.incarnations[0].signal(9)
        assert [] == list(daemons)
        second = await daemons.ensure_running(lifecycle)
        assert first.pid != second.pid


@in_simulated_time
async def test_the_report_of_one_that_died_is_given_while_its_tree_is_stopped() -> None:
    simulated = SimulatedDaemon(dies_after=3.0, lingers=inf)

    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("queen", simulated, stop_ladder=StopLadder((15, 2.0))))
        await trio.sleep(4.0)
        assert StopReport("SIGKILL", 1, 2.0) == await daemons.stop("queen")
        assert None is await daemons.stop("queen")


# --- at one instant ---


@pytest.mark.parametrize("seed", range(16))
def test_whoever_waits_alone_and_is_cancelled_at_the_instant_of_readiness_hangs_nothing(
    seed: int,
) -> None:
    simulated, scope = SimulatedDaemon(ready_after=1.0), trio.CancelScope()

    def observe(event: Event) -> None:
        if event.kind == "ready":
            scope.cancel()

    async def use() -> None:
        with trio.fail_after(100.0):
            async with open_daemon_nursery() as daemons:
                with scope:
                    await daemons.ensure_running(named("queen", simulated, observe))
                assert simulated.alive == len(daemons)
        assert 0 == simulated.alive

    run_simulated(use, seed=seed)


@pytest.mark.fault(60)
@pytest.mark.parametrize("seed", range(16))
def test_a_stop_at_the_instant_of_readiness_is_followed_by_no_second_start(seed: int) -> None:
    simulated, is_ready = SimulatedDaemon(ready_after=1.0, stops_after=1.0), trio.Event()

    def observe(event: Event) -> None:
        if event.kind == "ready":
            is_ready.set()

    async def stop(daemons: DaemonNursery) -> None:
        await is_ready.wait()
        await daemons.stop("queen")
        assert 0 == simulated.alive

    async def use() -> None:
        async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
            nursery.start_soon(stop, daemons)
            with suppress(DaemonNotRunningError):
                daemon = await daemons.ensure_running(named("queen", simulated, observe))
                assert "ended" not in repr(daemon)
        assert 1 == simulated.spawned

    run_simulated(use, seed=seed)


@pytest.mark.fault(60)
@pytest.mark.parametrize("seed", range(16))
def test_one_that_dies_at_the_instant_of_readiness_is_not_given(seed: int) -> None:
    simulated, is_ready = SimulatedDaemon(ready_after=1.0), trio.Event()

    def observe(event: Event) -> None:
        if event.kind == "ready":
            is_ready.set()

    async def kill() -> None:
        await is_ready.wait()
        await trio.lowlevel.checkpoint()
        simulated.incarnations[0].signal(9)

    async def use() -> None:
        async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            daemon = await daemons.ensure_running(named("queen", simulated, observe))
            is_alive = [it.pid for it in simulated.incarnations if not it.ended]
            assert [daemon.pid] == is_alive

    run_simulated(use, seed=seed)


@in_simulated_time
async def test_who_wants_it_anew_waits_for_the_ladder_that_is_climbed_not_for_its_own() -> None:
    simulated = SimulatedDaemon(stops_after=60.0)
    short = StopLadder((signal.SIGTERM, 1.0))
    lifecycle = named("queen", simulated, stop_ladder=short)
    async with open_daemon_nursery() as daemons:
        daemon = await daemons.ensure_running(lifecycle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(daemon.stop, StopLadder((signal.SIGTERM, 100.0)))
            await trio.sleep(1.0)
            successor = await daemons.ensure_running(lifecycle)
        assert ("spawned", 1) == (successor.origin, simulated.alive)
