"""Passing sockets: clients are taken before the daemon is there, and between two of its lives."""

import errno
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import field, frozen

from tests.passing import ACCEPTING, ArmedEarly, Client, Early, accepting
from tests.support import PATIENCE_S, free_port, shell_daemon, wait_until_gone
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    ConfigError,
    DaemonHandle,
    DaemonLifecycle,
    DaemonNursery,
    DiedBeforeReadyError,
    Exec,
    HealthCheck,
    LifecycleConfig,
    ListenSocket,
    LocalSpawner,
    LogLine,
    SpawnError,
    open_daemon_nursery,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._passed_sockets import CannotListenError
from trio_lifecycle._preparation import _reason
from trio_lifecycle.abc import Start


def told(daemon: DaemonHandle) -> tuple[int, dict[str, Any]]:
    """What a daemon that was asked before it was there has answered: its number, and more."""
    body = daemon.report["answer"].partition("\r\n\r\n")[2]
    pid, facts = json.loads(body)
    return pid, facts


async def kill(daemon: DaemonHandle) -> None:
    """Kill a daemon, and wait until none of it lives."""
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    await wait_until_gone(daemon.pid)


def port_of(daemon: DaemonHandle) -> int:
    """Where it listens."""
    assert daemon.port is not None
    return daemon.port


def refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


# --- what the daemon finds ------------------------------------------------------------------------


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
@pytest.mark.parametrize("changes", [{}, {"umask": 0o22}], ids=["shell", "step"])
async def test_a_question_from_before_the_spawn_is_answered_by_the_protocol_of_systemd(
    tmp_path: Path, guarantee: Guarantee, changes: dict[str, Any]
) -> None:
    path = tmp_path / "socket"
    config = accepting(
        ListenSocket(port=FREE_PORT, name="web"),
        ListenSocket(unix=path),
        ListenSocket("::1", free_port("::1"), name="a b"),
        env={"LISTEN_PIDFDID": "17", "PORT": FREE_PORT},
        **changes,
    )
    spawner = LocalSpawner(guarantee)
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        pid, facts = told(daemon)
        assert daemon.pid == pid
        assert {
            "LISTEN_FDS": "3",
            "LISTEN_FDNAMES": "web:unknown:a b",
            "is own pid": True,
            "blocking": True,
            "fds": [0, 1, 2, 3, 4, 5],
        } == facts
        assert path.is_socket()
        port = port_of(daemon)
    assert not path.exists()
    assert refuses(port)


async def test_sockets_of_this_program_itself_are_not_taken_for_the_daemons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LISTEN_FDS", "7")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    async with DaemonLifecycle(accepting()).running() as daemon:
        assert "1" == told(daemon)[1]["LISTEN_FDS"]
    code = "env | grep LISTEN_ || echo nothing; exec sleep 1000"
    probe = Exec(["/bin/sh", "-c", "! env | grep LISTEN_"])
    config = shell_daemon(code, ready_mode=AllOf(LogLine("^nothing"), probe))
    async with DaemonLifecycle(config).running() as other:
        assert "nothing\n" == other.output_tail


# --- real servers ---------------------------------------------------------------------------------

APPS = """
async def asgi(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"from the app"})

def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [b"from the app"]
"""

SERVERS = {
    "gunicorn": ["apps:wsgi", "--no-control-socket"],
    "uvicorn": ["apps:asgi", "--fd", "3"],
    "hypercorn": ["apps:asgi", "--bind", "fd://3"],
}


@pytest.mark.parametrize("server", SERVERS)
async def test_a_server_answers_who_came_before_it_and_who_came_between_two_of_its_lives(
    tmp_path: Path, server: str
) -> None:
    (tmp_path / "apps.py").write_text(APPS)
    config = LifecycleConfig(
        sys.executable,
        args=["-m", server, *SERVERS[server]],
        name=server,
        working_dir=tmp_path,
        listen=[ListenSocket(port=FREE_PORT)],
        ready_mode=Early(),
    )
    async with open_daemon_nursery() as daemons:
        daemon = await daemons.ensure_running(DaemonLifecycle(config))
        assert "from the app" in daemon.report["answer"]
        await kill(daemon)
        await _over(daemons, server)
        client = await Client.at_port(port_of(daemon))
        again = await daemons.ensure_running(DaemonLifecycle(config))
        assert b"from the app" in await client.answer()
        assert (daemon.port, True) == (again.port, daemon.pid != again.pid)


