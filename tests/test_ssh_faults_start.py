"""Starts on another machine whose connection is cut, or that are given up, at every instant."""

import os
from collections.abc import Awaitable, Callable, Iterable
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
import trio

from tests.cutting import There, expect_what_is_recorded, family, machine, staying, there, wire_to
from trio_lifecycle import (
    DaemonLifecycle,
    DaemonStateUnknownError,
    SQLiteRegistry,
    SSHConnectError,
)

__all__ = ["machine", "there"]

pytestmark = pytest.mark.needs("sshd")

# As many as that are given up at random: SSH_STARTS=200 takes some minutes.
STARTS = int(os.environ.get("SSH_STARTS", "20"))

# The first pieces are those of a login, which has tests of its own.
LOGIN = 8

AT_ONCE = 4


# --- the connection is cut ------------------------------------------------------------------------


@pytest.mark.fault(73, 74)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_cut_in_any_phase_is_told_and_leaves_nothing(there: There, guarantee: str) -> None:
    async def start(cut_after: int) -> tuple[str, int]:
        async with wire_to(there, cut_after) as wire:
            spawner = there.spawner(wire, guarantee=guarantee)
            with trio.fail_after(30):
                return await outcome_of(DaemonLifecycle(family(), spawner=spawner)), wire.sent

    _, pieces = await start(10_000)
    told: list[str] = []

    async def start_and_tell(cut_after: int) -> None:
        told.append((await start(cut_after))[0])

    await all_of(start_and_tell, [2, *range(LOGIN, pieces + 1, 2)])
    await there.wait_until(lambda: not there.sleepers(), 10)
    # Cut off while it is up it is unknown; no piece may pass at that moment.
    assert {"up", "SSHConnectError"} == set(told) - {"DaemonStateUnknownError"}


async def outcome_of(lifecycle: DaemonLifecycle) -> str:
    try:
        async with lifecycle.running():
            pass
    except (DaemonStateUnknownError, SSHConnectError) as error:
        return type(error).__name__
    return "up"


@pytest.mark.fault(73)
async def test_a_cut_in_any_phase_of_a_start_that_is_to_stay_leaves_what_is_recorded(
    there: There, tmp_path: Path
) -> None:
    async def start(cut_after: int) -> int:
        config = staying(f"cut-{cut_after}")
        with closing(SQLiteRegistry(tmp_path / config.name / "registry.sqlite")) as registry:
            async with wire_to(there, cut_after) as wire:
                lifecycle = DaemonLifecycle(config, spawner=there.spawner(wire), registry=registry)
                try:
                    with trio.fail_after(30):
                        await lifecycle.ensure_running()
                except (DaemonStateUnknownError, SSHConnectError):
                    assert wire.is_cut
                await expect_what_is_recorded(there, registry, config)
                return wire.sent

    pieces = await start(10_000)
    await all_of(start, [2, *range(LOGIN, pieces + 1, 2)])


# --- the start is given up ------------------------------------------------------------------------


@pytest.mark.fault(73)
async def test_starts_given_up_at_any_instant_leave_nothing(there: There) -> None:
    random = Random(5)
    spawners = [there.spawner(guarantee=guarantee) for guarantee in ("guarded", "scoped")]
    seconds = await seconds_of(DaemonLifecycle(family(), spawner=spawners[1]))
    ends: list[bool] = []

    async def start(number: int) -> None:
        with trio.move_on_after(random.uniform(0, 1.2 * seconds)) as scope:
            lifecycle = DaemonLifecycle(family(f"f-{number}"), spawner=spawners[number % 2])
            async with lifecycle.running():
                await trio.sleep_forever()
        ends.append(scope.cancelled_caught)

    await all_of(start, range(STARTS))
    assert [True] * STARTS == ends
    await there.wait_until(lambda: not there.sleepers(), 10)


async def seconds_of(lifecycle: DaemonLifecycle) -> float:
    began = trio.current_time()
    async with lifecycle.running():
        pass
    return trio.current_time() - began


@pytest.mark.fault(73)
async def test_starts_of_what_is_to_stay_given_up_at_any_instant_leave_what_is_recorded(
    there: There, tmp_path: Path
) -> None:
    random = Random(7)
    spawner = there.spawner()
    seconds = await seconds_of(DaemonLifecycle(family(), spawner=spawner))

    async def start(number: int) -> None:
        config = staying(f"given-up-{number}")
        with closing(SQLiteRegistry(tmp_path / config.name / "registry.sqlite")) as registry:
            lifecycle = DaemonLifecycle(config, spawner=spawner, registry=registry)
            with trio.move_on_after(random.uniform(0, 1.2 * seconds)):
                await lifecycle.ensure_running()
            await expect_what_is_recorded(there, registry, config)

    await all_of(start, range(STARTS))


async def all_of(start: Callable[[int], Awaitable[object]], numbers: Iterable[int]) -> None:
    limit = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int) -> None:
        async with limit:
            await start(number)

    async with trio.open_nursery() as nursery:
        for number in numbers:
            nursery.start_soon(one, number)
