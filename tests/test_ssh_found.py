"""Daemons that run on another machine already: found by their address, heard by their log."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.sshd import Server, sshd
from tests.support import free_port
from trio_lifecycle import (
    DaemonLifecycle,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    LogLine,
    Output,
    SQLiteRegistry,
)

__all__ = ["sshd"]

pytestmark = pytest.mark.needs("sshd")


SPEAKER = 'echo up; until [ -e "$1" ]; do sleep 0.05; done; echo one; echo two'


def service(port: int, program: str = "/usr/bin/python3") -> LifecycleConfig:
    """A service at a port that everybody knows."""
    return LifecycleConfig(
        program,
        args=["-m", "http.server", "--bind", "127.0.0.1", str(port)],
        ready_mode=HealthCheck(f"http://127.0.0.1:{port}/"),
        name="service",
    )


async def test_one_that_answers_there_and_runs_our_program_is_used_as_it_is(sshd: Server) -> None:
    lifecycle = DaemonLifecycle(service(free_port()), spawner=sshd.spawner())
    async with lifecycle.running() as daemon:
        async with lifecycle.running() as found:
            assert ("adopted", daemon.pid) == (found.origin, daemon.pid)
            assert "running" == await found.check()
            assert "" == found.output_tail
        assert "running" == await daemon.check()


async def test_somebody_else_who_answers_there_is_named(sshd: Server) -> None:
    port = free_port()
    lifecycle = DaemonLifecycle(service(port), spawner=sshd.spawner())
    async with lifecycle.running() as daemon:
        other = DaemonLifecycle(service(port, "perl"), spawner=sshd.spawner())
        with pytest.raises(ForeignDaemonError) as caught:
            async with other.running():
                raise AssertionError("a stranger was taken for the daemon")
        assert f"process {daemon.pid} (" in str(caught.value)
        assert "http.server" in str(caught.value)
        assert "127.0.0.1" in str(caught.value)


async def test_the_lines_of_one_that_stays_are_heard_until_its_end(
    sshd: Server, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    config = LifecycleConfig(
        "sh",
        args=[
            "-c",
            'echo up; until [ -e "$1" ]; do sleep 0.05; done; echo one; echo two',
            "sh",
            go,
        ],
        name="speaker",
        ready_mode=LogLine("up"),
        detach=True,
        output=Output(to=tmp_path / "log"),
    )
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        first = DaemonLifecycle(config, spawner=sshd.spawner(), registry=registry)
        await first.ensure_running()
        second = DaemonLifecycle(config, spawner=sshd.spawner(), registry=registry)
        daemon = await second.ensure_running()
        heard: list[str] = []
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                lines: Any = daemon.lines()

                async def hear() -> None:
                    heard.extend([line async for line in lines])

                nursery.start_soon(hear)
                while not lines._lines._begun:  # noqa: ASYNC110  # nobody tells
                    await trio.sleep(0.01)
                # The log is looked at from its end at that moment on.
                go.touch()
                assert await daemon.wait_exit() is None
        assert ["one", "two"] == heard
        assert "gone" == await daemon.check()
        await daemon.stop()
