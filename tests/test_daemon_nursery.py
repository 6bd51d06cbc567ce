"""What a daemon nursery promises while it is open: each daemon once, and shared starts."""

from math import inf

import pytest
import trio
from attrs import evolve

from tests.households import named, names
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    ConfigChangedError,
    DaemonHandle,
    DaemonLifecycle,
    DiedBeforeReadyError,
    LifecycleError,
)
from trio_lifecycle._config import OnChange
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner

# --- one start ---


@in_simulated_time
async def test_a_daemon_is_up_in_the_block_and_gone_afterwards() -> None:
    simulated = SimulatedDaemon(ready_after=2.0)

    async with open_daemon_nursery() as daemons:
        daemon = await daemons.ensure_running(named("queen", simulated))
        assert "spawned" == daemon.origin
        assert 1 == simulated.alive

    assert 0 == simulated.alive
    assert -15 == await daemon.wait_exit()


@in_simulated_time
async def test_asked_again_it_gives_the_one_that_runs() -> None:
    simulated = SimulatedDaemon()

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(named("queen", simulated))
        assert first is await daemons.ensure_running(named("queen", simulated))

    assert 1 == simulated.spawned


@in_simulated_time
async def test_it_owns_a_detached_daemon_too() -> None:
    simulated = SimulatedDaemon()

    async with open_daemon_nursery() as daemons:
        await daemons.ensure_running(named("queen", simulated, detach=True))

    assert 0 == simulated.alive


@pytest.mark.fault(57)
@in_simulated_time
async def test_two_hundred_who_ask_at_once_get_one_daemon_in_the_time_of_one() -> None:
    simulated = SimulatedDaemon(ready_after=3.0, spawn_after=1.0)
    got: set[DaemonHandle] = set()

    async with open_daemon_nursery() as daemons:
        lifecycle = named("queen", simulated)

        async def ask() -> None:
            got.add(await daemons.ensure_running(lifecycle))

        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert trio.current_time() - began < 4.5

    assert 1 == len(got)
    assert 1 == simulated.spawned


@pytest.mark.fault(57)
@in_simulated_time
async def test_the_first_who_asked_is_cancelled_and_the_others_get_it_all_the_same() -> None:
    simulated = SimulatedDaemon(ready_after=5.0)
    lifecycle = named("queen", simulated)

    async def ask_impatiently(daemons: DaemonNursery) -> None:
        with trio.move_on_after(1.0) as scope:
            await daemons.ensure_running(lifecycle)
        assert scope.cancelled_caught

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        nursery.start_soon(ask_impatiently, daemons)
        await trio.sleep(0.5)
        daemon = await daemons.ensure_running(lifecycle)
        assert [daemon] == list(daemons)

    assert 1 == simulated.spawned


@in_simulated_time
async def test_the_last_who_waits_gives_the_start_up_and_returns_when_nothing_is_left() -> None:
    simulated = SimulatedDaemon(ready_after=inf, stops_after=3.0)
    lifecycle = named("queen", simulated)

    async def ask(patience: float) -> None:
        with trio.move_on_after(patience):
            await daemons.ensure_running(lifecycle)

    async with open_daemon_nursery() as daemons:
        began = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 1.0)
            nursery.start_soon(ask, 2.0)
        assert 5.0 == pytest.approx(trio.current_time() - began)
        assert 0 == simulated.alive
        simulated.ready_after = 0.0
        await daemons.ensure_running(lifecycle)

    assert 2 == simulated.spawned


@in_simulated_time
async def test_a_failure_goes_to_those_who_wait_and_each_has_an_error_of_its_own() -> None:
    failing = SimulatedDaemon(ready_after=inf, dies_after=1.0, writes=b"no disk")
    healthy = SimulatedDaemon(ready_after=2.0)
    lifecycle = named("broken", failing)
    errors: list[LifecycleError] = []

    async def ask(daemons: DaemonNursery) -> None:
        try:
            await daemons.ensure_running(lifecycle)
        except DiedBeforeReadyError as error:
            errors.append(error)

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask, daemons)
        await daemons.ensure_running(named("queen", healthy))
        assert ["queen"] == names(daemons)
        assert 3 == len({id(error) for error in errors})
        assert {"no disk"} == {getattr(error, "output_tail", None) for error in errors}
        assert len({str(error) for error in errors}) == 1
        lengths = {depth(error) for error in errors}
        assert 1 == len(lengths)

    assert 1 == failing.spawned


