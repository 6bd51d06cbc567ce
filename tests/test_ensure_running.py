"""What adopting, nurseries and ``ensure_running()`` promise, in simulated time."""

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    ConfigError,
    DaemonDiedError,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    Failed,
    open_daemon_nursery,
)
from trio_lifecycle.testing import HANGS, SimulatedDaemon

# --- adopting ---


@in_simulated_time
async def test_a_daemon_that_runs_already_is_used_and_left_running() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()
    already = simulated.start()

    async with simulated.lifecycle(free_port=False, observer=trace.observe).running() as daemon:
        assert "adopted" == daemon.origin
        assert already.pid == daemon.pid
        assert "http://127.0.0.1:8080/" == daemon.url

    assert 1 == simulated.alive
    assert 1 == simulated.spawned
    assert ["starting", "adopted", "left"] == trace.kinds


@in_simulated_time
async def test_an_adopted_daemon_that_dies_cancels_the_block_all_the_same() -> None:
    simulated = SimulatedDaemon(dies_after=3.0)
    simulated.start()

    with pytest.raises(DaemonDiedError):
        async with simulated.lifecycle(free_port=False).running():
            await trio.sleep_forever()


@in_simulated_time
async def test_an_adopted_daemon_is_stopped_when_it_is_asked_for() -> None:
    simulated = SimulatedDaemon()
    simulated.start()

    async with simulated.lifecycle(free_port=False).running() as daemon:
        await daemon.stop()

    assert 0 == simulated.alive


@in_simulated_time
async def test_a_daemon_that_somebody_else_is_starting_is_waited_for_not_started_again() -> None:
    simulated = SimulatedDaemon(health=[(0.0, 503), (4.0, 200)])
    simulated.start()

    async with simulated.lifecycle(free_port=False).running() as daemon:
        assert "adopted" == daemon.origin

    assert 1 == simulated.spawned


@pytest.mark.parametrize("status", [404, 503, HANGS])
@in_simulated_time
async def test_one_that_is_there_but_never_up_is_unknown_and_no_second_is_started(
    status: int,
) -> None:
    simulated = SimulatedDaemon(health=[(0.0, status)])
    simulated.start()
    began = trio.current_time()

    with pytest.raises(DaemonStateUnknownError, match="simulated"):
        async with simulated.lifecycle(free_port=False, ready_timeout=5.0).running():
            pytest.fail("it is not up")

    assert 1 == simulated.spawned
    assert 1 == simulated.alive
    assert 5.0 == pytest.approx(trio.current_time() - began)


# --- run ---


@in_simulated_time
async def test_a_nursery_gets_the_daemon_and_stops_it_when_it_is_cancelled() -> None:
    simulated = SimulatedDaemon(ready_after=1.0)

    async with trio.open_nursery() as nursery:
        daemon = await nursery.start(simulated.lifecycle().run)
        assert 1 == simulated.alive
        assert "spawned" == daemon.origin
        nursery.cancel_scope.cancel()

    assert 0 == simulated.alive


@in_simulated_time
async def test_a_start_that_nobody_waits_for_any_more_is_told_as_cancelled() -> None:
    trace = Trace()
    lifecycle = SimulatedDaemon(ready_after=5.0).lifecycle(observer=trace.observe)
    with trio.move_on_after(1.0):
        async with lifecycle.running():
            pytest.fail("it was not ready")
    with trio.move_on_after(1.0):
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(lifecycle)
    told = [event for event in trace.events if isinstance(event, Failed)]
    assert [("Cancelled", "the start was given up")] * 2 == [(e.error, e.reason) for e in told]


@in_simulated_time
async def test_a_start_that_fails_is_raised_by_nursery_start_itself() -> None:
    async with trio.open_nursery() as nursery:
        with pytest.raises(DiedBeforeReadyError):
            await nursery.start(SimulatedDaemon(dies_after=0.0).lifecycle().run)


