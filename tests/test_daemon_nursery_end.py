"""How a daemon nursery ends: in reverse order, in bounded time, whatever ends it."""

import threading
from math import inf

import pytest
import trio

from tests.households import named, names
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    DaemonNotRunningError,
    DaemonStateUnknownError,
    Event,
    StopError,
    StopLadder,
)
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery
from trio_lifecycle.abc import Process, SpawnRequest
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner


async def own(
    *lifecycles: DaemonLifecycle, error: BaseException | None = None, lasts: float = 0.0
) -> None:
    """Have them up for a block, that may raise something."""
    async with open_daemon_nursery() as daemons:
        for lifecycle in lifecycles:
            await daemons.ensure_running(lifecycle)
        await trio.sleep(lasts)
        if error is not None:
            raise error


# --- the end ---


@pytest.mark.fault(45)
@in_simulated_time
async def test_they_are_stopped_one_after_another_in_reverse_order_of_start() -> None:
    trace = Trace()

    async with open_daemon_nursery() as daemons:
        for name in ("queen", "hive", "worker"):
            simulated = SimulatedDaemon(stops_after=1.0)
            await daemons.ensure_running(named(name, simulated, trace.observe))
        assert ["queen", "hive", "worker"] == names(daemons)
        assert 3 == len(daemons)
        assert "hive" in daemons

    ends = [(event.name, event.kind) for event in trace.events[-6:]]
    last_first = ("worker", "hive", "queen")
    assert [(name, kind) for name in last_first for kind in ("stopping", "stopped")] == ends


@pytest.mark.fault(45)
@in_simulated_time
async def test_a_hundred_stubborn_daemons_take_no_longer_than_twice_the_ladder() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)

    async with open_daemon_nursery() as daemons:
        for number in range(100):
            await daemons.ensure_running(named(f"worker-{number}", simulated))
        assert 100 == simulated.alive
        began = trio.current_time()

    assert trio.current_time() - began <= 21.0
    assert 0 == simulated.alive


@in_simulated_time
async def test_those_that_are_killed_at_once_go_in_reverse_order_too() -> None:
    trace = Trace()

    async with open_daemon_nursery() as daemons:
        for name in ("queen", "hive", "worker"):
            await daemons.ensure_running(named(name, None, trace.observe, stop_ladder=StopLadder()))

    stopped = [event.name for event in trace.events if event.kind == "stopped"]
    assert ["worker", "hive", "queen"] == stopped


@in_simulated_time
async def test_the_block_leaves_before_the_daemons_when_it_is_cancelled() -> None:
    simulated = SimulatedDaemon()
    seen = []

    with trio.move_on_after(1.0) as scope:
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(named("queen", simulated))
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(20.0, shield=True):
                    await trio.sleep(10.0)
                seen.append(simulated.alive)

    assert scope.cancelled_caught
    assert [1] == seen
    assert 0 == simulated.alive


@in_simulated_time
async def test_what_the_block_raises_is_the_same_object_outside() -> None:
    error, simulated = KeyError("mine"), SimulatedDaemon()

    with pytest.raises(KeyError) as caught:
        await own(named("queen", simulated), error=error)

    assert error is caught.value
    assert not hasattr(error, "__notes__")
    assert (error.__cause__, error.__context__) == (None, None)
    assert 0 == simulated.alive


@in_simulated_time
async def test_ctrl_c_in_the_block_is_raised_as_itself_when_all_are_gone() -> None:
    simulated = SimulatedDaemon()

    with pytest.raises(KeyboardInterrupt):
        await own(named("queen", simulated), error=KeyboardInterrupt())

    assert 0 == simulated.alive


@pytest.mark.fault(46)
@in_simulated_time
async def test_one_that_outlives_sigkill_keeps_no_other_from_being_stopped() -> None:
    stuck, other = SimulatedDaemon(unkillable=True), SimulatedDaemon()

    with pytest.raises(StopError) as caught:
        await own(named("other", other), named("stuck", stuck))

    assert "stuck" == caught.value.daemon
    assert 0 == other.alive


@pytest.mark.fault(46)
@in_simulated_time
async def test_several_that_outlive_sigkill_are_named_together() -> None:
    stuck = SimulatedDaemon(unkillable=True)
    began = trio.current_time()

    with pytest.RaisesGroup(StopError, StopError) as caught:
        await own(named("one", stuck), named("two", stuck))

    assert ["two", "one"] == [getattr(error, "daemon", "") for error in caught.value.exceptions]
    assert trio.current_time() - began <= 2 * 10.0 + 1.0 + 5.0


@pytest.mark.fault(46)
@in_simulated_time
async def test_an_error_of_the_block_bears_a_note_for_each_that_could_not_be_stopped() -> None:
    stuck = SimulatedDaemon(unkillable=True)

    with pytest.raises(KeyError) as caught:
        await own(named("one", stuck), named("two", stuck), error=KeyError())

    assert 2 == len(caught.value.__notes__)
    assert "outlived SIGKILL" in caught.value.__notes__[0]


@in_simulated_time
async def test_one_that_outlived_sigkill_is_not_started_twice() -> None:
    stuck = SimulatedDaemon(unkillable=True)
    lifecycle = named("stuck", stuck, stop_ladder=StopLadder())

    async def use() -> None:
        async with open_daemon_nursery() as daemons:
            await daemons.ensure_running(lifecycle)
            with pytest.raises(StopError):
                await daemons.stop("stuck")
            with pytest.raises(DaemonStateUnknownError):
                await daemons.ensure_running(lifecycle)

    with pytest.raises(StopError):
        await use()

    assert 1 == stuck.spawned


