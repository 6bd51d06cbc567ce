"""What the owned form promises: a daemon for the length of a block, in simulated time."""

from math import inf

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    DaemonDiedError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    PreflightError,
    ReadyTimeoutError,
    StopError,
    StopLadder,
    StopReport,
)
from trio_lifecycle.testing import HANGS, REFUSES, SimulatedDaemon

# --- running() ---


@in_simulated_time
async def test_a_block_has_a_daemon_that_is_up_and_afterwards_it_is_gone() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)

    async with simulated.lifecycle().running() as daemon:
        assert 1 == simulated.alive
        assert "spawned" == daemon.origin
        assert f"http://127.0.0.1:{daemon.port}/" == daemon.url
        assert 2.0 <= daemon.ready_after_s <= 2.1

    assert 0 == simulated.alive


@in_simulated_time
async def test_a_lifecycle_serves_any_number_of_blocks_also_at_once() -> None:
    simulated = SimulatedDaemon()
    lifecycle = simulated.lifecycle()

    async with lifecycle.running() as one, lifecycle.running() as two:
        assert one.port != two.port
        assert one.instance_id != two.instance_id
        assert 2 == simulated.alive

    assert 0 == simulated.alive


@pytest.mark.fault(30)
@in_simulated_time
async def test_a_death_in_the_block_cancels_it_at_once_and_says_what_happened() -> None:
    simulated = SimulatedDaemon(dies_after=5.0, exit_status=-9, writes=b"out of memory\n")
    began = trio.current_time()

    with pytest.raises(DaemonDiedError) as caught:
        async with simulated.lifecycle().running():
            await trio.sleep_forever()

    assert 5.0 == pytest.approx(trio.current_time() - began)
    assert -9 == caught.value.exit_status
    assert 5.0 == pytest.approx(caught.value.lived_s)
    assert "out of memory\n" == caught.value.output_tail
    assert "SIGKILL" in str(caught.value)
    assert caught.value.__suppress_context__


@in_simulated_time
async def test_the_rest_of_a_tree_is_stopped_when_its_main_process_dies() -> None:
    simulated = SimulatedDaemon(dies_after=5.0, lingers=inf)

    with pytest.raises(DaemonDiedError):
        async with simulated.lifecycle(stop_ladder=StopLadder((15, 3.0))).running():
            await trio.sleep_forever()

    assert 0 == simulated.alive


@in_simulated_time
async def test_the_block_leaves_before_the_daemon_when_it_is_cancelled() -> None:
    simulated = SimulatedDaemon()
    seen = []

    with trio.move_on_after(1.0):
        async with simulated.lifecycle().running():
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(20.0, shield=True):
                    await trio.sleep(10.0)
                seen.append(simulated.alive)

    assert [1] == seen
    assert 0 == simulated.alive


async def fail_while_leaving(lifecycle: DaemonLifecycle) -> None:
    async with lifecycle.running():
        try:
            await trio.sleep_forever()
        finally:
            raise KeyError("from the clean-up")


@in_simulated_time
async def test_an_error_of_the_block_bears_a_note_when_the_daemon_had_died() -> None:
    simulated = SimulatedDaemon(dies_after=1.0)

    with pytest.raises(KeyError) as caught:
        await fail_while_leaving(simulated.lifecycle())

    assert "simulated exited with status 1" in caught.value.__notes__[0]


@in_simulated_time
async def test_an_error_of_the_block_is_the_same_object_outside_and_has_no_note() -> None:
    error = KeyError("mine")

    with pytest.raises(KeyError) as caught:
        async with SimulatedDaemon().lifecycle().running():
            raise error

    assert error is caught.value
    assert not hasattr(error, "__notes__")
    assert error.__cause__ is None
    assert error.__context__ is None


@in_simulated_time
async def test_a_cancellation_from_outside_passes_through() -> None:
    simulated = SimulatedDaemon()

    with trio.move_on_after(1.0) as scope:
        async with simulated.lifecycle().running():
            await trio.sleep_forever()

    assert scope.cancelled_caught
    assert 0 == simulated.alive


@in_simulated_time
async def test_a_daemon_stopped_in_the_block_does_not_cancel_it() -> None:
    simulated = SimulatedDaemon(stops_after=0.5)

    async with simulated.lifecycle().running() as daemon:
        assert StopReport("SIGTERM", -15, 0.5) == await daemon.stop()
        await trio.sleep(5.0)
        assert StopReport("SIGTERM", -15, 0.5) == await daemon.stop()
        assert -15 == await daemon.wait_exit()


