"""Checks of ports and servers, against real sockets."""

import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

import pytest
import trio

from tests.processes import Start, say, start
from tests.support import UNMEASURED, free_port, permitted, run_app
from trio_lifecycle import FreePort, Reachable
from trio_lifecycle.preflight import _free_port, _reachable
from trio_lifecycle.preflight._failure import CheckFailed


async def said_by(check: Callable[[], Awaitable[object]]) -> str:
    """What a check says that fails."""
    with pytest.raises(CheckFailed) as caught:
        await check()
    return str(caught.value)


@contextmanager
def listening(host: str = "127.0.0.1", port: int = 0) -> Iterator[int]:
    """A socket that listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, port), family=family) as server:
        yield server.getsockname()[1]


__all__ = ["start"]  # a fixture


# --- FreePort -------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_port_that_nobody_has_is_free(host: str) -> None:
    await FreePort(free_port(), host)()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
async def test_a_port_that_is_taken_says_by_whom(host: str) -> None:
    with listening() as port:
        said = await said_by(FreePort(port, host))
    assert f"port {port} of " in said
    assert f"is in use by process {os.getpid()} (" in said
    assert "stop that, or choose another port" in said


async def test_a_server_at_every_address_has_each_of_them() -> None:
    with listening("0.0.0.0") as port:
        assert f"process {os.getpid()}" in await said_by(FreePort(port, "127.0.0.2"))


async def test_another_address_is_another_port() -> None:
    with listening("127.0.0.2") as port:
        await FreePort(port)()
        assert f"process {os.getpid()}" in await said_by(FreePort(port, "0.0.0.0"))


@pytest.mark.fault(13)
async def test_a_port_of_another_process_says_which(start: Start) -> None:
    code = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    server = start(code)
    (port,) = say(server)
    assert f"in use by process {server.pid} (" in await said_by(FreePort(port))


async def test_a_connection_that_has_ended_a_moment_ago_is_in_nobodys_way() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            # Who closes first keeps the connection for a minute, in TIME_WAIT.
            server.accept()[0].close()
            assert b"" == client.recv(1)
    await FreePort(port)()
    with pytest.raises(OSError) as caught, socket.socket() as strict:  # noqa: PT011
        strict.bind(("127.0.0.1", port))
    assert errno.EADDRINUSE == caught.value.errno


async def test_a_socket_that_does_not_listen_has_the_port_too() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        said = await said_by(FreePort(holder.getsockname()[1]))
    assert "in use by a connection or a socket that does not listen" in said


async def test_an_address_of_another_machine_is_told() -> None:
    said = await said_by(FreePort(8080, "192.0.2.1"))  # RFC 5737: nobody's
    assert said.endswith("can't be had: 192.0.2.1 is no address of this machine")


async def test_localhost_is_one_address_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bind = _free_port._bind

    def refuse_ipv6(address: str, port: int) -> None:
        if ":" in address:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        bind(address, port)

    monkeypatch.setattr(_free_port, "_bind", refuse_ipv6)
    await FreePort(free_port(), "localhost")()
    assert "is no address of this machine" in await said_by(FreePort(free_port(), "::1"))


# In a network of its own no container's runtime has opened the low ports to all.
UNSHARABLE = os.getuid() == 0 and permitted("unshare", "--net", "true")


@pytest.mark.skipif(not UNSHARABLE, reason="may not make a network of its own")
def test_a_port_that_only_root_may_have_is_told_to_others() -> None:
    (said,) = run_app(
        """
os.setgroups([]); os.setgid(1); os.setuid(1)

async def main():
    try:
        await FreePort(80)()
    except Exception as error:
        print(error)

trio.run(main)
""",
        env=UNMEASURED,
        within=["unshare", "--net"],
    )
    assert "port 80 of 127.0.0.1 may not be had by this user: choose one from 1024 on" in said


async def test_another_error_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(address: str, port: int) -> None:
        raise OSError(errno.ENFILE, "Too many open files in system")

    monkeypatch.setattr(_free_port, "_bind", fail)
    assert "can't be had: Too many open files in system" in await said_by(FreePort(80))


# --- Reachable ------------------------------------------------------------------------------------


async def answer_once(listener: trio.SocketListener, status: bytes) -> None:
    """Answer one HTTP question."""
    stream = await listener.accept()
    async with stream:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 %s\r\ncontent-length: 0\r\n\r\n" % status)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found", b"503 Not Now"])
async def test_any_http_status_is_an_answer(host: str, status: bytes) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(answer_once, listener, status)
        await Reachable(f"http://{host}:{listener.socket.getsockname()[1]}/")()


@pytest.mark.fault(20)
async def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        said = await said_by(Reachable(f"http://localhost:{free_port()}/"))
    assert "Connection refused" in said


async def test_a_port_that_takes_connections_is_reachable_by_tcp() -> None:
    with listening() as port:
        await Reachable(f"tcp://127.0.0.1:{port}")()
        await Reachable(f"tcp://localhost:{port}")()


@pytest.mark.parametrize("scheme", ["http", "tcp"])
async def test_a_refusal_is_told(scheme: str) -> None:
    url = f"{scheme}://127.0.0.1:{free_port()}"
    said = await said_by(Reachable(url))
    assert said.startswith(f"{url} ")
    assert "refused" in said
    assert said.endswith("start what should be there, or mend the URL")


async def test_a_server_of_another_protocol_gives_no_answer() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def greet() -> None:
        async with await listener.accept() as stream:
            await stream.send_all(b"SSH-2.0-server\r\n\r\n")
            await stream.receive_some()

    async with listener, trio.open_nursery() as nursery:
        nursery.start_soon(greet)
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/"
        assert "gave no HTTP answer" in await said_by(Reachable(url))


async def test_a_name_that_can_not_be_resolved_is_told() -> None:
    # RFC 6761: never a host's name.
    said = await said_by(Reachable("tcp://nowhere.invalid:80"))
    assert "could not be connected to (" in said


def test_the_reason_is_that_of_the_first_address() -> None:
    failure = OSError("all attempts to connect to h:80 failed")
    refused = OSError(errno.ECONNREFUSED, "Connection refused")
    unreachable = OSError(errno.ENETUNREACH, "Network is unreachable")
    failure.__cause__ = ExceptionGroup("connections", [refused, unreachable])
    assert "Connection refused" == _reachable._reason(failure)
    failure.__cause__ = refused
    assert "Connection refused" == _reachable._reason(failure)
    failure.__cause__ = None
    assert "all attempts to connect to h:80 failed" == _reachable._reason(failure)
