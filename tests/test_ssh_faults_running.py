"""Daemons on another machine that lose the connection, the guard or the launcher."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import trio

from tests.cutting import (
    QUICK,
    There,
    Wire,
    command,
    family,
    lose,
    machine,
    staying,
    there,
    wire_to,
)
from tests.trace import Trace
from trio_lifecycle import (
    DaemonDiedError,
    DaemonHandle,
    DaemonLifecycle,
    DaemonStateUnknownError,
    ReaperLostError,
    SQLiteRegistry,
    SSHConnectError,
    StopLadder,
)
from trio_lifecycle._proc import read_stat

__all__ = ["machine", "there"]

pytestmark = pytest.mark.needs("sshd")

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])


# --- the connection is lost -----------------------------------------------------------------------


@pytest.mark.fault(74)
@each_guarantee
async def test_a_block_ends_when_its_connection_is_killed_and_its_daemon_is_gone(
    there: There, guarantee: str
) -> None:
    trace = Trace()
    spawner = there.spawner(guarantee=guarantee)
    lifecycle = DaemonLifecycle(family(), spawner=spawner, observer=trace.observe)
    handles: list[DaemonHandle] = []

    def strike(daemon: DaemonHandle) -> None:
        handles.append(daemon)
        there.kill(*there.connections())

    with trio.fail_after(20), pytest.raises(DaemonStateUnknownError) as caught:
        await lose(lifecycle, strike)
    assert ["It came into sight again, and is gone."] == caught.value.__notes__
    assert ["unseen", "stopped"] == [kind for kind in trace.kinds if kind != "stopping"][-2:]
    assert [] == there.sleepers()
    assert "gone" == await handles[0].check()


@pytest.mark.fault(74)
@each_guarantee
async def test_a_stop_whose_connection_is_cut_sees_the_end_over_another(
    there: There, guarantee: str
) -> None:
    stubborn = family(
        args=["-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
        stop_ladder=StopLadder((signal.SIGTERM, 1.0)),
    )
    async with wire_to(there) as wire, trio.open_nursery() as nursery:

        def cut(event: object) -> None:
            if getattr(event, "kind", "") == "stopping":
                nursery.start_soon(cut_soon)

        async def cut_soon() -> None:
            await trio.sleep(0.2)
            wire.cut()

        spawner = there.spawner(wire, guarantee=guarantee)
        lifecycle = DaemonLifecycle(stubborn, spawner=spawner, observer=cut)
        with trio.fail_after(20):
            async with lifecycle.running() as daemon:
                pass
        assert wire.is_cut
        assert "gone" == await daemon.check()


@pytest.mark.fault(74)
@pytest.mark.parametrize(("what", "guarantee"), [("wire", "guarded"), ("server", "scoped")])
async def test_a_silent_machine_is_given_up_in_time_and_no_copy_comes_of_it(
    there: There, what: str, guarantee: str
) -> None:
    async with wire_to(there) as wire:
        spawner = there.spawner(wire, guarantee=guarantee, **QUICK)
        lifecycle = DaemonLifecycle(family(), spawner=spawner)
        with trio.fail_after(20), pytest.raises(DaemonStateUnknownError):
            await live_through_silence(lifecycle, there, wire if what == "wire" else None)
        async with lifecycle.running():
            await there.wait_until(lambda: 2 == len(there.sleepers()))


async def live_through_silence(lifecycle: DaemonLifecycle, there: There, wire: Wire | None) -> None:
    """Own a daemon whose machine falls silent; it speaks again when the daemon is gone."""
    async with lifecycle.running():
        stopped = there.connections() if wire is None else []
        there.kill(*stopped, signum=signal.SIGSTOP)
        if wire is not None:
            wire.fall_silent()
        try:
            # 0.6 s are the limit, on a machine that has nothing else to do.
            await trio.sleep(9)
            raise AssertionError("the silence was not noticed")
        finally:
            with trio.CancelScope(shield=True):
                # Nobody can ask for it from here: the other side ends it by itself.
                await there.wait_until(lambda: not there.sleepers(), 10)
            there.kill(*stopped, signum=signal.SIGCONT)
            if wire is not None:
                wire.go_on()


@pytest.mark.fault(78)
async def test_a_machine_that_hangs_is_told_in_time_and_its_daemon_is_found_afterwards(
    there: There, tmp_path: Path
) -> None:
    config = staying("hangs")
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        spawner = there.spawner(connect_timeout=1.0, **QUICK)
        daemon = await DaemonLifecycle(config, spawner=spawner, registry=registry).ensure_running()
        other = DaemonLifecycle(config, spawner=spawner, registry=registry)
        with frozen(there), trio.fail_after(10):
            with pytest.raises((DaemonStateUnknownError, SSHConnectError)):
                await other.ensure_running()
            assert "unknown" == await daemon.check()
        assert {daemon.pid} == there.named("hangs")
        assert "running" == await daemon.check()
        found = await other.ensure_running()
        assert daemon.pid == found.pid
        await found.stop()


@contextmanager
def frozen(there: There) -> Iterator[None]:
    """Stop the server: those who serve connections, and who takes new ones."""
    stopped = [*there.connections(), there.server.pid]
    there.kill(*stopped, signum=signal.SIGSTOP)
    try:
        yield
    finally:
        there.kill(*stopped, signum=signal.SIGCONT)


@pytest.mark.fault(74)
async def test_a_daemon_that_stays_is_checked_and_stopped_over_new_connections(
    there: There, tmp_path: Path
) -> None:
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(staying("cut"), spawner=there.spawner(), registry=registry)
        daemon = await lifecycle.ensure_running()
        there.kill(*there.connections())
        assert "running" == await daemon.check()
        there.kill(*there.connections())
        assert daemon is await lifecycle.ensure_running()
        there.kill(*there.connections())
        await daemon.stop()
        assert "gone" == await daemon.check()
        assert [] == await registry.daemons()


# --- its guard or its launcher is lost ------------------------------------------------------------


@pytest.mark.parametrize(
    "whom", [["inner"], ["outer"], ["inner", "outer"]], ids=["inner", "outer", "both"]
)
async def test_a_guard_that_is_killed_takes_its_daemons_along_and_has_a_successor(
    there: There, whom: list[str]
) -> None:
    lifecycle = DaemonLifecycle(family(), spawner=there.spawner())

    def strike(_: DaemonHandle) -> None:
        outer, inner = sorted(there.living("guard-"))
        there.kill(*({"inner": inner, "outer": outer}[which] for which in whom))

    with trio.fail_after(20), pytest.raises(ReaperLostError):
        await lose(lifecycle, strike)
    await there.wait_until(lambda: not there.sleepers(), 5)
    async with lifecycle.running() as daemon:
        assert "running" == await daemon.check()


async def test_a_killed_launcher_takes_its_daemon_along(there: There) -> None:
    lifecycle = DaemonLifecycle(family(), spawner=there.spawner(guarantee="scoped"))
    with trio.fail_after(20), pytest.raises((DaemonStateUnknownError, DaemonDiedError)):
        await lose(lifecycle, lambda _: there.kill(launcher(there)))
    assert [] == there.sleepers()
    async with lifecycle.running() as daemon:
        assert "running" == await daemon.check()


async def test_a_daemon_whose_launcher_can_not_say_how_it_ends_is_stopped_all_the_same(
    there: There,
) -> None:
    lifecycle = DaemonLifecycle(family(), spawner=there.spawner(guarantee="scoped"))
    with trio.fail_after(20):
        async with lifecycle.running() as daemon:
            waiters = [pid for pid in there.living("sh -s") if pid not in sessions(there)]
            there.kill(*waiters)
            assert "running" == await daemon.check()
        assert "gone" == await daemon.check()
    assert [] == there.sleepers()


def launcher(there: There) -> int:
    """The shell that hears the session; the other one that hears one is the line's, and older."""
    return max(sessions(there))


def sessions(there: There) -> list[int]:
    """The shells that are children of sshd."""
    return [pid for pid in there.living("sh -s") if command(parent_of(pid)).startswith("sshd")]


def parent_of(pid: int) -> int:
    stat = read_stat(pid)
    return 0 if stat is None else stat.ppid


async def test_a_line_that_is_killed_is_made_anew(there: There) -> None:
    async with DaemonLifecycle(family(), spawner=there.spawner()).running() as daemon:
        there.kill(*there.living("sh -s"))
        assert daemon.pid is not None
        assert "running" == await daemon.check()
        assert "/usr/bin/sh" == await there.spawner().find_binary("sh", ())
