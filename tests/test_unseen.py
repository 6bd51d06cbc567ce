"""A daemon that is lost from sight, as when the connection to its machine is: nobody guesses."""

from math import inf
from types import SimpleNamespace
from typing import cast

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
    DaemonStateUnknownError,
    StopLadder,
    attach,
    open_daemon_nursery,
)
from trio_lifecycle._sight import lost_from_sight, out_of_sight
from trio_lifecycle.abc import Process
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

LOST = "its simulated connection is lost"
# How long a stop of one that stays out of sight looks for it: at first, as long as its ladder
# takes, and as long as a kill has patience.
LADDER = StopLadder((15, 3.0))
STOP_S = 3.0 + 5.0

pytestmark = pytest.mark.fault(74)


# --- in a block -----------------------------------------------------------------------------------


@in_simulated_time
async def test_a_block_ends_at_once_when_its_daemon_is_lost_from_sight() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(unseen_after=5.0, dies_after=6.0, seen_again_after=8.0)
    ends: list[float] = []

    async def use() -> None:
        async with simulated.lifecycle(observer=trace.observe).running() as daemon:
            handles.append(daemon)
            try:
                await trio.sleep_forever()
            finally:
                ends.append(trio.current_time())

    handles: list[DaemonHandle] = []
    with pytest.raises(DaemonStateUnknownError, match="while it was needed") as caught:
        await use()

    assert LOST in str(caught.value)
    assert ["It came into sight again, and is gone."] == caught.value.__notes__
    assert 5.0 == pytest.approx(trace.after_spawn("unseen"))
    assert [5.0] == pytest.approx(ends)
    assert ["unseen", "stopped"] == trace.kinds[-2:]
    assert LOST == trace.events[-2].reason
    assert trace.follows_the_table
    assert "gone" == await handles[0].check()


@in_simulated_time
async def test_one_that_comes_into_sight_again_is_stopped_with_its_whole_ladder() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(unseen_after=5.0, seen_again_after=7.0, stops_after=2.5)

    with pytest.raises(DaemonStateUnknownError):
        async with simulated.lifecycle(observer=trace.observe, stop_ladder=LADDER).running():
            await trio.sleep_forever()

    assert ["unseen", "stopping", "stopped"] == trace.kinds[-3:]
    assert ("SIGTERM", -15) == (trace.events[-1].rung, trace.events[-1].status)
    assert 0 == simulated.alive


@in_simulated_time
async def test_one_that_stays_out_of_sight_is_told_to_be_unknown_and_stopped_later() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0)
    lifecycle = simulated.lifecycle(stop_ladder=LADDER, recorded=True)

    with pytest.raises(DaemonStateUnknownError, match="can't be seen to be gone") as caught:
        async with lifecycle.running() as daemon:
            await trio.sleep_forever()

    assert STOP_S == pytest.approx(trio.current_time() - 5.0, abs=0.6)
    assert f"process {daemon.pid} " in str(caught.value)
    assert "its record was kept; stop it again when it can be seen" in str(caught.value)
    record = await simulated.registry.get("simulated")
    assert record is not None
    assert "stopping" == record.state
    assert ("unknown", 1) == (await daemon.check(), simulated.alive)
    simulated.seen_again_after = 0.0
    assert -15 == (await daemon.stop()).status
    assert (0, None) == (simulated.alive, await simulated.registry.get("simulated"))


@in_simulated_time
async def test_what_the_block_raises_leaves_as_it_entered_with_a_note() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0)

    with pytest.raises(ZeroDivisionError) as caught:
        await fail_when_cancelled(simulated.lifecycle())

    assert LOST in caught.value.__notes__[0]


async def fail_when_cancelled(lifecycle: DaemonLifecycle) -> None:
    async with lifecycle.running():
        try:
            await trio.sleep_forever()
        finally:
            raise ZeroDivisionError


