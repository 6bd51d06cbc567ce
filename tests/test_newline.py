"""Ready by a newline on a descriptor: what counts, and what its end means."""

import os
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import trio

from tests.support import PATIENCE_S, shell_daemon
from trio_lifecycle import (
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    LifecycleConfig,
    LocalSpawner,
    NewlineOnFD,
    ReadyError,
    ReadyTimeoutError,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle.abc import Prober, Process, Report, Start
from trio_lifecycle.ready._newline import ArmedNewline

NOBODY = cast("Process", None)

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])

# --- the mode -------------------------------------------------------------------------------------


def test_it_is_a_value_that_prints_what_was_written() -> None:
    mode = NewlineOnFD(3)
    assert ("NewlineOnFD(fd=3)", frozenset({"fd 3"})) == (repr(mode), mode.channels)
    assert mode == pickle.loads(pickle.dumps(mode)) != NewlineOnFD(4)


@pytest.mark.parametrize("fd", [-1, 0, 1, 2, 250, 10**9, "3", 3.0, True, None])
def test_what_is_no_descriptor_for_it_is_refused(fd: Any) -> None:
    with pytest.raises(ConfigError, match=r"^fd: must be"):
        NewlineOnFD(fd)


# --- the pipe -------------------------------------------------------------------------------------


@asynccontextmanager
async def armed_for(port: int | None = None) -> AsyncIterator[tuple[ArmedNewline, int]]:
    """A mode at work, and the daemon's end of its pipe, which is to be closed."""
    start = Start(name="queen", instance_id="7f", port=port, prober=cast("Prober", None))
    armed = await NewlineOnFD(5).arm(start)
    try:
        daemons_end = os.dup(armed.descriptors[5])
        armed.begin(NOBODY)
        yield armed, daemons_end
    finally:
        with trio.fail_after(PATIENCE_S, shield=True):
            await armed.disarm()
            await armed.disarm()


@pytest.mark.parametrize("text", [b"\n", b"1\n", b"\0" * 65_000 + b"\n", b"\n\n\nmore"])
async def test_a_newline_counts_whatever_comes_before_it(text: bytes) -> None:
    async with armed_for(port=81) as (armed, daemons_end):
        os.write(daemons_end, text)
        os.close(daemons_end)
        assert Report(None, 81) == await armed.wait(NOBODY) == await armed.ask(NOBODY)


async def test_what_is_no_newline_is_not_kept_however_much_it_is() -> None:
    async with armed_for() as (armed, daemons_end):
        os.set_blocking(daemons_end, False)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(armed.wait, NOBODY)
            for _ in range(50):
                os.write(daemons_end, b"x" * 65_536)
                with trio.fail_after(PATIENCE_S):
                    await trio.lowlevel.wait_writable(daemons_end)
            assert "it has written no newline to descriptor 5" == armed.last_seen
            os.write(daemons_end, b"\n")
        os.close(daemons_end)


async def test_a_last_look_finds_what_nobody_has_waited_for() -> None:
    async with armed_for() as (armed, daemons_end):
        assert await armed.ask(NOBODY) is None
        assert "it has written nothing to descriptor 5" == armed.last_seen
        assert "its newline on descriptor 5" == armed.awaited
        os.write(daemons_end, b"x")
        os.write(daemons_end, b"\n")
        assert Report() == await armed.ask(NOBODY)
        os.close(daemons_end)
    assert Report() == await armed.ask(NOBODY)


@pytest.mark.fault(29)
async def test_an_end_without_a_newline_is_an_error(autojump_clock: trio.testing.MockClock) -> None:
    async with armed_for() as (armed, daemons_end):
        os.write(daemons_end, b"x")
        os.close(daemons_end)
        with pytest.raises(ReadyError, match="no newline to descriptor 5, and has closed it"):
            await armed.wait(NOBODY)
        assert await armed.ask(NOBODY) is None


async def test_one_that_was_never_spawned_leaves_nothing() -> None:
    before = os.listdir("/proc/self/fd")  # noqa: PTH208 - a Path would keep it open longer
    start = Start(name="queen", instance_id="7f", port=None, prober=cast("Prober", None))
    armed = await NewlineOnFD(3).arm(start)
    await armed.disarm()
    assert await armed.ask(NOBODY) is None
    assert before == os.listdir("/proc/self/fd")  # noqa: PTH208


async def test_where_no_descriptor_is_left_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe2(flags: int) -> tuple[int, int]:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(os, "pipe2", pipe2)
    start = Start(name="queen", instance_id="7f", port=None, prober=cast("Prober", None))
    with pytest.raises(ReadyError, match="can't be made: Too many open files"):
        await NewlineOnFD(3).arm(start)


# --- real daemons ---------------------------------------------------------------------------------


def daemon(script: str, fd: int = 3, **changes: Any) -> LifecycleConfig:
    return shell_daemon(script, ready_mode=NewlineOnFD(fd), **changes)


@pytest.mark.parametrize("fd", [3, 9])
@each_guarantee
async def test_a_daemon_finds_the_descriptor(guarantee: Guarantee, fd: int) -> None:
    config = daemon(f"echo {FREE_PORT} >&{fd}; exec sleep 1000", fd)
    async with DaemonLifecycle(config, spawner=LocalSpawner(guarantee)).running() as running:
        assert int(running.port or 0) > 0
        assert "running" == await running.check()


@pytest.mark.fault(29)
@each_guarantee
async def test_one_that_closes_it_can_not_become_ready(guarantee: Guarantee) -> None:
    lifecycle = DaemonLifecycle(daemon("exec sleep 1000 3>&-"), spawner=LocalSpawner(guarantee))
    with trio.fail_after(PATIENCE_S):
        with pytest.raises(ReadyError, match="it has written nothing to descriptor 3, and has"):
            async with lifecycle.running():
                raise AssertionError("it is not ready")


@pytest.mark.fault(15)
async def test_one_that_ends_has_died() -> None:
    for _ in range(5):
        with pytest.raises(DiedBeforeReadyError, match="exited with status 3"):
            async with DaemonLifecycle(daemon("exit 3")).running():
                raise AssertionError("it is not ready")


@pytest.mark.fault(16)
async def test_one_that_writes_nothing_is_late() -> None:
    config = daemon("exec sleep 1000", ready_timeout=0.2)
    with pytest.raises(ReadyTimeoutError, match="it has written nothing to descriptor 3"):
        async with DaemonLifecycle(config).running():
            raise AssertionError("it is not ready")


async def test_one_that_is_left_running_finds_it_behind_its_gate() -> None:
    for script in ("echo >&3; exec sleep 1000", "sleep 0.01; echo >&3; exec sleep 1000 3>&-"):
        left = await DaemonLifecycle(daemon(script, detach=True)).ensure_running()
        await left.stop()
    with pytest.raises(ReadyError, match="has closed it"):
        await DaemonLifecycle(daemon("exec sleep 9 3>&-", detach=True)).ensure_running()
