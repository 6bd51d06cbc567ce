"""Daemons that a shell alone owns: they end with their session, however it ends."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.sessions import LocalSession
from tests.test_launcher import each_shell, gone, session, sh, text_of
from trio_lifecycle import StopLadder
from trio_lifecycle._proc import read_stat
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle._ssh._launching import Launched, launch

# Says the numbers of three: itself, a child, and one that has left its session and its parent.
FAMILY = """
sleep 1000 & echo $!
(setsid sh -c 'echo $$; exec sleep 1000' &)
echo $$; exec sleep 1000
"""
STUBBORN = "trap '' TERM; echo $$; while :; do sleep 0.1; done"


@asynccontextmanager
async def owned(text: str, *command: str) -> AsyncIterator[tuple[LocalSession, Launched]]:
    async with session(*command) as there:
        env = {INSTANCE_VARIABLE: os.urandom(8).hex()}
        ladder = StopLadder((signal.SIGTERM, 0.3))
        more = {"owned": True, "heartbeat_limit_s": 2.0, "ladder": ladder, "env": env}
        launched = await launch(there, sh(text, **more))
        await launched.open_gate()
        yield there, launched


async def family(launched: Launched, number: int) -> list[int]:
    while len(found := text_of(launched).split()) < number:  # noqa: ASYNC110
        await trio.sleep(0.01)
    return [int(pid) for pid in found]


def living(pids: list[int]) -> list[int]:
    stats = [read_stat(pid) for pid in pids]
    return [stat.pid for stat in stats if stat is not None and stat.state != "Z"]


@each_shell
async def test_its_whole_tree_ends_with_its_session(command: tuple[str, ...]) -> None:
    async with owned(FAMILY, *command) as (_, launched):
        pids = await family(launched, 3)
        launched.close()
        await launched.wait_gone()
        assert living(pids) == []
        assert await launched.wait_end() == -signal.SIGTERM
        assert not Path(launched.log_file).parent.exists()


@pytest.mark.parametrize("whom", ["launcher", "session"])
async def test_its_whole_tree_ends_when_the_launcher_is_killed(whom: str) -> None:
    async with owned(FAMILY) as (there, launched):
        pids = await family(launched, 3)
        if whom == "launcher":
            there.process.kill()
        else:
            os.killpg(there.process.pid, signal.SIGKILL)
        await launched.wait_gone()
        assert living(pids) == []


@each_shell
async def test_what_does_not_heed_the_ladder_is_killed(command: tuple[str, ...]) -> None:
    async with owned(STUBBORN, *command) as (_, launched):
        await family(launched, 1)
        launched.close()
        await launched.wait_gone()
        assert await launched.wait_end() == -signal.SIGKILL


async def test_a_watchdog_that_was_killed_has_a_successor_by_the_next_heartbeat() -> None:
    async with owned(FAMILY) as (there, launched):
        pids = await family(launched, 3)
        while not (found := watchdogs()):  # noqa: ASYNC110 - it may be about to have its session
            await trio.sleep(0.01)
        (watchdog,) = found
        os.kill(watchdog, signal.SIGKILL)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(launched.beat_forever)
            while not set(watchdogs()) - {watchdog}:  # noqa: ASYNC110
                await trio.sleep(0.01)
            nursery.cancel_scope.cancel()
        there.process.kill()
        await launched.wait_gone()
        assert living(pids) == []


def watchdogs() -> list[int]:
    """The first of those that this test has started; its clock is its child."""
    found = [path for path in Path("/proc").glob("[0-9]*") if _is_watchdog(path)]
    stats = [read_stat(int(path.name)) for path in found]
    return [stat.pid for stat in stats if stat is not None and stat.session == stat.pid]


def _is_watchdog(path: Path) -> bool:
    mark = os.environ["TRIO_LIFECYCLE_TEST"].encode()
    try:
        named = b"trio_lifecycle watchdog" in (path / "cmdline").read_bytes()
        return named and mark in (path / "environ").read_bytes()
    except OSError:
        return False


@pytest.mark.slow
async def test_it_ends_when_its_owner_falls_silent_and_not_before() -> None:
    async with owned(FAMILY) as (there, launched):
        pids = await family(launched, 3)
        with trio.move_on_after(3.5):
            await launched.beat_forever()
        assert sorted(living(pids)) == sorted(pids)
        silent_at = trio.current_time()
        await launched.wait_gone()
        assert living(pids) == []
        assert 1 < trio.current_time() - silent_at < 20
        await there.wait_end()


async def test_one_that_is_owned_and_stands_at_its_gate_ends_with_its_session() -> None:
    async with session() as there:
        launched = await launch(there, sh("true", owned=True))
        launched.close()
        await launched.wait_gone()
        await gone(launched.pid, launched.start_time)
        assert not Path(launched.log_file).parent.exists()


async def test_one_that_is_owned_ends_by_itself_and_its_log_can_be_read_until_the_session_ends(
    tmp_path: Path,
) -> None:
    async with owned("echo last words; exit 4") as (_, launched):
        assert await launched.wait_end() == 4
        assert text_of(launched) == "last words\n"
