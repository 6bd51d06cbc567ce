"""What comes back late after a stop: who waits for it, for how long, and who does not."""

import signal
import socket

import pytest
import trio
from attrs import define, field

from tests.simulated import in_simulated_time
from tests.support import PATIENCE_S, Heard, free_port, python_daemon
from tests.trace import Trace
from trio_lifecycle import (
    ConfigError,
    DaemonDiedError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    FreePort,
    Manual,
    NotRecovered,
    Output,
    PreflightError,
    StopError,
    open_daemon_nursery,
)
from trio_lifecycle.abc import Preflight
from trio_lifecycle.testing import SimulatedDaemon, run_simulated


@define
class Late:
    """A check of something that is free again some time after its daemon is gone.

    Attributes:
        simulated: The daemon that has it.
        late: Seconds by which it is late.
        wait_for_recovery: As users give it.
        asked: When its recovery was asked about.
    """

    simulated: SimulatedDaemon
    late: float
    wait_for_recovery: float
    check_timeout: float = 5.0
    asked: list[float] = field(factory=list)
    _gone_at: float | None = None

    async def __call__(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.simulated.alive:
            raise RuntimeError("it is taken")
        if self.simulated.spawned and self._gone_at is None:
            self._gone_at = trio.current_time()
        if self._gone_at is not None and trio.current_time() < self._gone_at + self.late - 1e-9:
            raise RuntimeError("it is not back yet")

    async def recovery(self) -> Preflight:
        """Be asked again."""
        self._gone_at = None
        return self._ask

    async def _ask(self) -> None:
        self.asked.append(trio.current_time())
        await self()


def household(
    late: float, wait: float, **changes: object
) -> tuple[SimulatedDaemon, Late, Trace, DaemonLifecycle]:
    """A daemon with something that comes back late."""
    simulated, trace = SimulatedDaemon(), Trace()
    check = Late(simulated, late, wait)
    options: dict[str, object] = {"preflight": [check], "observer": trace.observe, **changes}
    return simulated, check, trace, simulated.lifecycle(**options)  # type: ignore[arg-type]


def passed(since: float) -> float:
    """Seconds of simulated time since a moment, to the tenth: looks are at most that far apart."""
    return round(trio.current_time() - since, 1)


# --- who waits ------------------------------------------------------------------------------------


@in_simulated_time
async def test_the_end_of_a_block_waits_until_all_is_back() -> None:
    _, _, trace, lifecycle = household(late=3.0, wait=10.0)
    async with lifecycle.running():
        began = trio.current_time()
    assert 3.0 == pytest.approx(passed(began), abs=0.15)
    assert "stopped" == trace.kinds[-1]


@in_simulated_time
async def test_stop_waits_and_then_gives_its_report_as_usual() -> None:
    _, check, _, lifecycle = household(late=3.0, wait=10.0)
    async with lifecycle.running() as daemon:
        began = trio.current_time()
        report = await daemon.stop()
        assert 3.0 == pytest.approx(passed(began), abs=0.15)
        assert ("SIGTERM", 0.0) == (report.rung, round(report.seconds, 1))
        looks = len(check.asked)
        # Once is enough.
        assert report == await daemon.stop()
    assert looks == len(check.asked)
    assert 3.0 == pytest.approx(passed(began), abs=0.15)


@in_simulated_time
async def test_several_who_stop_it_wait_together() -> None:
    _, _, trace, lifecycle = household(late=99.0, wait=4.0)
    async with lifecycle.running() as daemon:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(daemon.stop)
        assert 4.0 == passed(began)
    assert 1 == trace.kinds.count("not_recovered")


@in_simulated_time
async def test_a_nursery_whose_daemon_is_stopped_through_its_handle_waits() -> None:
    _, _, _, lifecycle = household(late=3.0, wait=10.0)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        daemon = await nursery.start(lifecycle.run)
        await daemon.terminate()
    assert 3.0 == pytest.approx(passed(began), abs=0.15)


@in_simulated_time
async def test_a_daemon_nursery_waits_for_all_at_once() -> None:
    began = trio.current_time()
    async with open_daemon_nursery() as daemons:
        for name in ("one", "two", "three"):
            await daemons.ensure_running(household(late=3.0, wait=10.0, name=name)[3])
    assert 3.0 == pytest.approx(passed(began), abs=0.15)


@in_simulated_time
async def test_a_daemon_nursery_waits_before_it_starts_one_anew_that_has_died() -> None:
    simulated, _, trace, lifecycle = household(late=3.0, wait=10.0)
    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(lifecycle)
        began = trio.current_time()
        simulated.incarnations[0].signal(signal.SIGKILL)
        await daemons.ensure_running(lifecycle)
        assert 3.0 == pytest.approx(passed(began), abs=0.15)
    assert 2 == simulated.spawned
    assert "not_recovered" not in trace.kinds


@in_simulated_time
async def test_one_of_another_configuration_is_followed_when_all_is_back() -> None:
    simulated, check, _, first = household(late=3.0, wait=10.0, detach=True)
    await first.ensure_running()
    began = trio.current_time()
    anew = simulated.lifecycle(detach=True, preflight=[check], on_change="restart", free_port=False)
    await anew.ensure_running()
    assert 3.0 == pytest.approx(passed(began), abs=0.15)
    assert (2, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_one_that_was_found_running_is_waited_for_when_it_is_stopped() -> None:
    simulated, check, _, first = household(late=3.0, wait=10.0, detach=True)
    await first.ensure_running()
    again = simulated.lifecycle(detach=True, preflight=[check])
    daemon = await again.ensure_running()
    began = trio.current_time()
    await daemon.stop()
    assert 3.0 == pytest.approx(passed(began), abs=0.15)


# --- its end --------------------------------------------------------------------------------------


@in_simulated_time
async def test_what_is_not_back_in_time_is_told_and_the_stop_returns() -> None:
    _, _, trace, lifecycle = household(late=99.0, wait=4.0)
    async with lifecycle.running() as daemon:
        began = trio.current_time()
    assert 4.0 == passed(began)
    event = trace.events[-1]
    assert isinstance(event, NotRecovered)
    assert (daemon.pid, "it is not back yet", 4.0) == (event.pid, event.problem, event.waited_s)
    assert trace.follows_the_table


@define
class Hanging:
    """A check whose recovery can't be asked about: no look at it ever ends."""

    wait_for_recovery: float = 4.0

    async def __call__(self) -> None:
        await trio.lowlevel.checkpoint()

    async def recovery(self) -> Preflight:
        return trio.sleep_forever


@in_simulated_time
async def test_a_look_that_hangs_is_bounded_by_the_wait() -> None:
    trace = Trace()
    lifecycle = SimulatedDaemon().lifecycle(preflight=[Hanging()], observer=trace.observe)
    async with lifecycle.running():
        began = trio.current_time()
    assert 4.0 == passed(began)
    assert "could not be asked in time" in str(trace.events[-1])


@in_simulated_time
async def test_a_stop_takes_no_longer_where_nothing_is_to_be_waited_for() -> None:
    _, check, _, lifecycle = household(late=3.0, wait=0.0)
    async with lifecycle.running() as daemon:
        began = trio.current_time()
        await daemon.stop()
    assert began == trio.current_time()
    assert [] == check.asked


@in_simulated_time
async def test_a_cancelled_owner_is_not_held() -> None:
    simulated, check, trace, lifecycle = household(late=99.0, wait=50.0)
    with trio.CancelScope() as scope:
        async with lifecycle.running():
            began = trio.current_time()
            scope.cancel()
            await trio.sleep_forever()
    assert began == trio.current_time()
    assert 0 == simulated.alive
    assert ([], "stopped") == (check.asked, trace.kinds[-1])


@in_simulated_time
async def test_an_owner_who_is_cancelled_while_he_waits_goes_on_at_once() -> None:
    simulated, _, _, lifecycle = household(late=99.0, wait=50.0)
    began = trio.current_time()
    with trio.move_on_after(7.0) as patience:
        async with lifecycle.running():
            pass
    assert patience.cancelled_caught
    assert 7.0 == passed(began)
    assert 0 == simulated.alive


@in_simulated_time
async def test_a_cancelled_daemon_nursery_is_not_held() -> None:
    began = trio.current_time()
    with trio.move_on_after(7.0) as patience:
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(household(late=99.0, wait=50.0)[3])
    assert patience.cancelled_caught
    assert 7.0 == passed(began)


@in_simulated_time
async def test_who_is_cancelled_leaves_the_rest_of_the_wait_to_the_next() -> None:
    _, _, trace, lifecycle = household(late=99.0, wait=10.0)
    async with lifecycle.running() as daemon:
        began = trio.current_time()
        with trio.move_on_after(4.0):
            await daemon.stop()
        assert 4.0 == passed(began)
    assert 10.0 == passed(began)
    assert 1 == trace.kinds.count("not_recovered")


@pytest.mark.parametrize("patience", [3.0, 50.0])
@in_simulated_time
async def test_what_a_block_raised_leaves_as_it_entered(patience: float) -> None:
    _, _, _, lifecycle = household(late=99.0, wait=10.0)
    with trio.move_on_after(patience), pytest.raises(KeyError, match="the block's"):
        async with lifecycle.running():
            raise KeyError("the block's")


@pytest.mark.parametrize("patience", [3.0, 50.0])
@in_simulated_time
async def test_what_the_block_of_a_daemon_nursery_raised_leaves_as_it_entered(
    patience: float,
) -> None:
    lifecycle = household(late=99.0, wait=10.0)[3]

    async def own_and_fail() -> None:
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(lifecycle)
            raise KeyError("the block's")

    with trio.move_on_after(patience), pytest.raises(KeyError, match="the block's"):
        await own_and_fail()


@pytest.mark.parametrize("owner", ["block", "stop", "daemon nursery"])
def test_ctrl_c_while_it_is_waited_leaves_as_it_is(owner: str) -> None:
    async def interrupt() -> None:
        await trio.sleep(3.0)
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        lifecycle = household(late=99.0, wait=50.0)[3]
        # It is protected from Ctrl-C, so that the main task gets it.
        trio.lowlevel.spawn_system_task(interrupt)
        try:
            if owner == "daemon nursery":
                async with open_daemon_nursery() as daemons:
                    await daemons.ensure_running(lifecycle)
            else:
                async with lifecycle.running() as daemon:
                    if owner == "stop":
                        await daemon.stop()
        finally:
            assert 3.0 == passed(0.0)

    with pytest.raises(KeyboardInterrupt):
        run_simulated(main)


@in_simulated_time
async def test_a_death_in_a_block_is_told_when_all_is_back() -> None:
    simulated, _, _, lifecycle = household(late=3.0, wait=10.0)
    began = trio.current_time()

    async def kill_it() -> None:
        async with lifecycle.running():
            simulated.incarnations[0].signal(signal.SIGKILL)
            await trio.sleep_forever()

    with pytest.raises(DaemonDiedError):
        await kill_it()
    assert 3.0 == pytest.approx(passed(began), abs=0.15)


@in_simulated_time
async def test_a_start_that_fails_is_told_at_once() -> None:
    simulated = SimulatedDaemon(dies_after=1.0, ready_after=9.0)
    lifecycle = simulated.lifecycle(preflight=[Late(simulated, 99.0, 50.0)])
    began = trio.current_time()
    with pytest.raises(Exception, match="exited with status 1"):
        await lifecycle.run()
    assert 1.0 == passed(began)


@in_simulated_time
async def test_one_that_outlives_sigkill_is_not_waited_for_again() -> None:
    simulated = SimulatedDaemon(unkillable=True)
    check = Late(simulated, 99.0, 50.0)
    with pytest.raises(StopError):
        async with simulated.lifecycle(preflight=[check]).running():
            pass
    assert [] == check.asked


@in_simulated_time
async def test_a_recovery_that_can_not_be_measured_fails_the_start() -> None:
    @define
    class Blind:
        wait_for_recovery: float = 1.0

        async def __call__(self) -> None:
            await trio.lowlevel.checkpoint()

        async def recovery(self) -> Preflight:
            await trio.lowlevel.checkpoint()
            raise RuntimeError("it can't be measured")

    simulated = SimulatedDaemon()
    with pytest.raises(PreflightError, match="it can't be measured"):
        await simulated.lifecycle(preflight=[Blind()]).run()
    assert 0 == simulated.spawned


@pytest.mark.parametrize("seconds", [-1.0, "5"])
def test_a_wait_that_is_no_number_of_seconds_is_refused_at_once(seconds: object) -> None:
    with pytest.raises(ConfigError) as caught:
        SimulatedDaemon().lifecycle(preflight=[Hanging(seconds)])  # type: ignore[arg-type]
    assert "wait_for_recovery" == caught.value.field


@in_simulated_time
async def test_a_start_with_another_port_waits_for_what_the_first_had() -> None:
    simulated = SimulatedDaemon(dies_after=1.0, writes=b"Address already in use\n", ready_after=9.0)
    check = Late(simulated, 3.0, 10.0)
    lifecycle = simulated.lifecycle(preflight=[check], ready_timeout=20.0)
    began = trio.current_time()
    with pytest.raises(DiedBeforeReadyError):
        await lifecycle.run()
    # Three starts, and two waits in between.
    assert 3 == simulated.spawned
    assert 9.0 == pytest.approx(passed(began), abs=0.3)


# --- a real port ----------------------------------------------------------------------------------

SERVES = """
import socket, sys, time
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
print("serves", flush=True)
time.sleep(1000)
"""


async def test_a_port_that_another_process_still_has_is_waited_for_and_told() -> None:
    port, trace, heard = free_port(), Trace(), Heard()
    config = python_daemon(SERVES, str(port), ready_mode=Manual(), output=Output(to=heard))
    check = FreePort(port, wait_for_recovery=0.3)
    lifecycle = DaemonLifecycle(config, preflight=[check], observer=trace.observe)
    async with lifecycle.running() as daemon:
        await heard.line("serves")
        with pytest.raises(PreflightError, match=f"in use by process {daemon.pid}"):
            await lifecycle.run()
    assert "stopped" == trace.kinds[-1]
    async with lifecycle.running() as daemon:
        await daemon.kill()
        with socket.create_server(("127.0.0.1", port)):
            with trio.fail_after(PATIENCE_S):
                await daemon.stop()
    event = trace.events[-1]
    assert isinstance(event, NotRecovered)
    assert f"port {port} of 127.0.0.1 is in use by process" in event.problem
