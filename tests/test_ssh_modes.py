"""Each ready mode once with a daemon of another machine: a real sshd, real programs."""

import os
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.guards import until
from tests.real_programs import SERVERS
from tests.sshd import Server, running_sshd, sshd
from tests.support import PATIENCE_S, QUICK_PYTHON, Heard, python_daemon, shell_daemon
from trio_lifecycle import (
    Callback,
    ConfigError,
    DaemonLifecycle,
    HealthCheck,
    LogLine,
    NewlineOnFD,
    Notify,
    Output,
    ReadyError,
    SpawnError,
    SSHConnectError,
    SSHSpawner,
)
from trio_lifecycle._markers import CALLBACK_URL
from trio_lifecycle._receiver import CallbackReceiver
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle.abc import Caller, Datagram, Peer, ReadyMode
from trio_lifecycle.ready._callback_server import CallbackServer

__all__ = ("sshd",)

pytestmark = pytest.mark.needs("sshd")


def spawner_of(server: Server, **options: Any) -> SSHSpawner:
    """The machine behind an sshd."""
    return SSHSpawner(
        "127.0.0.1",
        user=server.user,
        port=server.port,
        config=None,
        agent=None,
        client_keys=server.key,
        host_key=server.host_key,
        **options,
    )


@pytest.fixture
def there(sshd: Server) -> SSHSpawner:
    return spawner_of(sshd)


async def transport_of(spawner: SSHSpawner) -> Transport:
    """The connection to its machine."""
    return await spawner._machine.transport()


async def channels(spawner: SSHSpawner) -> int:
    """How many were opened to its machine, the line's and the guard's among them."""
    await spawner._machine.facts()
    return (await transport_of(spawner)).channels_opened


# --- callbacks --------------------------------------------------------------------------------

# Calls the URL in its first argument, or else in its environment.
CALL = """
import os, sys, _socket as socket
url = sys.argv[1] if len(sys.argv) > 1 else os.environ["TRIO_LIFECYCLE_CALLBACK_URL"]
authority, _, path = url.split("//")[1].partition("/")
host, _, port = authority.partition(":")
caller = socket.socket()
caller.connect((host, int(port)))
body = b'{"model": "tiny"}'
line = f"POST /{path} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: {len(body)}\\r\\n\\r\\n"
caller.sendall(line.encode() + body)
print("answered", caller.recv(100).split(b" ")[1].decode(), flush=True)
"""
STAY = "\nos.read(os.pipe()[0], 1)"
SHOW = "import sys, os; print('url', sys.argv[1], flush=True)"


async def test_a_callback_comes_from_another_machine_and_is_answered(there: SSHSpawner) -> None:
    heard = Heard()
    config = python_daemon(CALL + STAY, ready_mode=Callback(), output=Output(to=heard))
    before = await channels(there)
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert {"model": "tiny"} == daemon.report
        assert "200" == await heard.line("answered ")
        # The guard: the way back, and what comes on it, are opened by the machine.
        assert 1 == await channels(there) - before


@pytest.mark.fault(87)
async def test_with_the_url_in_the_arguments_the_same_user_there_is_believed(
    there: SSHSpawner,
) -> None:
    config = python_daemon(CALL + STAY, "CALLBACK_URL", ready_mode=Callback())
    config = evolve(config, args=[*config.args[:-1], CALLBACK_URL])
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert {"model": "tiny"} == daemon.report


@pytest.mark.fault(87)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_with_the_url_in_the_arguments_another_user_there_is_refused(
    there: SSHSpawner,
) -> None:
    heard = Heard()
    config = python_daemon(SHOW + STAY, "", ready_mode=Callback(), output=Output(to=heard))
    config = evolve(config, args=[*config.args[:-1], CALLBACK_URL])

    async def call() -> None:
        url = await heard.line("url ")
        for become, status in (("os.setuid(65534)\n", b"403"), ("", b"200")):
            code = CALL.replace("url = ", become + "url = ", 1)
            calling = [sys.executable, *QUICK_PYTHON, code, url]
            called = await trio.run_process(calling, capture_stdout=True)
            assert b"answered %b\n" % status == called.stdout

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            async with DaemonLifecycle(config, spawner=there).running() as daemon:
                assert {"model": "tiny"} == daemon.report