@in_simulated_time
async def test_a_daemon_terminated_in_the_block_does_not_cancel_it() -> None:
    trace = Trace()

    async with SimulatedDaemon().lifecycle(observer=trace.observe).running() as daemon:
        await daemon.terminate()
        assert -15 == await daemon.wait_exit()
        await trio.sleep(5.0)

    assert trace.follows_the_table
    assert "died" not in trace.kinds


async def signal_and_wait(lifecycle: DaemonLifecycle) -> None:
    async with lifecycle.running() as daemon:
        await daemon.send_signal(2)
        await trio.sleep_forever()


@in_simulated_time
async def test_a_daemon_that_a_plain_signal_ended_has_died() -> None:
    with pytest.raises(DaemonDiedError) as caught:
        await signal_and_wait(SimulatedDaemon().lifecycle())

    assert -2 == caught.value.exit_status


@pytest.mark.fault(41)
@in_simulated_time
async def test_a_process_that_outlives_sigkill_is_named() -> None:
    simulated = SimulatedDaemon(unkillable=True)
    began = trio.current_time()

    with pytest.raises(StopError) as caught:
        async with simulated.lifecycle(stop_ladder=StopLadder((15, 2.0))).running():
            pass

    assert 1000 == caught.value.pid
    assert "simulated_wait" == caught.value.waiting_in
    assert 7.0 == pytest.approx(trio.current_time() - began, abs=0.2)


@in_simulated_time
async def test_a_failed_stop_does_not_hide_what_the_block_raised() -> None:
    simulated = SimulatedDaemon(unkillable=True)

    with pytest.raises(KeyError) as caught:
        async with simulated.lifecycle(stop_ladder=StopLadder()).running():
            raise KeyError

    assert "outlived SIGKILL" in caught.value.__notes__[0]


# --- what goes wrong before it is ready ---


@pytest.mark.fault(15)
@in_simulated_time
async def test_a_death_before_readiness_is_reported_at_once_whatever_the_timeout() -> None:
    simulated = SimulatedDaemon(ready_after=inf, dies_after=0.05, exit_status=3, writes=b"no disk")
    began = trio.current_time()

    with pytest.raises(DiedBeforeReadyError) as caught:
        async with simulated.lifecycle(ready_timeout=300.0).running():
            pytest.fail("it was never ready")

    assert 0.05 == pytest.approx(trio.current_time() - began)
    assert 3 == caught.value.exit_status
    assert "no disk" in str(caught.value)


@pytest.mark.fault(16, 21)
@in_simulated_time
async def test_a_timeout_says_what_was_seen_last_and_leaves_nothing() -> None:
    simulated = SimulatedDaemon(health=[(0.0, REFUSES), (1.0, 503)])

    with pytest.raises(ReadyTimeoutError) as caught:
        async with simulated.lifecycle(ready_timeout=2.0).running():
            pytest.fail("it was never ready")

    assert "answered 503" in caught.value.last_seen
    assert 2.0 == pytest.approx(caught.value.waited_s)
    assert 0 == simulated.alive


@pytest.mark.fault(25)
@in_simulated_time
async def test_a_health_check_that_hangs_ends_with_the_last_probe_after_the_deadline() -> None:
    simulated = SimulatedDaemon(health=[(0.0, HANGS)])

    with pytest.raises(ReadyTimeoutError) as caught:
        async with simulated.lifecycle(ready_timeout=3.5, probe_timeout=1.0).running():
            pytest.fail("it was never ready")

    assert 4.5 == pytest.approx(caught.value.waited_s)
    assert "gave no answer within 1.0 s" in caught.value.last_seen


@in_simulated_time
async def test_all_checks_that_fail_are_reported_together_and_nothing_is_spawned() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()

    async def passes() -> None:
        await trio.sleep(1.0)

    async def fails_late() -> None:
        await trio.sleep(2.0)
        raise ValueError("the disk is full")

    async def fails_without_words() -> None:
        raise RuntimeError

    checks = [passes, fails_late, fails_without_words]
    lifecycle = simulated.lifecycle(preflight=checks, observer=trace.observe)
    began = trio.current_time()

    with pytest.raises(PreflightError) as caught:
        async with lifecycle.running():
            pytest.fail("it was not checked")

    said, unsaid = caught.value.failures
    assert "the disk is full" == said
    assert unsaid.endswith("fails_without_words raised RuntimeError()")
    assert 2.0 == pytest.approx(trio.current_time() - began)
    assert 0 == simulated.spawned
    assert ["starting", "found", "failed"] == trace.kinds
