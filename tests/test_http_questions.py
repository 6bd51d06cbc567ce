"""Asking over HTTP in other ways than by a GET: what is sent, and what comes back."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio
from attrs import evolve

from tests.certificates import certificate, tls
from tests.servers import OK, Talk, saying, server
from tests.support import free_port
from trio_lifecycle import TLS, ConfigError, LocalSpawner, _loopback_http
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Answer, Question

__all__ = ["certificate"]

Ask = Callable[[Question], Awaitable[Answer]]


async def ask_loopback(question: Question) -> Answer:
    address = _loopback_http.way_to(question)
    assert address is not None
    return await _loopback_http.ask(question, address)


async def ask_anywhere(question: Question) -> Answer:
    return await HTTPClient().ask(question)


async def connected(question: Question) -> trio.SocketStream:
    """A connection that stands for one through another machine."""
    if question.unix_path is not None:
        return await trio.open_unix_socket(question.unix_path)
    parts = urlsplit(question.url)
    return await trio.open_tcp_stream(parts.hostname or "", parts.port or 0)


async def ask_plainly_over_stream(question: Question) -> Answer:
    try:
        async with await connected(question) as stream:
            return await _loopback_http.ask_over(stream, question)
    except OSError:
        return Answer(None, absent=True)


async def ask_over_stream(question: Question) -> Answer:
    try:
        async with await connected(question) as stream:
            return await HTTPClient().ask(question, stream)
    except OSError:
        return Answer(None, absent=True)


@pytest.fixture(params=[ask_loopback, ask_anywhere, ask_plainly_over_stream, ask_over_stream])
def ask(request: pytest.FixtureRequest) -> Ask:
    """Each of the ways to ask; whichever is taken, the answer is the same."""
    way: Ask = request.param
    return way


@asynccontextmanager
async def at_socket(path: Path, talk: Talk) -> AsyncIterator[None]:
    """A server at a UNIX socket."""
    with trio.socket.socket(trio.socket.AF_UNIX) as sock:
        await sock.bind(str(path))
        sock.listen()
        async with trio.open_nursery() as nursery:
            await nursery.start(trio.serve_listeners, talk, [trio.SocketListener(sock)])
            yield
            nursery.cancel_scope.cancel()


class Noted:
    """Notes what it is asked, and answers 200."""

    def __init__(self, answer: bytes = OK, body: bytes = b"") -> None:
        self.heard = b""
        self._answer = answer
        self._end = b"\r\n\r\n" + body

    async def __call__(self, stream: trio.abc.Stream) -> None:
        # A body may come by itself, after the headers.
        while not self.heard.endswith(self._end):
            self.heard += bytes(await stream.receive_some(65_536))
        await stream.send_all(self._answer)
        await stream.aclose()

    @property
    def lines(self) -> list[bytes]:
        return self.heard.partition(b"\r\n\r\n")[0].lower().splitlines()


async def test_method_headers_and_body_are_sent_as_they_were_given(ask: Ask) -> None:
    noted = Noted(body=b"0123456")
    headers = (("X-Probe", "a b"), ("Host", "virtual"), ("accept", "text/plain"))
    async with server(noted) as address:
        question = Question(f"http://{address}/a?b", method="PUT", headers=headers, body=b"0123456")
        assert Answer(200) == await ask(question)
    assert b"put /a?b http/1.1" == noted.lines[0]
    for line in (b"x-probe: a b", b"host: virtual", b"accept: text/plain", b"content-length: 7"):
        assert 1 == noted.lines.count(line)
    assert b"connection: close" in noted.lines
    assert noted.heard.endswith(b"\r\n\r\n0123456")


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "GET", "DELETE"])
async def test_without_a_body_a_post_says_so_and_others_say_nothing(ask: Ask, method: str) -> None:
    noted = Noted()
    async with server(noted) as address:
        assert Answer(200) == await ask(Question(f"http://{address}/", method=method))
    lengths = [line for line in noted.lines if line.startswith(b"content-length")]
    assert ([b"content-length: 0"] if method == "POST" else []) == lengths


async def test_the_answer_to_head_has_no_body_whatever_its_headers_say(ask: Ask) -> None:
    async with server(saying(OK.removesuffix(b"ok"))) as address:
        question = Question(f"http://{address}/", method="HEAD", body_bytes=100)
        with trio.fail_after(10):
            answer = await ask(question)
    assert (200, b"") == (answer.status, answer.body)


async def test_over_a_unix_socket_only_the_socket_is_asked(ask: Ask, tmp_path: Path) -> None:
    path, noted = tmp_path / "a.sock", Noted()
    question = Question(f"http://127.0.0.1:{free_port()}/x", unix_path=str(path), body_bytes=9)
    missing = await ask(question)
    assert (None, True) == (missing.status, missing.absent)
    async with at_socket(path, noted):
        answer = await ask(question)
    assert (200, b"ok") == (answer.status, answer.body)
    assert b"get /x http/1.1" == noted.lines[0]
    left = await ask(question)
    assert (None, True) == (left.status, left.absent)


# --- TLS ------------------------------------------------------------------------------------------

pytestmark = pytest.mark.needs("openssl")


async def ask_over_tls(
    url: str, how: TLS | None, context: ssl.SSLContext, **changes: Any
) -> Answer:
    prober = LocalSpawner().open_prober()
    async with server(saying(OK), context) as address:
        port = address.rpartition(":")[2]
        question = Question(url.replace("PORT", port), tls=how, **changes)
        await prober.prepare(question)
        with trio.fail_after(10):
            answer = await prober.ask(question)
            over_stream = await ask_over_stream(question)
    assert answer.status == over_stream.status
    return answer


async def test_an_authority_of_ones_own_is_trusted_and_the_name_must_be_right(
    certificate: Path,
) -> None:
    how, context = TLS(ca_file=certificate), tls(certificate)
    assert 200 == (await ask_over_tls("https://127.0.0.1:PORT/", how, context)).status
    named = await ask_over_tls("https://127.0.0.1:PORT/", how, context, server_name="localhost")
    assert 200 == named.status
    other = await ask_over_tls("https://127.0.0.1:PORT/", how, context, server_name="other")
    assert "Hostname mismatch" in other.problem
    system = await ask_over_tls("https://127.0.0.1:PORT/", None, context)
    assert "certificate verify failed" in system.problem


async def test_without_verification_any_certificate_will_do(certificate: Path) -> None:
    answer = await ask_over_tls(
        "https://127.0.0.1:PORT/", TLS(verify=False), tls(certificate), server_name="other"
    )
    assert 200 == answer.status


async def test_a_certificate_is_shown_to_a_server_that_wants_one(certificate: Path) -> None:
    context = tls(certificate, of_clients=True)
    bare = TLS(ca_file=certificate)
    assert (await ask_over_tls("https://127.0.0.1:PORT/", bare, context)).status is None
    for shown in (evolve(bare, certificate=certificate), evolve(bare, **pair(certificate))):
        assert 200 == (await ask_over_tls("https://127.0.0.1:PORT/", shown, context)).status


def pair(certificate: Path) -> dict[str, Any]:
    """The certificate and its key in two files."""
    key, _, rest = certificate.read_text().partition("-----BEGIN CERTIFICATE")
    files = certificate.with_name("key.pem"), certificate.with_name("certificate.pem")
    files[0].write_text(key)
    files[1].write_text("-----BEGIN CERTIFICATE" + rest)
    return {"key": str(files[0]), "certificate": str(files[1])}


async def test_tls_is_spoken_over_a_unix_socket_too(certificate: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.sock"

    async def secured(stream: trio.abc.Stream) -> None:
        secure = trio.SSLStream(stream, tls(certificate), server_side=True)
        with suppress(trio.BrokenResourceError):  # who only looks whether anybody listens
            await saying(OK)(secure)
        await trio.aclose_forcefully(stream)

    async with at_socket(path, secured):
        question = Question("https://localhost/", unix_path=str(path), tls=TLS(ca_file=certificate))
        assert Answer(200) == await LocalSpawner().open_prober().ask(question)


async def test_a_file_that_is_renewed_is_read_again_before_the_next_spawn(
    certificate: Path, tmp_path: Path
) -> None:
    prober, trusted = LocalSpawner().open_prober(), tmp_path / "ca.pem"
    await trio.Path(trusted).write_bytes(await trio.Path(certificate).read_bytes())
    async with server(saying(OK), tls(certificate)) as address:
        question = Question(f"https://{address}/", tls=TLS(ca_file=trusted))
        await prober.prepare(question)
        assert 200 == (await prober.ask(question)).status
        trusted.write_text("nothing")
        assert 200 == (await prober.ask(question)).status
        with pytest.raises(ConfigError, match=r"ca\.pem does not hold what it should"):
            await prober.prepare(question)


LOCKED = """
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgAAAAAAAAAAAICCAAw
-----END ENCRYPTED PRIVATE KEY-----
"""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("ca_file", r"^tls\.ca_file: .*none\.pem can't be read: No such file"),
        ("certificate", r"^tls\.certificate: .*none\.pem can't be read: No such file"),
        ("key", r"^tls\.key: .*none\.pem can't be read: No such file"),
        ("wrong certificate", r"^tls\.certificate: .*wrong\.pem does not hold"),
        ("locked key", r"^tls\.certificate: .*locked\.pem does not hold"),
    ],
)
async def test_a_file_that_is_not_what_it_should_be_is_named(
    certificate: Path, tmp_path: Path, name: str, problem: str
) -> None:
    none, wrong, locked = (tmp_path / f"{part}.pem" for part in ("none", "wrong", "locked"))
    wrong.write_text("no certificate")
    locked.write_text(LOCKED)
    how = {
        "ca_file": TLS(ca_file=none),
        "certificate": TLS(certificate=none),
        "key": TLS(certificate=certificate, key=none),
        "wrong certificate": TLS(certificate=wrong),
        "locked key": TLS(certificate=certificate, key=locked),
    }[name]
    with pytest.raises(ConfigError, match=problem):
        await LocalSpawner().open_prober().prepare(Question("https://127.0.0.1/", tls=how))


@pytest.mark.parametrize(
    ("field", "args"),
    [
        ("verify", {"verify": 1}),
        ("ca_file", {"ca_file": ""}),
        ("ca_file", {"ca_file": "x", "verify": False}),
        ("certificate", {"certificate": 1}),
        ("key", {"key": "x"}),
    ],
)
def test_what_can_be_no_tls_is_refused(field: str, args: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"^tls\.{field}:"):
        TLS(**args)


@pytest.mark.fault(96)
def test_a_question_shows_no_header_and_no_body() -> None:
    question = Question("http://d/", headers=(("a", "secret"),), body=b"secret")
    assert "secret" not in repr(question)