async def test_a_receiver_on_loopback_is_led_to_from_another_machine(there: SSHSpawner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        receiver = CallbackReceiver(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
        server = CallbackServer(receiver, listener.dup())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve, nursery)
            config = python_daemon(CALL + STAY, ready_mode=Callback(receiver))
            async with DaemonLifecycle(config, spawner=there).running() as daemon:
                assert {"model": "tiny"} == daemon.report
            nursery.cancel_scope.cancel()
        server.close()


async def test_a_server_that_forbids_forwarding_is_named_with_the_cure() -> None:
    with running_sshd(AllowTcpForwarding="no") as server:
        config = python_daemon(CALL + STAY, ready_mode=Callback())
        with pytest.raises(SSHConnectError, match="AllowTcpForwarding in its sshd_config"):
            async with DaemonLifecycle(config, spawner=spawner_of(server)).running():
                raise AssertionError("it is ready")


async def test_a_way_back_whose_connection_is_lost_is_over_and_leaves_nothing(
    there: SSHSpawner,
) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        address = listener.socket.getsockname()
        async with there.open_prober().open_way_back(*address) as way:
            far = await trio.open_tcp_stream(way.host, way.port)
            await far.send_all(b"x")
            near = await listener.accept()
            assert b"x" == await near.receive_some()
            peer = Peer(near.socket.getpeername(), address)
            assert Caller(os.getuid(), None, is_same_user=True) == await way.caller(peer)
            await (await transport_of(there)).close()
            with trio.fail_after(PATIENCE_S):
                assert b"" == await far.receive_some()
                assert b"" == await near.receive_some()
            assert None is await way.caller(peer)
        await far.aclose()
        await near.aclose()


# --- notifications ----------------------------------------------------------------------------

NOTIFY = """
import os, sys, _socket as socket
address = os.environ["NOTIFY_SOCKET"]
box = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
box.connect("\\0" + address[1:] if address[0] == "@" else address)
def say(text):
    box.send(text.encode())
"""


async def test_a_daemon_of_another_machine_says_how_it_is(there: SSHSpawner) -> None:
    code = NOTIFY + "say('STATUS=loading'); say(f'READY=1\\nMAINPID={os.getpid()}')" + STAY
    before = await channels(there)
    async with DaemonLifecycle(
        python_daemon(code, ready_mode=Notify()), spawner=there
    ).running() as daemon:
        assert {"status": "loading", "mainpid": daemon.pid} == daemon.report
        assert 1 == await channels(there) - before


def found(directory: Path) -> list[Path]:
    """The files that are there."""
    return [*directory.iterdir()]


async def test_a_socket_in_a_directory_of_another_machine_is_removed_in_the_end(
    there: SSHSpawner, tmp_path: Path
) -> None:
    code = NOTIFY + "say('READY=1'); say('x' * 5000)" + STAY
    config = python_daemon(code, ready_mode=Notify(path=tmp_path))
    async with DaemonLifecycle(config, spawner=there).running():
        (file,) = found(tmp_path)
        assert file.is_socket()
    await until(lambda: not found(tmp_path))


async def test_a_directory_that_is_not_there_is_named(there: SSHSpawner, tmp_path: Path) -> None:
    config = python_daemon("", ready_mode=Notify(path=tmp_path / "none"))
    with pytest.raises(ReadyError, match=r"can't be made in .*none: No such file"):
        async with DaemonLifecycle(config, spawner=there).running():
            raise AssertionError("it is ready")


async def test_a_socket_whose_making_is_cancelled_is_not_left(
    there: SSHSpawner, tmp_path: Path
) -> None:
    prober = there.open_prober()
    await (await prober.open_inbox(None, None, 100)).close()
    with trio.move_on_after(0):
        await prober.open_inbox(tmp_path, None, 100)
    # The guard does one thing after the other: what was asked before is done.
    inbox = await prober.open_inbox(None, "nobody", 100)
    assert [] == found(tmp_path)
    assert 3 - (os.getuid() == 0) == len(inbox.uids)
    await (await transport_of(there)).close()
    with trio.move_on_after(0.1) as waited:
        await inbox.wait()
    assert waited.cancelled_caught
    assert frozenset() == await inbox.uids_of(os.getpid())
    await inbox.close()


@pytest.mark.needs("systemd-notify")
async def test_systemds_own_client_is_believed_there(there: SSHSpawner) -> None:
    script = "systemd-notify STATUS=loading && systemd-notify --ready && exec sleep 1000"
    config = shell_daemon(script, ready_mode=Notify())
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert {"status": "loading"} == daemon.report


async def test_more_time_is_given_and_the_watchdog_is_minded(there: SSHSpawner) -> None:
    code = """
import time
say("EXTEND_TIMEOUT_USEC=60000000")
time.sleep(1.2)
say("READY=1")
say("WATCHDOG=1")
"""
    config = python_daemon(NOTIFY + code + STAY, ready_mode=Notify(watchdog=0.3), ready_timeout=1.0)
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        with trio.fail_after(PATIENCE_S):
            # The news of it is an event; here it is what a check comes to.
            while "running" == await daemon.check():  # noqa: ASYNC110
                await trio.sleep(0.05)
        assert "unknown" == await daemon.check()


async def test_a_flood_is_heard_piece_by_piece_and_the_sender_waits(there: SSHSpawner) -> None:
    inbox = await there.open_prober().open_inbox(None, None, 100)
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    with sender:
        sender.setblocking(False)
        sender.connect("\0" + inbox.address[1:])
        with trio.fail_after(PATIENCE_S):
            sent, refusals = 0, 0
            # As many as may be under way, and those in the socket's own queue.
            while sent <= 64 or (refusals < 200 and sent < 200):
                try:
                    sent += sender.send(b"%03d" % sent) // 3
                except BlockingIOError:
                    refusals += 1
                    await trio.sleep(0.001)
            assert sent < 200
            heard: list[Datagram] = []
            while len(heard) < sent:
                letter = inbox.receive()
                if letter is None:
                    await inbox.wait()
                else:
                    heard.append(letter)
    assert [b"%03d" % number for number in range(sent)] == [each.content for each in heard]
    assert (os.getpid(), os.getuid()) == heard[0][1:3]
    assert os.getppid() == heard[0].ancestors[0]
    assert frozenset({os.getuid()}) == await inbox.uids_of(os.getpid())
    assert inbox.uids == {0, os.getuid()}
    await inbox.close()
    await inbox.close()
    with pytest.raises(trio.ClosedResourceError):
        await inbox.wait()
    assert None is inbox.receive()


async def test_without_python_there_notifications_are_refused_with_the_cure(
    there: SSHSpawner, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = await there._machine.line()
    monkeypatch.setattr(line, "facts", evolve(line.facts, python3=None))
    with pytest.raises(ConfigError, match=r"needs python3 .* on 127.0.0.1.*LogLine"):
        async with DaemonLifecycle(python_daemon("", ready_mode=Notify()), spawner=there).running():
            raise AssertionError("it is ready")


# --- the others -------------------------------------------------------------------------------

# Mode -> how many channels its start opens once the line is there: the guard, and what the probes
# took. A refused connection opens none.
REDIS = {"tcp": 2, "unix": 2, "line": 1, "notify": 1, "exec": 1, "file": 1}


@pytest.mark.needs("redis-server", "redis-cli")
@pytest.mark.parametrize("mode", REDIS)
async def test_a_redis_of_another_machine_is_ready(
    there: SSHSpawner, mode: str, tmp_path: Path
) -> None:
    config = SERVERS["redis"].config(tmp_path, mode)
    before = await channels(there)
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert REDIS[mode] == await channels(there) - before
        assert daemon.port is not None
        async with await trio.open_tcp_stream("127.0.0.1", daemon.port) as stream:
            await stream.send_all(b"PING\r\n")
            assert b"+PONG\r\n" == await stream.receive_some()


async def test_a_newline_on_a_descriptor_comes_from_another_machine(there: SSHSpawner) -> None:
    config = shell_daemon("echo >&3; exec 3>&-; exec sleep 1000", ready_mode=NewlineOnFD(3))
    before = await channels(there)
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert 1 == await channels(there) - before
        assert "running" == await daemon.check()


SERVE = """
import os, sys, _socket as socket
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(10)
while True:
    fd, _ = listener._accept()
    os.read(fd, 1000)
    os.write(fd, b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
    os.close(fd)
"""


async def test_health_is_asked_over_a_unix_socket_of_another_machine(
    there: SSHSpawner, tmp_path: Path
) -> None:
    path = tmp_path / "http.sock"
    mode = HealthCheck("http://localhost/", unix_socket=path)
    before = await channels(there)
    config = python_daemon(SERVE, str(path), ready_mode=mode)
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert 2 == await channels(there) - before
        assert "running" == await daemon.check()


@pytest.mark.needs("etcd")
async def test_health_is_asked_by_grpc_on_another_machine(
    there: SSHSpawner, tmp_path: Path
) -> None:
    config = SERVERS["etcd"].config(tmp_path, "grpc")
    async with DaemonLifecycle(config, spawner=there).running() as daemon:
        assert "running" == await daemon.check()


# --- and left running -------------------------------------------------------------------------

LINE = "print('port 1234', flush=True)"
SAID = "say('STATUS=loading'); say('READY=1')"


# Channels: the launcher's, the guard's for what is sent, a probe. Whose a socket is that was bound
# by a relative path can't be seen there, so it is asked twice.
@pytest.mark.parametrize(
    ("code", "mode", "report", "opened"),
    [
        (LINE, LogLine(r"port (?P<port>\d+)"), {"port": "1234"}, 1),
        (CALL, Callback(), {"model": "tiny"}, 1),
        (NOTIFY + SAID, Notify(), {"status": "loading"}, 2),
        (SERVE, HealthCheck("http://localhost/", unix_socket="http.sock"), {}, 3),
    ],
    ids=["line", "callback", "notify", "health"],
)
async def test_a_daemon_that_is_left_running_is_ready_there(
    there: SSHSpawner, tmp_path: Path, code: str, mode: ReadyMode, report: Any, opened: int
) -> None:
    args = ["http.sock"] if code is SERVE else []
    config = python_daemon(
        f"import os\n{code}{STAY}",
        *args,
        ready_mode=mode,
        detach=True,
        working_dir=tmp_path,
        output=Output(to=tmp_path / "log"),
    )
    before = await channels(there)
    lifecycle = DaemonLifecycle(config, spawner=there)
    daemon = await lifecycle.ensure_running()
    try:
        assert opened == await channels(there) - before
        assert report == daemon.report
        assert "running" == await daemon.check()
        assert daemon is await lifecycle.ensure_running()
    finally:
        await daemon.stop()  # noqa: ASYNC102 - it shields itself


# --- and without the guard --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "mode", "report"),
    [
        (LINE, LogLine(r"port (?P<port>\d+)"), {"port": "1234"}),
        (CALL, Callback(), {"model": "tiny"}),
        (NOTIFY + SAID, Notify(), {"status": "loading"}),
    ],
    ids=["line", "callback", "notify"],
)
async def test_a_daemon_that_only_a_shell_watches_over_is_ready_there(
    sshd: Server, code: str, mode: ReadyMode, report: Any
) -> None:
    config = python_daemon(f"import os\n{code}{STAY}", ready_mode=mode)
    spawner = spawner_of(sshd, guarantee="scoped")
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        assert "scoped" == daemon.guarantee
        assert report == daemon.report


async def test_a_descriptor_is_not_passed_where_only_a_shell_watches_over_a_daemon(
    sshd: Server,
) -> None:
    config = shell_daemon("echo >&3", ready_mode=NewlineOnFD(3))
    with pytest.raises(SpawnError, match="use another ready mode"):
        async with DaemonLifecycle(config, spawner=spawner_of(sshd, guarantee="scoped")).running():
            raise AssertionError("it is ready")
