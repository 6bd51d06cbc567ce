"""Asking over HTTP: whatever a server does, there is an answer, in time and without waste."""

import os
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support import free_port, run_app
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Answer

Talk = Callable[[trio.abc.Stream], Awaitable[object]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def server(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on loopback that does what it wants with each connection; gives its address."""

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if context is not None:
            stream = trio.SSLStream(plain, context, server_side=True)
        try:
            await talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(plain)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


def saying(*chunks: bytes) -> Talk:
    """Answer a request with these bytes, and close."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65_536)
        for chunk in chunks:
            await stream.send_all(chunk)

    return talk


async def get(address: str, scheme: str = "http") -> Answer:
    """Ask within a limit that no test needs."""
    with trio.fail_after(10):
        return await HTTPClient().get(f"{scheme}://{address}/health")


async def answer_to(talk: Talk) -> Answer:
    async with server(talk) as address:
        return await get(address)


async def hang(_stream: trio.abc.Stream) -> None:
    await trio.sleep_forever()


async def read_and_hang(stream: trio.abc.Stream) -> None:
    await stream.receive_some(65_536)
    await trio.sleep_forever()


# --- what counts ----------------------------------------------------------------------------------


@pytest.mark.fault(21)
@pytest.mark.parametrize("status", [200, 204, 301, 307, 401, 404, 500, 503, 599, 999])
async def test_the_status_is_the_servers_own(status: int) -> None:
    reply = f"HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    assert Answer(status) == await answer_to(saying(reply.encode()))


@pytest.mark.fault(21)
async def test_a_redirect_is_not_followed() -> None:
    asked = []

    async def note(stream: trio.abc.Stream) -> None:
        asked.append(await stream.receive_some(65_536))
        await stream.send_all(OK)

    async with server(note) as target:
        redirect = f"HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\n\r\n"
        assert Answer(302) == await answer_to(saying(redirect.encode()))
    assert [] == asked


async def test_each_question_is_one_get_on_a_connection_of_its_own() -> None:
    asked = []

    async def note(stream: trio.abc.Stream) -> None:
        asked.append(bytes(await stream.receive_some(65_536)).splitlines())
        await stream.send_all(OK)
        assert b"" == await stream.receive_some(1)

    async with server(note) as address:
        client = HTTPClient()
        for _ in range(3):
            assert Answer(200) == await client.get(f"http://{address}/health?a=b")
    assert 3 == len(asked)
    assert {b"GET /health?a=b HTTP/1.1"} == {lines[0] for lines in asked}
    assert all(b"connection: close" in [line.lower() for line in lines] for lines in asked)


async def test_informational_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000
    assert Answer(200) == await answer_to(saying(early, OK))


PROXY_VARIABLES = ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@pytest.mark.fault(20)
async def test_a_proxy_in_the_environment_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with server(saying(OK)) as proxy:
        for name in PROXY_VARIABLES:
            monkeypatch.setenv(name, f"http://{proxy}")
        monkeypatch.delenv("no_proxy", raising=False)
        answer = await get(f"127.0.0.1:{free_port()}")
    assert Answer(None, "refused the connection", absent=True) == answer


# --- nothing there --------------------------------------------------------------------------------


async def test_a_refused_connection_means_that_nothing_is_there() -> None:
    answer = await get(f"127.0.0.1:{free_port()}")
    assert Answer(None, "refused the connection", absent=True) == answer


async def test_an_unreachable_address_means_that_nothing_is_there() -> None:
    # Broadcast and reserved: RFC 1112 section 4. No route leads there.
    answer = await get("255.255.255.255:80")
    assert answer.absent
    assert answer.problem.startswith("could not be")


@pytest.mark.parametrize(
    ("number", "absent"), [(-2, True), (-5, True), (-3, False), (-4, False)], ids=str
)
async def test_a_host_without_address_is_absent_only_when_the_resolver_is_sure(
    number: int, absent: bool
) -> None:
    """EAI_NONAME and EAI_NODATA are answers; EAI_AGAIN and EAI_FAIL mean that nobody knows."""
    trio.socket.set_custom_hostname_resolver(Resolver(number))
    answer = await get("service.example:80")
    assert absent == answer.absent
    assert "has a host that can't be resolved (as the test says)" == answer.problem


class Resolver(trio.abc.HostnameResolver):
    """A name server that is not there."""

    def __init__(self, number: int) -> None:
        self._number = number

    async def getaddrinfo(self, *args: object, **kwargs: object) -> list[object]:  # type: ignore[override]
        raise trio.socket.gaierror(self._number, "as the test says")

    async def getnameinfo(self, *args: object, **kwargs: object) -> tuple[str, str]:  # type: ignore[override]
        raise AssertionError("not asked for")


async def test_a_connection_that_is_not_answered_in_time_is_not_called_absent() -> None:
    """A listener whose queue is full drops what comes: only the caller's deadline ends it."""
    with trio.socket.socket() as listener:
        await listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [trio.socket.socket() for _ in range(2)]
        try:
            for sock in filling:
                with trio.move_on_after(0.2):
                    await sock.connect(address)
            with trio.move_on_after(0.3) as scope:
                await HTTPClient().get(f"http://127.0.0.1:{address[1]}/")
            assert scope.cancelled_caught
        finally:
            for sock in filling:
                sock.close()


# --- what is no HTTP ------------------------------------------------------------------------------

NO_HTTP = {
    "an ssh server": [b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"],
    "nothing": [b""],
    "half a status line": [b"HTTP/1.1 20"],
    "headers that break off": [b"HTTP/1.1 200 OK\r\ncontent-le"],
    "binary": [bytes(range(256)) * 10],
    "TLS": [b"\x15\x03\x01\x00\x02\x02\x28"],
    "status 99": [b"HTTP/1.1 099 X\r\n\r\n"],
    "two lengths": [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"],
    "a header of 1 MB": [b"HTTP/1.1 200 OK\r\nx: ", *[b"y" * 10_000] * 100],
    "a line that never ends": [*[b"z" * 10_000] * 100],
    "no status": [b"HTTP/1.1\r\n\r\n"],
    "UTF-16": ["HTTP/1.1 200 OK\r\n\r\n".encode("utf-16")],
}


@pytest.mark.fault(23)
@pytest.mark.parametrize("chunks", NO_HTTP.values(), ids=NO_HTTP.keys())
async def test_what_is_no_http_is_a_problem_and_no_exception(chunks: list[bytes]) -> None:
    answer = await answer_to(saying(*chunks))
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem.startswith("gave no HTTP answer (")


@pytest.mark.fault(23)
async def test_a_connection_that_is_reset_is_a_problem() -> None:
    async def reset(stream: trio.abc.Stream) -> None:
        assert isinstance(stream, trio.SocketStream)
        # Closing with bytes unread sends RST.
        await trio.lowlevel.wait_readable(stream.socket)
        stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    answer = await answer_to(reset)
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem.startswith("gave no HTTP answer (")


@pytest.mark.fault(23)
async def test_a_body_that_breaks_the_rules_is_nobodys_business() -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nNO SIZE\r\n"
    assert Answer(200) == await answer_to(saying(chunked))
    gzipped = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nplain"
    assert Answer(200) == await answer_to(saying(gzipped))


@pytest.mark.fault(23)
async def test_https_to_a_server_without_tls_is_a_problem() -> None:
    async with server(saying(OK)) as address:
        answer = await get(address, "https")
    assert (None, False) == (answer.status, answer.absent)
    assert answer.problem.startswith("could not be connected to (")


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody but itself vouches for, with its key."""
    path = tmp_path_factory.mktemp("tls") / "self-signed.pem"
    words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
    extension = "subjectAltName=IP:127.0.0.1"
    command = ["openssl", *words.split(), "-addext", extension, "-keyout", path, "-out", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    path.write_bytes(path.read_bytes() + done.stdout)
    return path


def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


@pytest.mark.needs("openssl")
async def test_a_certificate_that_nobody_vouches_for_is_a_problem_that_says_so(
    certificate: Path,
) -> None:
    async with server(saying(OK), tls(certificate)) as address:
        answer = await get(address, "https")
    assert (None, False) == (answer.status, answer.absent)
    assert "certificate verify failed" in answer.problem


@pytest.mark.needs("openssl")
async def test_a_certificate_that_the_system_trusts_is_good(
    certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with server(saying(OK), tls(certificate)) as address:
        assert Answer(200) == await get(address, "https")


# --- bounds ---------------------------------------------------------------------------------------


async def drip(stream: trio.abc.Stream) -> None:
    await stream.receive_some(65_536)
    for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000:
        await stream.send_all(bytes([byte]))
        await trio.sleep(0.01)


async def endless_hints(stream: trio.abc.Stream) -> None:
    while True:
        await stream.send_all(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)


HANGING = {
    "silence": hang,
    "drip": drip,
    "endless hints": endless_hints,
    "answers not": read_and_hang,
}


@pytest.mark.fault(22, 25)
@pytest.mark.parametrize("talk", HANGING.values(), ids=HANGING.keys())
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_callers_deadline_ends_it(talk: Talk, scheme: str) -> None:
    async with server(talk) as address:
        client = HTTPClient()
        await client.get(f"{scheme}://127.0.0.1:{free_port()}/")  # loads what it needs
        began = trio.current_time()
        with trio.move_on_after(0.2) as scope:
            await client.get(f"{scheme}://{address}/")
        if not (scheme == "https" and talk in (drip, endless_hints)):  # that is no TLS
            assert scope.cancelled_caught
        assert trio.current_time() - began < 2


MEASURED = """
import resource
from trio_lifecycle._http import HTTPClient

FLOOD = b"x" * 65_536

async def endless(stream):
    await stream.receive_some(65_536)
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\n" + EXTRA + b"\\r\\n")
    while True:
        await stream.send_all(FLOOD)

async def header(stream):
    await stream.receive_some(65_536)
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\nx: ")
    for _ in range(1000):
        await stream.send_all(FLOOD)

async def bomb(stream):
    import zlib
    await stream.receive_some(65_536)
    squeezed = zlib.compress(b"\\0" * 50_000_000, wbits=31)
    await stream.send_all(b"HTTP/1.1 200 OK\\r\\ncontent-encoding: gzip\\r\\n\\r\\n" + squeezed)

def serve(listener):
    # In a process of its own, so that its memory does not count.
    async def main():
        async def one(stream):
            try:
                await globals()[sys.argv[1]](stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass
            await trio.aclose_forcefully(stream)
        await trio.serve_listeners(one, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])
    trio.run(main)

import socket
EXTRA = b"content-length: 1000000000\\r\\n" if sys.argv[2:] else b""
listener = socket.create_server(("127.0.0.1", 0))
server = os.fork()
if server == 0:
    try:
        serve(listener)
    finally:
        os._exit(0)
url = "http://127.0.0.1:%d/" % listener.getsockname()[1]

async def main():
    client = HTTPClient()
    with trio.move_on_after(5):
        await client.get("http://127.0.0.1:1/")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = trio.current_time()
    for _ in range(3):
        with trio.move_on_after(1):
            print(await client.get(url))
    print("fast", trio.current_time() - began < 2)
    print("small", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5 * 1024)

try:
    trio.run(main)
finally:
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
"""


@pytest.mark.fault(22)
@pytest.mark.parametrize("kind", [["endless"], ["endless", "with a length"], ["bomb"], ["header"]])
def test_memory_does_not_grow_with_what_a_server_sends(kind: list[str]) -> None:
    *answers, fast, small = run_app(MEASURED, *kind)
    expected = "gave no HTTP answer (" if kind == ["header"] else "answered 200"
    assert 3 == sum(answer.startswith(expected) for answer in answers)
    assert ["fast True", "small True"] == [fast, small]


async def test_no_descriptor_is_left_after_many_questions_some_of_them_cancelled() -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - a Path would keep it open longer

    client = HTTPClient()
    async with server(saying(OK)) as good, server(saying(b"no")) as bad, server(hang) as silent:
        urls = [f"{scheme}://{where}/" for where in (good, bad) for scheme in ("http", "https")]

        async def ask_all() -> None:
            for url in urls:
                await client.get(url)
            for scheme in ("http", "https"):
                with trio.move_on_after(0.001):
                    await client.get(f"{scheme}://{silent}/")
            with trio.CancelScope() as scope:
                scope.cancel()
                await client.get(urls[0])

        await ask_all()
        await trio.testing.wait_all_tasks_blocked(0.01)
        before = count()
        for _ in range(30):
            await ask_all()
        # The connections that hang are the server's until it is told to end.
    await trio.testing.wait_all_tasks_blocked(0.01)
    assert count() <= before


async def test_questions_may_be_asked_all_at_once() -> None:
    client = HTTPClient()
    answers = []

    async def ask(url: str) -> None:
        answers.append(await client.get(url))

    async with server(saying(OK)) as address, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(ask, f"http://{address}/")
    assert [Answer(200)] * 50 == answers
