"""Programs that are killed while they have daemons on another machine, and several at once."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
import trio

from tests.cutting import (
    There,
    expect_what_is_recorded,
    machine,
    staying,
    there,
)
from trio_lifecycle import DaemonLifecycle, SQLiteRegistry

__all__ = ["machine", "there"]

pytestmark = pytest.mark.needs("sshd")

# As many as are killed while they start one: SSH_STARTS=200 takes some minutes.
STARTS = int(os.environ.get("SSH_STARTS", "20"))

# A start takes less than half a second on a machine that is not idle.
LONGEST_START_S = 1.0


def registry_at(directory: Path, name: str) -> SQLiteRegistry:
    return SQLiteRegistry(directory / name / "registry.sqlite")


@asynccontextmanager
async def program(there: There, *words: str) -> AsyncIterator[trio.Process]:
    """Run one; it is killed at the end, if it was not before."""
    server = there.server
    target = {
        "host": "127.0.0.1",
        "user": server.user,
        "port": server.port,
        "config": None,
        "agent": None,
        "client_keys": str(server.key),
        "host_key": server.host_key,
    }
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", "tests.ssh_programs", *words],
        stdout=subprocess.PIPE,
        env={**os.environ, "TARGET": json.dumps(target)},
    )
    try:
        yield process
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            assert process.stdout is not None
            await process.stdout.aclose()


async def first_line(process: trio.Process) -> str:
    assert process.stdout is not None
    text = b""
    while not text.endswith(b"\n"):
        data = await process.stdout.receive_some()
        assert data, f"it has ended: {text!r}"
        text += data
    return text.decode().strip()


@pytest.mark.fault(74)
async def test_all_that_a_killed_program_owned_is_gone_at_once(there: There) -> None:
    with trio.fail_after(40):
        async with program(there, "own") as owner:
            assert "up" == await first_line(owner)
            # Each with a child that has left its session and its parent.
            await there.wait_until(lambda: 4 == len(there.sleepers()))
            owner.send_signal(signal.SIGKILL)
            await owner.wait()
            await there.wait_until(lambda: not there.living(), 5)


async def test_what_was_to_stay_outlives_a_killed_program_and_is_found_by_the_next(
    there: There, tmp_path: Path
) -> None:
    with trio.fail_after(40), closing(registry_at(tmp_path, "stays")) as registry:
        async with program(there, "ensure", str(tmp_path), "stays") as starter:
            origin, pid = (await first_line(starter)).split()
            assert "spawned" == origin
        lifecycle = DaemonLifecycle(staying("stays"), spawner=there.spawner(), registry=registry)
        daemon = await lifecycle.ensure_running()
        assert ("adopted", int(pid)) == (daemon.origin, daemon.pid)
        await daemon.stop()


@pytest.mark.fault(73)
async def test_programs_killed_at_any_instant_of_a_start_leave_what_is_recorded(
    there: There, tmp_path: Path
) -> None:
    words = ("kill", str(tmp_path), str(STARTS), str(LONGEST_START_S))
    async with program(there, *words) as killer:
        assert 0 == await killer.wait()
    async with trio.open_nursery() as nursery:
        for number in range(STARTS):
            nursery.start_soon(expect_recorded, there, tmp_path, f"killed-{number}")


async def expect_recorded(there: There, directory: Path, name: str) -> None:
    with closing(registry_at(directory, name)) as registry:
        await expect_what_is_recorded(there, registry, staying(name))


async def test_two_programs_that_ensure_one_at_once_share_one(there: There, tmp_path: Path) -> None:
    words = ("ensure", str(tmp_path), "shared")
    with trio.fail_after(40):
        async with program(there, *words) as one, program(there, *words) as other:
            said = sorted([(await first_line(one)).split(), (await first_line(other)).split()])
    assert ["adopted", "spawned"] == [origin for origin, _ in said]
    assert 1 == len({pid for _, pid in said} | {str(pid) for pid in there.named("shared")})
    with closing(registry_at(tmp_path, "shared")) as registry:
        await expect_what_is_recorded(there, registry, staying("shared"))
