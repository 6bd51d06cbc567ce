"""Many daemons on one machine whose server allows little: 10 sessions, and 10 newcomers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.cutting import There, family, lose, machine_there, there
from trio_lifecycle import (
    DaemonDiedError,
    DaemonHandle,
    DaemonLifecycle,
    DaemonStateUnknownError,
    Event,
    LifecycleConfig,
    LogLine,
    MemoryRegistry,
    Output,
    Spawned,
    SpawnError,
    open_daemon_nursery,
)

__all__ = ["there"]

pytestmark = pytest.mark.needs("sshd")

MANY = 30


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """One with the limits that OpenSSH has by default."""
    directory = tmp_path_factory.mktemp("there")
    with machine_there(directory, MaxSessions=10, MaxStartups="10:30:100") as found:
        yield found


def sleeper(number: int, **changes: object) -> LifecycleConfig:
    """Quick to start and to end."""
    words = {"args": ["-c", "echo up; exec sleep 1000"], **changes}
    return family(f"sleeper-{number}", **words)


@pytest.mark.fault(79)
async def test_thirty_of_one_nursery_are_up_at_once(there: There) -> None:
    spawner = there.spawner()
    handles: list[DaemonHandle] = []
    with trio.fail_after(40):
        async with open_daemon_nursery() as daemons, trio.open_nursery() as starts:

            async def start(number: int) -> None:
                lifecycle = DaemonLifecycle(sleeper(number), spawner=spawner)
                handles.append(await daemons.ensure_running(lifecycle))

            for number in range(MANY):
                starts.start_soon(start, number)
    assert MANY == len({handle.pid for handle in handles})
    assert [] == there.sleepers()


@pytest.mark.fault(79)
async def test_thirty_over_twelve_connections_are_up_and_one_that_is_refused_hurts_none(
    there: There,
) -> None:
    up, refused, over = 0, 0, trio.Event()

    async def own(number: int) -> None:
        nonlocal up, refused
        program = {"working_dir": "/no/such/place"} if number == 7 else {}
        # Twelve targets, and so as many connections.
        spawner = there.spawner(connect_timeout=20 + number % 12)
        try:
            async with DaemonLifecycle(sleeper(number, **program), spawner=spawner).running():
                up += 1
                if up == MANY - 1:
                    over.set()
                await over.wait()
        except SpawnError:
            refused += 1

    with trio.fail_after(40):
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                nursery.start_soon(own, number)
    assert (MANY - 1, 1) == (up, refused)
    assert [] == there.sleepers()


@pytest.mark.fault(79)
async def test_one_session_that_fails_leaves_the_others_alone(there: There) -> None:
    spawner = there.spawner(guarantee="scoped")
    with trio.fail_after(40):
        async with DaemonLifecycle(sleeper(1), spawner=spawner).running() as stays:
            before = set(there.living("sh -s"))
            with pytest.raises((DaemonDiedError, DaemonStateUnknownError)):
                await lose(
                    DaemonLifecycle(sleeper(2), spawner=spawner),
                    lambda _: there.kill(*set(there.living("sh -s")) - before),
                )
            assert "running" == await stays.check()
            assert [stays.pid] == there.sleepers()


async def test_starts_that_take_long_make_room_for_others(there: There, tmp_path: Path) -> None:
    """Nine that load for long would need more sessions than there are."""
    go = tmp_path / "go"

    async def ensure(registry: MemoryRegistry, number: int) -> None:
        config = LifecycleConfig(
            "sh",
            args=["-c", f"until [ -e {go} ]; do sleep 0.1; done; echo up; exec sleep 1000"],
            name=f"slow-{number}",
            ready_mode=LogLine("up"),
            detach=True,
            output=Output(to=tmp_path / f"{number}.log"),
        )
        lifecycle = DaemonLifecycle(
            config, spawner=there.spawner(), registry=registry, observer=note
        )
        daemon = await lifecycle.ensure_running()
        await daemon.kill()

    def note(event: Event) -> None:
        if isinstance(event, Spawned):
            spawned.append(event.name)
            if len(spawned) == 9:
                go.touch()

    spawned: list[str] = []
    registry = MemoryRegistry()
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for number in range(9):
                nursery.start_soon(ensure, registry, number)
    assert 9 == len(spawned)
