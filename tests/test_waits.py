"""A start that asks for itself, by whatever way round, is told so at once instead of hanging."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from tests.simulated import in_simulated_time
from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
    Event,
    PreflightError,
    open_daemon_nursery,
)
from trio_lifecycle.testing import SimulatedDaemon

Ensure = Callable[[DaemonLifecycle], Awaitable[DaemonHandle]]


def circle(size: int, ensure: Ensure) -> list[DaemonLifecycle]:
    """Daemons each of which, before it is started, asks for the next one."""
    lifecycles: list[DaemonLifecycle] = []

    def make(number: int) -> DaemonLifecycle:
        async def ask_for_the_next() -> None:
            await trio.sleep(1.0)
            await ensure(lifecycles[(number + 1) % size])

        options: dict[str, Any] = {
            "name": f"daemon-{number}",
            "detach": True,
            "preflight": [ask_for_the_next],
        }
        return SimulatedDaemon().lifecycle(**options)

    lifecycles += map(make, range(size))
    return lifecycles


async def alone(lifecycle: DaemonLifecycle) -> DaemonHandle:
    """Have it up, owned by nobody."""
    return await lifecycle.ensure_running()


async def is_refused(ensure: Ensure, lifecycle: DaemonLifecycle) -> None:
    """It says that it can't be, and soon."""
    with trio.fail_after(60.0), pytest.raises(PreflightError, match="waits for it in turn"):
        await ensure(lifecycle)


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("entries", [1, 2])
@in_simulated_time
async def test_who_asks_for_itself_within_its_start_is_told_so(size: int, entries: int) -> None:
    lifecycles = circle(size, alone)
    async with trio.open_nursery() as nursery:
        # Asked for in two places at once, no start is begun within another.
        for lifecycle in lifecycles[:entries]:
            nursery.start_soon(is_refused, alone, lifecycle)


@pytest.mark.parametrize("size", [1, 2])
@in_simulated_time
async def test_a_daemon_nursery_says_so_too(size: int) -> None:
    async with open_daemon_nursery() as daemons:
        first, *_ = circle(size, daemons.ensure_running)
        await is_refused(daemons.ensure_running, first)
        assert [] == list(daemons)


@in_simulated_time
async def test_a_start_may_ask_for_others_that_are_being_started_by_somebody_else() -> None:
    # Recorded in memory: a registry on disk works in a thread, and simulated time jumps over that.
    base = SimulatedDaemon(ready_after=5.0).lifecycle(name="base", detach=True)
    daemon = SimulatedDaemon()
    needs_it = daemon.lifecycle(detach=True, preflight=[base.ensure_running])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(base.ensure_running)
        nursery.start_soon(needs_it.ensure_running)
    assert 1 == daemon.alive


@in_simulated_time
async def test_a_task_that_an_observer_starts_is_not_part_of_the_start() -> None:
    got = []

    async def ask() -> None:
        got.append(await lifecycle.ensure_running())

    def observe(event: Event) -> None:
        if event.kind == "spawned":
            nursery.start_soon(ask)

    lifecycle = SimulatedDaemon(ready_after=1.0).lifecycle(detach=True, observer=observe)
    async with trio.open_nursery() as nursery:
        got.append(await lifecycle.ensure_running())
    assert 2 == len(got)
    assert got[0] is got[1]
