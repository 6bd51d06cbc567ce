"""Spawners, ready modes, observers and outputs that fail: the daemon goes all the same."""

import logging
import sys
from collections.abc import Callable

import pytest
import trio
from attrs import frozen

from tests.simulated import in_simulated_time
from trio_lifecycle import DaemonLifecycle, Event
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Report, SpawnRequest, Start
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner


@frozen
class Failing(ReadyMode):
    """A ready mode that fails at one step."""

    step: str
    error: type[BaseException] = RuntimeError

    async def arm(self, start: Start) -> "FailingArmed":
        if self.step == "arm":
            raise self.error
        return FailingArmed(self)


class FailingArmed(ArmedReady):
    """Fails at the mode's step."""

    def __init__(self, mode: Failing) -> None:
        self._mode = mode

    @property
    def last_seen(self) -> str:
        return "nothing"

    async def wait(self, process: Process) -> Report:
        await trio.sleep(0.1)
        if self._mode.step == "wait":
            raise self._mode.error
        if self._mode.step == "ask":
            await trio.sleep_forever()
        return Report()

    async def ask(self, process: Process) -> Report | None:
        raise self._mode.error

    async def disarm(self) -> None:
        if self._mode.step == "disarm":
            raise self._mode.error


@pytest.mark.parametrize("step", ["arm", "wait", "ask"])
@in_simulated_time
async def test_what_a_ready_mode_raises_comes_out_as_it_is_and_nothing_is_left(step: str) -> None:
    simulated = SimulatedDaemon()

    with pytest.raises(RuntimeError):
        async with simulated.lifecycle(ready_mode=Failing(step)).running():
            pytest.fail("it was not ready")

    assert 0 == simulated.alive


@in_simulated_time
async def test_a_ready_mode_that_can_not_let_go_is_logged_and_the_daemon_is_handed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    simulated = SimulatedDaemon()

    with caplog.at_level(logging.ERROR):
        async with simulated.lifecycle(ready_mode=Failing("disarm")).running():
            assert 1 == simulated.alive

    assert 0 == simulated.alive
    assert "could not let go" in caplog.text


@in_simulated_time
async def test_a_ready_mode_that_ends_the_program_leaves_no_daemon() -> None:
    simulated = SimulatedDaemon()

    with pytest.raises(SystemExit):
        async with simulated.lifecycle(ready_mode=Failing("wait", SystemExit)).running():
            pytest.fail("it was not ready")

    assert 0 == simulated.alive


class Crashing(SimulatedSpawner):
    """A spawner with a task of its own that crashes while the daemon runs."""

    after = 5.0

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        process = await super().spawn(request, nursery)
        nursery.start_soon(self._crash)
        return process

    async def _crash(self) -> None:
        await trio.sleep(self.after)
        raise RuntimeError("the spawner's own task has crashed")


def crashing_lifecycle(simulated: SimulatedDaemon, after: float) -> DaemonLifecycle:
    """A lifecycle whose spawner crashes."""
    spawner = Crashing(simulated)
    spawner.after = after
    return DaemonLifecycle(simulated.lifecycle().config, spawner=spawner)


@pytest.mark.parametrize(("after", "ready_after"), [(5.0, 1.0), (1.0, 5.0)])
@in_simulated_time
async def test_a_crash_of_a_spawners_task_ends_the_block_and_the_daemon(
    after: float, ready_after: float
) -> None:
    simulated = SimulatedDaemon(ready_after=ready_after)

    with pytest.raises(RuntimeError, match="own task has crashed"):
        async with crashing_lifecycle(simulated, after).running():
            await trio.sleep_forever()

    assert 0 == simulated.alive


def end_at(kind: str) -> Callable[[Event], None]:
    """An observer that ends the program at one kind of event."""

    def observe(event: Event) -> None:
        if event.kind == kind:
            sys.exit(3)

    return observe


@pytest.mark.parametrize("kind", ["spawned", "ready", "stopping", "stopped"])
@in_simulated_time
async def test_an_observer_that_ends_the_program_leaves_no_daemon(kind: str) -> None:
    simulated = SimulatedDaemon()

    with pytest.raises(SystemExit):
        async with simulated.lifecycle(observer=end_at(kind)).running():
            await trio.sleep(1.0)

    assert 0 == simulated.alive


@in_simulated_time
async def test_the_ready_timeout_counts_from_the_beginning_of_the_spawn() -> None:
    simulated = SimulatedDaemon(spawn_after=50.0)
    began = trio.current_time()

    with pytest.raises(Exception, match="its spawn had not come to an end"):
        async with simulated.lifecycle(ready_timeout=5.0).running():
            pytest.fail("it was not ready in time")

    assert pytest.approx(5.0) == trio.current_time() - began
    assert 0 == simulated.spawned


@in_simulated_time
async def test_a_caller_that_is_cancelled_at_the_moment_of_readiness_loses_no_daemon() -> None:
    simulated = SimulatedDaemon()
    scope = trio.CancelScope()

    def cancel_at_readiness(event: Event) -> None:
        if event.kind == "ready":
            scope.cancel()

    lifecycle = simulated.lifecycle(detach=True, observer=cancel_at_readiness)
    with scope:
        await lifecycle.ensure_running()
    daemon = await lifecycle.ensure_running()

    assert 1 == simulated.spawned
    assert 1000 == daemon.pid


@in_simulated_time
async def test_a_daemon_that_ignores_its_end_does_not_hang_who_asks_for_it() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)
    lifecycle = simulated.lifecycle(detach=True, ready_timeout=5.0)
    daemon = await lifecycle.ensure_running()
    await daemon.terminate()
    began = trio.current_time()

    await lifecycle.ensure_running()

    # Its stop ladder, and the patience after that.
    assert pytest.approx(15.0, abs=0.5) == trio.current_time() - began
    assert (2, 1) == (simulated.spawned, simulated.alive)