@in_simulated_time
async def test_who_waits_in_the_block_for_the_exit_is_cancelled_with_it() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0, seen_again_after=5.0)
    heard: list[str] = []

    async def use() -> None:
        async with simulated.lifecycle().running() as daemon:
            try:
                await daemon.wait_exit()
            except trio.Cancelled:
                heard.append("cancelled")
                raise

    with pytest.raises(DaemonStateUnknownError, match="while it was needed"):
        await use()

    assert ["cancelled"] == heard
    assert 0 == simulated.alive


@in_simulated_time
async def test_a_nursery_that_was_given_the_daemon_is_told() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0)

    with pytest.RaisesGroup(pytest.RaisesExc(DaemonStateUnknownError, match="simulated")):
        async with trio.open_nursery() as nursery:
            await nursery.start(simulated.lifecycle().run)
            nursery.start_soon(trio.sleep_forever)


@in_simulated_time
async def test_an_adopted_one_that_is_lost_from_sight_ends_the_block_and_is_left_alone() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(unseen_after=5.0)
    simulated.start(8080)
    lifecycle = simulated.lifecycle(free_port=False, observer=trace.observe)

    with pytest.raises(DaemonStateUnknownError, match="while it was needed"):
        async with lifecycle.running():
            await trio.sleep_forever()

    assert ["starting", "adopted", "unseen"] == trace.kinds
    assert 5.0 == pytest.approx(trio.current_time())
    assert 1 == simulated.alive


# --- while it starts ------------------------------------------------------------------------------


@pytest.mark.fault(73)
@in_simulated_time
async def test_one_lost_from_sight_before_it_is_ready_did_not_die() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(ready_after=inf, unseen_after=2.0, seen_again_after=3.0)

    with pytest.raises(DaemonStateUnknownError, match="before it was ready"):
        async with simulated.lifecycle(observer=trace.observe).running():
            raise AssertionError("it was never ready")

    assert ["spawned", "unseen", "stopping", "stopped", "failed"] == trace.kinds[2:]
    assert (1, 0) == (simulated.spawned, simulated.alive)


@pytest.mark.fault(73)
@in_simulated_time
async def test_one_that_stays_out_of_sight_in_its_start_keeps_its_record_and_has_no_twin() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(ready_after=4.0, unseen_after=2.0)
    lifecycle = simulated.lifecycle(detach=True, observer=trace.observe)

    with pytest.raises(DaemonStateUnknownError, match="its record was kept"):
        await lifecycle.ensure_running()
    assert ["spawned", "unseen"] == trace.kinds[-2:]
    with pytest.raises(DaemonStateUnknownError, match=LOST):
        await lifecycle.ensure_running()
    assert 1 == simulated.spawned
    simulated.seen_again_after = simulated.ready_after = 0.0
    await lifecycle.ensure_running()
    assert (2, 1) == (simulated.spawned, simulated.alive)


@pytest.mark.fault(73)
@in_simulated_time
async def test_one_lost_from_sight_at_its_gate_never_runs() -> None:
    simulated = SimulatedDaemon(unseen_after=0.0, seen_again_after=1.0)

    with pytest.raises(DaemonStateUnknownError, match=LOST):
        await simulated.lifecycle(detach=True).ensure_running()

    assert (1, 0, 0) == (simulated.spawned, simulated.opened, simulated.alive)
    assert await simulated.registry.get("simulated") is None


# --- one that nobody owns -------------------------------------------------------------------------


@in_simulated_time
async def test_a_daemon_out_of_sight_is_unknown_and_not_given_until_it_is_seen_again() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0)
    lifecycle = simulated.lifecycle(detach=True)
    daemon = await lifecycle.ensure_running()
    assert "running" == await daemon.check()

    with pytest.raises(DaemonStateUnknownError, match=LOST):
        await daemon.wait_exit()
    with pytest.raises(DaemonStateUnknownError, match=LOST):
        await daemon.wait_exit()
    assert "unknown" == await daemon.check()
    with pytest.raises(DaemonStateUnknownError, match="nothing was started"):
        await lifecycle.ensure_running()
    with pytest.raises(DaemonStateUnknownError):
        await attach("simulated", simulated.registry, spawner=SimulatedSpawner(simulated))
    with pytest.raises(DaemonStateUnknownError, match="stop it again"):
        await daemon.terminate()

    simulated.seen_again_after = 0.0
    assert daemon is await lifecycle.ensure_running()
    assert "running" == await daemon.check()
    with trio.move_on_after(1.0):
        await daemon.wait_exit()
    assert -15 == (await daemon.stop()).status
    assert -15 == await daemon.wait_exit()