@in_simulated_time
async def test_one_that_outlived_sigkill_in_its_start_is_started_again_once_it_is_gone() -> None:
    stuck = SimulatedDaemon(unkillable=True, ready_after=inf)
    lifecycle = named("stuck", stuck, stop_ladder=StopLadder(), ready_timeout=1.0)

    async with open_daemon_nursery() as daemons:
        with pytest.raises(StopError):
            await daemons.ensure_running(lifecycle)
        with pytest.raises(DaemonStateUnknownError):
            await daemons.ensure_running(lifecycle)
        stuck.unkillable, stuck.ready_after = False, 0.0
        stuck.incarnations[0].signal(9)
        await daemons.ensure_running(lifecycle)
        assert 1 == stuck.alive

    assert 0 == stuck.alive


@in_simulated_time
async def test_a_daemon_that_ran_already_is_used_and_left_running() -> None:
    simulated, trace = SimulatedDaemon(), Trace()
    already = simulated.start()

    async with open_daemon_nursery() as daemons:
        daemon = await daemons.ensure_running(
            named("queen", simulated, trace.observe, free_port=False)
        )
        assert ("adopted", already.pid) == (daemon.origin, daemon.pid)

    assert 1 == simulated.alive
    assert ["starting", "adopted", "left"] == trace.kinds


@in_simulated_time
async def test_a_daemon_that_ran_already_is_stopped_when_that_is_asked_for() -> None:
    simulated = SimulatedDaemon()
    simulated.start()

    async with open_daemon_nursery() as daemons:
        lifecycle = named("queen", simulated, free_port=False)
        await daemons.ensure_running(lifecycle)
        await daemons.stop("queen")
        assert 0 == simulated.alive
        assert "spawned" == (await daemons.ensure_running(lifecycle)).origin

    assert 0 == simulated.alive


# --- who may ask, and when ---


@in_simulated_time
async def test_asked_after_its_block_was_left_it_says_so() -> None:
    async with open_daemon_nursery() as daemons:
        pass

    with pytest.raises(DaemonNotRunningError, match="is left"):
        await daemons.ensure_running(named("queen"))
    assert None is await daemons.stop("queen")


@in_simulated_time
async def test_asked_while_its_block_is_left_it_says_so() -> None:
    stubborn, slow = SimulatedDaemon(stops_after=5.0), SimulatedDaemon(ready_after=inf)
    refused = []

    async def ask(daemons: DaemonNursery, name: str, simulated: SimulatedDaemon) -> None:
        with pytest.raises(DaemonNotRunningError) as caught:
            await daemons.ensure_running(named(name, simulated))
        refused.append(caught.value.daemon)

    async with trio.open_nursery() as outside, open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("stubborn", stubborn))
        outside.start_soon(ask, daemons, "slow", slow)  # noqa: ASYNC111  # it is the point
        await trio.sleep(1.0)

        async def ask_late() -> None:
            await trio.sleep(2.0)
            await ask(daemons, "late", SimulatedDaemon())
            await ask(daemons, "stubborn", stubborn)

        outside.start_soon(ask_late)

    assert ["slow", "late", "stubborn"] == refused
    assert 0 == stubborn.alive + slow.alive


@in_simulated_time
async def test_only_a_lifecycle_can_be_started() -> None:
    async with open_daemon_nursery() as daemons:
        with pytest.raises(ConfigError, match="must be a DaemonLifecycle"):
            await daemons.ensure_running("queen")  # type: ignore[arg-type]


@in_simulated_time
async def test_another_run_is_refused() -> None:
    caught: list[BaseException] = []

    async def elsewhere(daemons: DaemonNursery) -> None:
        with pytest.raises(ConfigError, match=r"another trio\.run") as refusal:
            await daemons.ensure_running(named("queen"))
        caught.append(refusal.value)

    async with open_daemon_nursery() as daemons:
        thread = threading.Thread(target=trio.run, args=(elsewhere, daemons))
        thread.start()
        thread.join()

    assert 1 == len(caught)


# --- programs that are ended, tasks that crash ---


@pytest.mark.parametrize("kind", ["ready", "died", "stopping", "stopped"])
@in_simulated_time
async def test_an_observer_that_ends_the_program_leaves_nothing(kind: str) -> None:
    queen, hive = SimulatedDaemon(dies_after=3.0, lingers=1.0), SimulatedDaemon()

    def observe(event: Event) -> None:
        if event.kind == kind:
            raise SystemExit(3)

    with pytest.raises(SystemExit):
        await own(named("hive", hive), named("queen", queen, observe), lasts=10.0)

    assert 0 == queen.alive + hive.alive


class CrashingSpawner(SimulatedSpawner):
    """One whose task crashes while the daemon is up, as a plug-in's may."""

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Spawn as usual."""
        nursery.start_soon(self._crash)
        return await super().spawn(request, nursery)

    async def _crash(self) -> None:
        await trio.sleep(5.0)
        raise RuntimeError("a bug in the spawner")


@pytest.mark.parametrize("ready_after", [0.0, inf], ids=["when-up", "in-the-start"])
@in_simulated_time
async def test_a_task_of_a_spawner_that_crashes_ends_the_block_and_all_daemons(
    ready_after: float,
) -> None:
    hive, queen = SimulatedDaemon(), SimulatedDaemon(ready_after=ready_after)
    crashing = DaemonLifecycle(named("queen", queen).config, spawner=CrashingSpawner(queen))
    began = trio.current_time()

    with pytest.raises(RuntimeError, match="a bug in the spawner"):
        await own(named("hive", hive), crashing, lasts=1000.0)

    assert trio.current_time() - began < 100.0
    assert 0 == hive.alive + queen.alive
