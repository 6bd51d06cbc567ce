"""Asking over HTTP costs little and ends in time, whatever a server sends; certificates count."""

import os
import resource
import socket
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.certificates import certificate, tls
from tests.servers import OK, Ask, Talk, ask_anywhere, ask_loopback, get, hang, saying, server
from tests.support import free_port, run_app
from trio_lifecycle import _loopback_http
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Answer, Question

__all__ = ["certificate"]


@pytest.fixture(params=[ask_loopback, ask_anywhere])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each of the two ways to ask."""
    way: Ask = request.param
    return way


# --- time -----------------------------------------------------------------------------------------


async def read_and_hang(stream: trio.abc.Stream) -> None:
    await stream.receive_some(65_536)
    await trio.sleep_forever()


async def drip(stream: trio.abc.Stream) -> None:
    await stream.receive_some(65_536)
    for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.01)


async def endless_hints(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)


@pytest.mark.fault(22, 25)
@pytest.mark.parametrize("talk", [hang, read_and_hang, drip, endless_hints])
async def test_the_callers_deadline_ends_it(ask: Ask, talk: Talk) -> None:
    async with server(talk) as address:
        await ask(f"http://127.0.0.1:{free_port()}/")  # loads what it needs
        began = trio.current_time()
        with trio.move_on_after(0.2) as scope:
            await ask(f"http://{address}/")
        assert scope.cancelled_caught
        assert trio.current_time() - began < 2


# --- memory ---------------------------------------------------------------------------------------

MEASURED = """
import resource, socket
from tests.servers import ask_anywhere, ask_loopback

FLOOD = b"x" * 65_536

async def endless(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
    while True:
        await stream.send_all(FLOOD)

async def long(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\ncontent-length: 1000000000\\r\\n\\r\\n")
    while True:
        await stream.send_all(FLOOD)

async def header(stream):
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\nx: ")
    for _ in range(1000):
        await stream.send_all(FLOOD)

async def bomb(stream):
    import zlib
    squeezed = zlib.compress(b"\\0" * 50_000_000, wbits=31)
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\ncontent-encoding: gzip\\r\\n\\r\\n" + squeezed)

def serve(listener, talk):
    async def one(stream):
        try:
            await stream.receive_some(65_536)
            await talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await trio.aclose_forcefully(stream)

    async def main():
        listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(listener))]
        await trio.serve_listeners(one, listeners)

    trio.run(main)

async def main(ask, url):
    await ask("http://127.0.0.1:1/")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = trio.current_time()
    for _ in range(3):
        with trio.move_on_after(1):
            print(await ask(url))
    print("fast", trio.current_time() - began < 2)
    print("small", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024)

talk, ask = map(globals().get, sys.argv[1:])
listener = socket.create_server(("127.0.0.1", 0))
# In a process of its own, so that its memory does not count.
server = os.fork()
if server == 0:
    try:
        serve(listener, talk)
    finally:
        os._exit(0)
try:
    trio.run(main, ask, "http://127.0.0.1:%d/" % listener.getsockname()[1])
finally:
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
"""


@pytest.mark.fault(22)
@pytest.mark.parametrize("way", ["ask_anywhere", "ask_loopback"])
@pytest.mark.parametrize("what", ["endless", "long", "bomb", "header"])
def test_memory_does_not_grow_with_what_a_server_sends(what: str, way: str) -> None:
    *answers, fast, small = run_app(MEASURED, what, way)
    expected = "gave no HTTP answer (" if what == "header" else "answered 200"
    assert 3 == sum(answer.startswith(expected) for answer in answers), answers
    assert ["fast True", "small True"] == [fast, small]


# --- descriptors ----------------------------------------------------------------------------------


def clients(*addresses: str) -> int:
    """How many sockets of this process lead to these servers."""
    ports = {int(address.rpartition(":")[2]) for address in addresses}
    count = 0
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - a Path would keep it open longer
        try:
            is_socket = stat.S_ISSOCK(os.fstat(int(name)).st_mode)
            if is_socket:
                with socket.socket(fileno=os.dup(int(name))) as sock:
                    count += sock.family == socket.AF_INET and sock.getpeername()[1] in ports
        except OSError:  # closed since the listing, or not connected
            continue
    return count


async def test_no_socket_is_left_after_many_questions_some_of_them_cancelled() -> None:
    client = HTTPClient()
    async with server(saying(OK)) as good, server(saying(b"no")) as bad, server(hang) as silent:
        for _ in range(20):
            for where in (good, bad, f"127.0.0.1:{free_port()}"):
                await client.ask(Question(f"http://{where}/"))
                await client.ask(Question(f"https://{where}/"))
                await ask_loopback(f"http://{where}/")
            for ask in (ask_anywhere, ask_loopback):
                with trio.move_on_after(0.002):
                    await ask(f"http://{silent}/")
        assert 0 == clients(good, bad, silent)


async def test_a_tls_handshake_that_is_cancelled_leaves_no_socket() -> None:
    async with server(hang) as address:
        client = HTTPClient()
        for _ in range(2):
            with trio.move_on_after(0.1):
                await client.ask(Question(f"https://{address}/"))
        assert 0 == clients(address)


async def test_the_want_of_descriptors_is_a_problem_and_no_exception(ask: Ask) -> None:
    _loopback_http.prepare()
    address = f"127.0.0.1:{free_port()}"
    await get(ask, address)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The lowest free number is the only one that is left, and it is taken.
    only = os.open(os.devnull, os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (only + 1, hard))
    try:
        answer = await get(ask, address)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(only)
    assert (None, False) == (answer.status, answer.absent)
    assert "Too many open files" in answer.problem


# --- TLS ------------------------------------------------------------------------------------------


@pytest.mark.needs("openssl")
async def test_a_certificate_that_nobody_vouches_for_is_a_problem_that_says_so(
    certificate: Path,
) -> None:
    async with server(saying(OK), tls(certificate)) as address:
        answer = await get(ask_anywhere, address, "https")
    assert (None, False) == (answer.status, answer.absent)
    assert "certificate verify failed" in answer.problem


@pytest.mark.needs("openssl")
async def test_a_certificate_that_the_system_trusts_is_good(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with server(saying(OK), tls(certificate)) as address:
        assert Answer(200) == await get(ask_anywhere, address, "https")