@in_simulated_time
async def test_one_that_has_died_out_of_sight_is_seen_to_be_gone_and_started_anew() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0, dies_after=6.0)
    lifecycle = simulated.lifecycle(detach=True)
    daemon = await lifecycle.ensure_running()
    await trio.sleep(10.0)
    assert "unknown" == await daemon.check()
    simulated.seen_again_after, simulated.unseen_after = 0.0, 5.0

    again = await lifecycle.ensure_running()

    assert again.pid != daemon.pid
    assert ("gone", 1) == (await daemon.check(), await daemon.wait_exit())
    await again.stop()


@in_simulated_time
async def test_a_stop_during_which_it_is_lost_from_sight_says_only_what_was_seen() -> None:
    trace = Trace()
    simulated = SimulatedDaemon(unseen_after=5.0, stops_after=2.0)
    lifecycle = simulated.lifecycle(detach=True, observer=trace.observe, stop_ladder=LADDER)
    daemon = await lifecycle.ensure_running()
    await trio.sleep(4.0)

    with pytest.raises(DaemonStateUnknownError, match="can't be seen to be gone"):
        await daemon.stop()

    assert ["stopping"] == trace.kinds[-1:]
    with pytest.raises(DaemonStateUnknownError, match="can't be seen to be gone"):
        await daemon.kill()
    simulated.seen_again_after = 0.0
    assert ("SIGTERM", -15) == ((await daemon.stop()).rung, daemon._process.status)
    assert trace.follows_the_table


# --- in a daemon nursery --------------------------------------------------------------------------


@in_simulated_time
async def test_a_daemon_nursery_starts_no_second_one_while_the_first_is_out_of_sight() -> None:
    simulated = SimulatedDaemon(unseen_after=5.0)
    lifecycle = simulated.lifecycle(stop_ladder=LADDER)

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(lifecycle)
        await trio.sleep(6.0)
        assert 0 == len(daemons)
        with pytest.raises(DaemonStateUnknownError, match="so that there are never two"):
            await daemons.ensure_running(lifecycle)
        await trio.sleep(60.0)
        with pytest.raises(DaemonStateUnknownError, match="can't be seen to be gone"):
            await daemons.ensure_running(lifecycle)
        assert 1 == simulated.spawned
        simulated.seen_again_after = 0.0
        second = await daemons.ensure_running(lifecycle)
        assert first.pid != second.pid
        assert (2, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_a_daemon_nursery_says_at_its_end_which_daemon_it_could_not_see_to_be_gone() -> None:
    simulated, other = SimulatedDaemon(unseen_after=5.0), SimulatedDaemon()

    async def use() -> None:
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(simulated.lifecycle(stop_ladder=LADDER))
            await daemons.ensure_running(other.lifecycle(name="other"))
            await trio.sleep(6.0)

    with pytest.raises(DaemonStateUnknownError, match="stop it again when it can be seen"):
        await use()

    assert (1, 0) == (simulated.alive, other.alive)


def test_a_reason_that_is_a_sentence_has_no_full_stop_within_another() -> None:
    process = cast(Process, SimpleNamespace(pid=7, unseen="It is dark."))
    lost = lost_from_sight("queen", process, "at night", "It is dark.")
    assert "at night: It is dark; start it again" in str(lost)
    assert "It is dark; its record" in str(out_of_sight("queen", process, recorded=True))
