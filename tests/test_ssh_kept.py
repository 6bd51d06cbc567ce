"""What is kept for daemons on another machine: sessions, forwards, and for how long."""

import os
import resource
from contextlib import closing
from pathlib import Path

import pytest
import trio

from tests.sshd import Server, sshd
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    DaemonStateUnknownError,
    LifecycleConfig,
    LogLine,
    Manual,
    Output,
    SQLiteRegistry,
    SSHConnectError,
    TCPPort,
    open_daemon_nursery,
)
from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh._connections import connection
from trio_lifecycle._ssh._launching import Launched
from trio_lifecycle._ssh._machine import machine
from trio_lifecycle._ssh._order import Order
from trio_lifecycle._ssh._session import LostError, Session
from trio_lifecycle.abc import Report
from trio_lifecycle.spawner._launched_process import LaunchedProcess
from trio_lifecycle.spawner._remote_log import RemoteLog
from trio_lifecycle.spawner._unseen_process import UnseenProcess

__all__ = ["sshd"]

pytestmark = pytest.mark.needs("sshd")

LISTENS = LifecycleConfig(
    "python3",
    args=["-m", "http.server", "--bind", "127.0.0.1", FREE_PORT],
    name="listens",
    ready_mode=TCPPort(FREE_PORT),
    detach=True,
)


async def test_more_daemons_than_a_connection_has_sessions_run_under_shells(sshd: Server) -> None:
    """Each keeps the session of its launcher, and a server allows ten on one connection."""
    spawner = sshd.spawner(guarantee="scoped")
    async with open_daemon_nursery() as daemons:

        async def start(number: int) -> None:
            config = LifecycleConfig(
                "sh",
                args=["-c", "echo up; exec sleep 1000"],
                name=f"daemon-{number}",
                ready_mode=LogLine("up"),
            )
            await daemons.ensure_running(DaemonLifecycle(config, spawner=spawner))

        with trio.fail_after(25):
            async with trio.open_nursery() as starts:
                for number in range(9):
                    starts.start_soon(start, number)
        assert {"running"} == {await daemon.check() for daemon in daemons}


async def test_who_needs_a_daemon_under_a_shell_hears_of_a_lost_connection_at_once(
    sshd: Server,
) -> None:
    config = LifecycleConfig("sleep", args=["1000"], ready_mode=Manual())
    lifecycle = DaemonLifecycle(config, spawner=sshd.spawner(guarantee="scoped"))

    async def need() -> None:
        async with lifecycle.running():
            (await connection(sshd.target())).abort()
            await trio.sleep_forever()

    with trio.fail_after(15), pytest.raises(DaemonStateUnknownError, match="launcher there ends"):
        await need()


async def test_a_heartbeat_that_can_not_be_sent_breaks_nothing(sshd: Server) -> None:
    """The launcher's silence and a heartbeat that fails may be noticed at the same moment."""

    class Unheard(Session):
        """Takes nothing, and says nothing."""

        def __init__(self) -> None:
            self.is_closed = False

        async def send(self, data: bytes) -> None:
            await trio.lowlevel.checkpoint()
            raise LostError("cut")

        async def receive(self) -> bytes:
            await trio.lowlevel.checkpoint()
            raise LostError("cut")

        async def wait_end(self) -> int | None:
            raise LostError("cut")

        def complaints(self) -> str:
            return ""

        def close(self) -> None:
            self.is_closed = True

    session = Unheard()
    here = machine(sshd.target())
    launched = Launched(session, Order(name="cut", program="sleep", owned=True))
    process = LaunchedProcess(
        here,
        "cut",
        Identity("there", "boot", 2, 1, 0),
        "instance",
        FedOutput("cut", Output()),
        launched,
        RemoteLog(here, "/no/such/log"),
        detached=False,
    )
    await process.serve()
    assert process.unseen == "cut; the launcher there ends the daemon"
    assert session.is_closed


def test_a_daemon_that_was_left_running_is_reached_in_every_run(
    sshd: Server, tmp_path: Path
) -> None:
    """The forward of one run of Trio has ended with it."""

    async def reach() -> int:
        daemon = await lifecycle.ensure_running()
        assert daemon.port is not None
        await (await trio.open_tcp_stream("127.0.0.1", daemon.port)).aclose()
        assert daemon.pid is not None
        return daemon.pid

    async def stop() -> None:
        await (await lifecycle.ensure_running()).stop()

    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(LISTENS, spawner=sshd.spawner(), registry=registry)
        try:
            assert trio.run(reach) == trio.run(reach)
        finally:
            trio.run(stop)


async def test_what_was_stopped_leaves_no_forward(sshd: Server, tmp_path: Path) -> None:
    """A program may start and stop for days, each time at another port."""
    with closing(SQLiteRegistry(tmp_path / "registry.sqlite")) as registry:
        lifecycle = DaemonLifecycle(LISTENS, spawner=sshd.spawner(), registry=registry)
        other = DaemonLifecycle(LISTENS, spawner=sshd.spawner(), registry=registry)
        daemon = await lifecycle.ensure_running()
        assert daemon.port is not None
        assert daemon.port == (await other.ensure_running()).port
        await daemon.stop()
        again = await other.ensure_running()
        await again.stop()
        with pytest.raises(OSError, match=r"refused|all attempts"):
            await trio.open_tcp_stream("127.0.0.1", daemon.port)


async def test_a_program_without_descriptors_is_told_what_could_not_be_done(sshd: Server) -> None:
    """The error names the machine, as all that concern it."""
    spawner = sshd.spawner()
    await spawner.find_binary("sh", ())  # connected, with all that takes descriptors
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    first_free = os.dup(0)
    os.close(first_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (first_free, hard))
    try:
        with pytest.raises(SSHConnectError, match=r"127\.0\.0\.1.*Too many open files"):
            await spawner.reach(Report(port=1), None, UnseenProcess())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
