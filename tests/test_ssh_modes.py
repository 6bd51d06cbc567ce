"""Each ready mode once with a daemon of another machine: a real sshd, real programs."""

import os
import socket
import sys
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.sshd import Server, running_sshd, sshd
from tests.support import PATIENCE_S, QUICK_PYTHON, Heard, python_daemon
from trio_lifecycle import (
    Callback,
    DaemonLifecycle,
    Notify,
    Output,
    SSHConnectError,
    SSHSpawner,
)
from trio_lifecycle._markers import CALLBACK_URL
from trio_lifecycle._receiver import CallbackReceiver
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle.abc import Caller, Peer
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