async def _over(daemons: DaemonNursery, name: str) -> None:
    """Wait until a nursery has ended all that a daemon that was killed has left."""
    with trio.fail_after(PATIENCE_S):
        await daemons._places[name].over.wait()


# --- between two lives ----------------------------------------------------------------------------


async def test_sockets_are_a_nurserys_until_its_end_or_until_the_daemon_is_stopped_there(
    tmp_path: Path,
) -> None:
    lifecycle = DaemonLifecycle(accepting())
    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(lifecycle)
        port = port_of(first)
        await first.stop()
        client = await Client.at_port(port)
        second = await daemons.ensure_running(lifecycle)
        assert str(second.pid).encode() in await client.answer()
        await daemons.stop("daemon")
        assert refuses(port)
        assert await daemons.stop("daemon") is None

        third = await daemons.ensure_running(lifecycle)
        await kill(third)
        await _over(daemons, "daemon")
        path = tmp_path / "socket"
        other = accepting(ListenSocket(unix=path), ready_mode=Early(path))
        await daemons.ensure_running(DaemonLifecycle(other))
        assert refuses(port_of(third))
        await daemons.ensure_running(DaemonLifecycle(accepting(name="another")))
        last = port_of(next(iter(reversed(list(daemons)))))
    assert refuses(last)
    assert not path.exists()


@frozen
class Noting(Early):
    """It notes which file is asked, in each attempt."""

    inodes: list[int] = field(factory=list, kw_only=True)

    async def arm(self, start: Start) -> ArmedEarly:
        """Note it, and ask."""
        assert self.path is not None
        self.inodes.append(self.path.stat().st_ino)
        return await super().arm(start)


async def test_a_second_attempt_of_one_start_gets_the_same_sockets(tmp_path: Path) -> None:
    code = f"""
import os, sys
try:
    os.mkdir({str(tmp_path / "mark")!r})
    sys.exit("[Errno 98] Address already in use")
except FileExistsError:
    pass
{ACCEPTING}"""
    path, inodes = tmp_path / "socket", list[int]()
    mode = Noting(path, inodes=inodes)
    config = accepting(
        ListenSocket(unix=path), code=code, ready_mode=mode, env={"OTHER": FREE_PORT}
    )
    async with DaemonLifecycle(config).running() as daemon:
        assert daemon.pid == told(daemon)[0]
    assert 2 == len(inodes)
    assert 1 == len(set(inodes))
    assert not path.exists()


async def test_nothing_is_left_of_a_start_that_fails(tmp_path: Path) -> None:
    path, port = tmp_path / "socket", free_port()
    config = accepting(
        ListenSocket(port=port),
        ListenSocket(unix=path),
        code="import sys; sys.exit(3)",
        ready_mode=Early(port=port),
    )
    with pytest.raises(DiedBeforeReadyError):
        async with DaemonLifecycle(config).running():
            pytest.fail("it can't be ready")
    assert refuses(port)
    assert not path.exists()


async def test_one_that_is_left_running_has_its_sockets_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    sockets = [ListenSocket(port=FREE_PORT), ListenSocket(unix=path)]
    lifecycle = DaemonLifecycle(accepting(*sockets, detach=True))
    daemon = await lifecycle.ensure_running()
    port = port_of(daemon)
    assert path.is_socket()
    client = await Client.at_port(port)
    assert str(daemon.pid).encode() in await client.answer()
    await daemon.kill()
    assert refuses(port)
    again = await lifecycle.ensure_running()
    await again.kill()


# --- who listens ----------------------------------------------------------------------------------


def checked(port: int, **changes: Any) -> LifecycleConfig:
    """One that is asked at a port that is known beforehand."""
    mode = HealthCheck(f"http://127.0.0.1:{port}/", probe_timeout=0.2)
    return accepting(ListenSocket(port=port), ready_mode=mode, **changes)


async def test_the_daemon_is_found_behind_a_socket_that_this_program_holds_too() -> None:
    port = free_port()
    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(DaemonLifecycle(checked(port)))
        assert first.pid == (await LocalSpawner().open_prober().owner_of("127.0.0.1", port)).pid
        owner = await LocalSpawner().open_prober().describe_owner("127.0.0.1", port)
        assert f"process {first.pid} " in owner
        await kill(first)
        await _over(daemons, "daemon")
        # Nobody else can answer there, so nobody is asked.
        with trio.fail_after(PATIENCE_S):
            again = await daemons.ensure_running(DaemonLifecycle(checked(port)))
        assert "spawned" == again.origin
        async with DaemonLifecycle(checked(port, name="same")).running() as same:
            assert ("adopted", again.pid) == (same.origin, same.pid)