def depth(error: BaseException) -> int:
    """How long a traceback is."""
    length, traceback = 0, error.__traceback__
    while traceback is not None:
        length, traceback = length + 1, traceback.tb_next
    return length


@in_simulated_time
async def test_an_error_that_cannot_be_copied_reaches_all_who_wait() -> None:
    class OddError(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__("odd")

    simulated = SimulatedDaemon()
    lifecycle = named("queen", simulated)
    odd = OddError(1, 2)

    async def spawn(*_: object) -> None:
        await trio.lowlevel.checkpoint()
        raise odd

    lifecycle._by.spawner.spawn = spawn  # type: ignore[method-assign,assignment]

    async def ask(daemons: DaemonNursery) -> None:
        with pytest.raises(OddError):
            await daemons.ensure_running(lifecycle)

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        nursery.start_soon(ask, daemons)
        nursery.start_soon(ask, daemons)


# --- another configuration ---


@in_simulated_time
async def test_one_of_another_configuration_is_kept_and_an_event_says_so() -> None:
    simulated, trace = SimulatedDaemon(), Trace()

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(named("queen", simulated))
        other = named("queen", simulated, trace.observe, env={"NEW": "1"})
        assert first is await daemons.ensure_running(other)

    assert ["config_changed"] == trace.kinds
    event = trace.events[0]
    assert (first.pid, ("env",), "keep") == (event.pid, event.fields, event.action)
    assert first.instance_id == event.instance_id


@in_simulated_time
async def test_one_of_another_configuration_is_restarted_where_that_is_wanted() -> None:
    simulated, trace = SimulatedDaemon(stops_after=1.0), Trace()

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(named("queen", simulated))
        other = named("queen", simulated, trace.observe, env={"NEW": "1"}, on_change="restart")
        second = await daemons.ensure_running(other)
        assert first.instance_id != second.instance_id
        assert second is await daemons.ensure_running(other)

    assert ["config_changed", "starting"] == trace.kinds[:2]
    assert simulated.incarnations[0].goes <= simulated.incarnations[1].born


@in_simulated_time
async def test_one_of_another_configuration_is_left_alone_where_that_is_an_error() -> None:
    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(named("queen"))
        with pytest.raises(ConfigChangedError) as caught:
            await daemons.ensure_running(named("queen", env={"NEW": "1"}, on_change="error"))
        assert (first.pid, ("env",)) == (caught.value.pid, caught.value.fields)
        assert ["queen"] == names(daemons)


@in_simulated_time
async def test_the_failure_of_another_configuration_is_not_shared() -> None:
    failing = SimulatedDaemon(ready_after=inf, dies_after=2.0)

    async def ask(daemons: DaemonNursery) -> None:
        with pytest.raises(DiedBeforeReadyError):
            await daemons.ensure_running(named("queen", failing))

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        nursery.start_soon(ask, daemons)
        await trio.sleep(1.0)
        daemon = await daemons.ensure_running(named("queen", env={"NEW": "1"}))
        assert [daemon] == list(daemons)


@in_simulated_time
async def test_one_that_was_found_running_is_compared_with_what_it_was_started_with() -> None:
    simulated = SimulatedDaemon()

    def wanted(value: str, on_change: OnChange = "keep") -> DaemonLifecycle:
        config = simulated.lifecycle(detach=True, on_change=on_change).config
        return DaemonLifecycle(
            evolve(config, env={"VALUE": value}),
            spawner=SimulatedSpawner(simulated),
            registry=simulated.registry,
        )

    before = await wanted("its own").ensure_running()
    async with open_daemon_nursery() as daemons:
        found = await daemons.ensure_running(wanted("another"))
        assert before.instance_id == found.instance_id
        with pytest.raises(ConfigChangedError):
            await daemons.ensure_running(wanted("another", "error"))
        assert found is await daemons.ensure_running(wanted("its own", "error"))
        assert found is await daemons.ensure_running(wanted("its own", "restart"))
    assert 1 == simulated.spawned