@in_simulated_time
async def test_a_later_death_comes_out_of_the_nursery() -> None:
    with pytest.RaisesGroup(DaemonDiedError):
        async with trio.open_nursery() as nursery:
            await nursery.start(SimulatedDaemon(dies_after=9.0).lifecycle().run)
            await trio.sleep_forever()


# --- ensure_running() ---


@in_simulated_time
async def test_without_an_owner_a_daemon_that_is_not_detached_is_refused_with_the_cure() -> None:
    simulated = SimulatedDaemon()

    with pytest.raises(ConfigError, match=r"async with lifecycle\.running\(\).*detach=True"):
        await simulated.lifecycle().ensure_running()

    assert 0 == simulated.spawned


@in_simulated_time
async def test_a_detached_daemon_is_left_running_and_given_again() -> None:
    simulated = SimulatedDaemon(ready_after=1.0)
    lifecycle = simulated.lifecycle(detach=True)

    first = await lifecycle.ensure_running()
    second = await lifecycle.ensure_running()

    assert first is second
    assert 1 == simulated.spawned
    assert 1 == simulated.alive


@in_simulated_time
async def test_another_lifecycle_of_the_same_address_adopts_it() -> None:
    simulated = SimulatedDaemon()
    first = await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    second = await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    assert "adopted" == second.origin
    assert first.pid == second.pid
    assert 1 == simulated.spawned


@in_simulated_time
async def test_a_detached_daemon_that_has_died_is_started_anew() -> None:
    simulated = SimulatedDaemon()
    lifecycle = simulated.lifecycle(detach=True)
    first = await lifecycle.ensure_running()
    await first.send_signal(9)

    second = await lifecycle.ensure_running()

    assert first.instance_id != second.instance_id
    assert 1 == simulated.alive


@pytest.mark.fault(60)
@in_simulated_time
async def test_asked_while_it_is_being_stopped_the_stop_is_waited_for() -> None:
    simulated = SimulatedDaemon(stops_after=3.0)
    lifecycle = simulated.lifecycle(detach=True)
    first = await lifecycle.ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(first.stop)
        await trio.sleep(1.0)
        second = await lifecycle.ensure_running()

    assert first.instance_id != second.instance_id
    assert 1 == simulated.alive


@in_simulated_time
async def test_one_that_is_alive_but_does_not_answer_is_unknown_and_stays_alone() -> None:
    simulated = SimulatedDaemon(health=[(0.0, 200), (10.0, 503)])
    lifecycle = simulated.lifecycle(detach=True, ready_timeout=5.0)
    await lifecycle.ensure_running()
    await trio.sleep(20.0)

    with pytest.raises(DaemonStateUnknownError, match="answered 503"):
        await lifecycle.ensure_running()

    assert 1 == simulated.spawned


@in_simulated_time
async def test_one_bad_answer_of_a_running_daemon_is_no_verdict() -> None:
    simulated = SimulatedDaemon(health=[(0.0, 200), (10.0, 503), (12.0, 200)])
    lifecycle = simulated.lifecycle(detach=True)
    first = await lifecycle.ensure_running()
    await trio.sleep(11.0)

    assert first is await lifecycle.ensure_running()


@in_simulated_time
async def test_a_failed_start_leaves_the_lifecycle_usable() -> None:
    simulated = SimulatedDaemon(dies_after=0.5, ready_after=1.0)
    lifecycle = simulated.lifecycle(detach=True)
    with pytest.raises(DiedBeforeReadyError):
        await lifecycle.ensure_running()
    simulated.dies_after = None

    await lifecycle.ensure_running()

    assert 1 == simulated.alive


@in_simulated_time
async def test_owned_forms_own_a_detached_daemon_too() -> None:
    simulated = SimulatedDaemon()

    async with simulated.lifecycle(detach=True).running():
        assert 1 == simulated.alive

    assert 0 == simulated.alive