FORKS_AWAY = f"""
import os, time
if os.fork():
    time.sleep(1000)
os.setsid()
if os.fork():
    os._exit(0)
{ACCEPTING.replace('told.pop("LISTEN_PID") == str(os.getpid())', "True")}"""


async def test_a_server_that_has_left_the_tree_is_still_the_daemons() -> None:
    config = checked(free_port(), code=FORKS_AWAY)
    async with DaemonLifecycle(config, spawner=LocalSpawner("guarded")).running() as daemon:
        client = await Client.at_port(port_of(daemon))
        assert b"200 OK" in await client.answer()


COUNTING = """
import socket, time
server = socket.socket(fileno=3)
{before}
count = 0
while True:
    connection, _ = server.accept()
    count += 1
    if connection.recv(65536):
        connection.send(b"HTTP/1.1 200 OK\\r\\nContent-Length: 2\\r\\n\\r\\n%02d" % count)
    connection.close()
"""


async def test_one_question_waits_for_a_slow_daemon_and_is_answered_at_once() -> None:
    code = COUNTING.format(before="time.sleep(0.5)")
    async with DaemonLifecycle(checked(free_port(), code=code)).running() as daemon:
        client = await Client.at_port(port_of(daemon))
        # The health check's was the first: it was not given up after its 0.2 s, twice.
        assert (await client.answer()).endswith(b"02")


@pytest.mark.parametrize("start_up_s", [0, 0.5])
async def test_a_question_that_was_accepted_and_lost_is_asked_again(start_up_s: float) -> None:
    code = COUNTING.format(before=f"time.sleep({start_up_s}); lost = server.accept()")
    async with DaemonLifecycle(checked(free_port(), code=code)).running() as daemon:
        client = await Client.at_port(port_of(daemon))
        assert b"200 OK" in await client.answer()


# --- what can't be --------------------------------------------------------------------------------


@pytest.mark.fault(13)
async def test_a_port_that_is_taken_is_told_before_the_spawn_with_its_owner() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        config = accepting(ListenSocket(port=port), ready_mode=Early(port=port))
        with pytest.raises(SpawnError) as caught:
            async with DaemonLifecycle(config).running():
                pytest.fail("it has no socket")
    assert f"it can't listen at 127.0.0.1:{port}: process {os.getpid()} (" in str(caught.value)
    assert errno.EADDRINUSE == caught.value.errno


async def test_a_path_that_is_taken_is_told_before_the_spawn(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    config = accepting(ListenSocket(unix=path), ready_mode=Early(path))
    with pytest.raises(SpawnError, match="a file that is no socket; it was left alone"):
        async with DaemonLifecycle(config).running():
            pytest.fail("it has no socket")


async def test_an_address_of_another_machine_is_told() -> None:
    config = accepting(ListenSocket("192.0.2.1", free_port()))
    with pytest.raises(SpawnError, match="this machine has no such address"):
        async with DaemonLifecycle(config).running():
            pytest.fail("it has no socket")


async def test_a_port_for_root_is_told() -> None:
    error = CannotListenError(ListenSocket(port=80), errno.EACCES)
    assert "only root may have it" in await _reason(error, LocalSpawner().open_prober())


@frozen
class Giving(Early):
    """A ready mode that gives the daemon a descriptor itself."""

    number: int = field(default=0, kw_only=True)

    async def arm(self, start: Start) -> ArmedEarly:
        """Ask."""
        early = await super().arm(start)
        return ArmedGiving(early.client, early.port, {self.number: 1})


class ArmedGiving(ArmedEarly):
    """It gives standard output."""

    def __init__(self, client: Client, port: int | None, given: Mapping[int, int]) -> None:
        super().__init__(client, port)
        self._given = given

    @property
    def descriptors(self) -> Mapping[int, int]:
        """What it gives."""
        return self._given


async def test_a_ready_modes_descriptor_has_a_number_of_its_own() -> None:
    async with DaemonLifecycle(accepting(ready_mode=Giving(number=4))).running() as daemon:
        assert [0, 1, 2, 3, 4] == told(daemon)[1]["fds"]
    with pytest.raises(ConfigError, match="descriptor 3 of the daemon is a socket of listen"):
        async with DaemonLifecycle(accepting(ready_mode=Giving(number=3))).running():
            pytest.fail("two can't have one number")
