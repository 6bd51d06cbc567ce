"""Stopping: what is sent, how often, and what counts as a wanted end; in simulated time."""

import signal

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import DaemonDiedError, StopError, StopLadder, StopReport
from trio_lifecycle._diary import Diary
from trio_lifecycle._events import Found, Ready, Spawned, Starting
from trio_lifecycle._stop import Stopper
from trio_lifecycle.testing import SimulatedDaemon
from trio_lifecycle.testing._spawner import SimulatedProcess

POLITE = StopLadder((signal.SIGTERM, 10.0))


class Recorded(SimulatedProcess):
    """A process that remembers its signals, and that for a while can't be looked at."""

    blind_until = 0.0

    def __init__(self, daemon: SimulatedDaemon) -> None:
        super().__init__(daemon.start())
        self.signals: list[int] = []

    async def signal_tree(self, signum: int) -> None:
        self.signals.append(signum)
        await super().signal_tree(signum)

    @property
    def gone(self) -> bool:
        if trio.current_time() < self.blind_until:
            raise OSError("no descriptor is left")
        return super().gone

    async def wait_gone(self) -> None:
        if trio.current_time() < self.blind_until:
            raise OSError("no descriptor is left")
        await super().wait_gone()

    def find_stuck(self) -> tuple[int, str] | None:
        if trio.current_time() < self.blind_until:
            raise OSError("no descriptor is left")
        return super().find_stuck()


def stopper_of(process: Recorded) -> Stopper:
    """A stopper of a daemon that is ready."""
    diary = Diary("daemon", "0" * 32, Trace().observe)
    diary.note(Starting)
    diary.note(Found, path="/bin/daemon")
    diary.note(Spawned, pid=process.pid)
    diary.note(Ready, pid=process.pid, url=None, port=None, ready_after_s=0.0)
    return Stopper(process, POLITE, diary)


@in_simulated_time
async def test_a_stop_after_terminate_sends_no_second_sigterm() -> None:
    process = Recorded(SimulatedDaemon(stops_after=4.0))
    stopper = stopper_of(process)

    await stopper.terminate(signal.SIGTERM)
    await trio.sleep(1.0)
    report = await stopper.stop()

    assert [signal.SIGTERM, signal.SIGCONT] == process.signals
    assert StopReport("SIGTERM", -15, 3.0) == report


@in_simulated_time
async def test_a_signal_that_stands_on_two_rungs_is_sent_twice() -> None:
    process = Recorded(SimulatedDaemon(ignores_sigterm=True))
    ladder = StopLadder((signal.SIGINT, 1.0), (signal.SIGINT, 5.0))

    report = await stopper_of(process).stop(ladder)

    assert 2 == process.signals.count(signal.SIGINT)
    assert StopReport("SIGKILL", -9, 6.0) == report


@in_simulated_time
async def test_a_stop_after_terminate_still_insists() -> None:
    process = Recorded(SimulatedDaemon(ignores_sigterm=True))
    stopper = stopper_of(process)

    await stopper.terminate(signal.SIGTERM)
    report = await stopper.stop()

    assert [signal.SIGTERM, signal.SIGCONT, signal.SIGKILL] == process.signals
    assert StopReport("SIGKILL", -9, 10.0) == report


@in_simulated_time
async def test_nothing_is_sent_to_a_daemon_that_is_gone() -> None:
    process = Recorded(SimulatedDaemon(dies_after=1.0))
    stopper = stopper_of(process)
    await trio.sleep(2.0)

    await stopper.terminate(signal.SIGTERM)
    report = await stopper.stop()

    assert [] == process.signals
    assert StopReport(None, 1, 0.0) == report
    assert not stopper.asked


@in_simulated_time
async def test_a_program_without_descriptors_goes_on_stopping_until_it_can_look_again() -> None:
    process = Recorded(SimulatedDaemon(stops_after=0.5))
    process.blind_until = trio.current_time() + 3.0
    stopper = stopper_of(process)

    report = await stopper.stop()

    assert [signal.SIGTERM, signal.SIGCONT] == process.signals
    assert "SIGTERM" == report.rung
    assert pytest.approx(3.0, abs=0.2) == report.seconds


@in_simulated_time
async def test_who_can_never_be_looked_at_is_killed_and_then_reported_as_staying() -> None:
    process = Recorded(SimulatedDaemon())
    process.blind_until = trio.current_time() + 1000.0
    stopper = stopper_of(process)

    with pytest.raises(StopError) as caught:
        await stopper.stop()

    assert signal.SIGKILL == process.signals[-1]
    assert (process.pid, "") == (caught.value.pid, caught.value.waiting_in)
    assert pytest.approx(15.0, abs=0.2) == caught.value.seconds


@in_simulated_time
async def test_a_stop_that_failed_can_be_asked_for_again() -> None:
    daemon = SimulatedDaemon(unkillable=True)
    stopper = stopper_of(Recorded(daemon))
    with pytest.raises(StopError):
        await stopper.stop(StopLadder())
    daemon.unkillable = False

    report = await stopper.stop(StopLadder())

    assert ("SIGKILL", -9) == (report.rung, report.status)


@in_simulated_time
async def test_a_death_that_came_before_the_stop_is_a_death() -> None:
    simulated = SimulatedDaemon(dies_after=1.0)
    trace = Trace()

    async def stop_too_late() -> None:
        async with simulated.lifecycle(observer=trace.observe).running() as daemon:
            # In one step with the death: nobody else had a turn to see it.
            incarnation = simulated.incarnations[0]
            incarnation.ends = incarnation.goes = trio.current_time()
            await daemon.stop()
            await trio.sleep_forever()

    with pytest.raises(DaemonDiedError):
        await stop_too_late()

    assert ["died", "stopped"] == trace.kinds[-2:]
    assert trace.follows_the_table


@in_simulated_time
async def test_a_nursery_is_done_with_a_daemon_that_was_stopped_through_its_handle() -> None:
    simulated = SimulatedDaemon()

    with trio.fail_after(60.0):
        async with trio.open_nursery() as nursery:
            daemon = await nursery.start(simulated.lifecycle().run)
            await daemon.stop()

    assert 0 == simulated.alive
