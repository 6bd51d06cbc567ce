"""Asking a URL anywhere over HTTP: the only file that says httpx."""

import errno
import functools
import importlib.util
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import trio

from trio_lifecycle._connecting import explain, reaches_itself, reason
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._questions import TLS, Question
from trio_lifecycle._streamed_http import stream_pool
from trio_lifecycle._version import __version__
from trio_lifecycle.abc import Answer

if TYPE_CHECKING:
    import httpx

_HEADERS: Final = {
    "user-agent": f"trio-lifecycle/{__version__}",
    "accept": "*/*",
    "connection": "close",
}

# What httpcore says when there is a socket.
_CONNECTED: Final = frozenset(
    {"connection.connect_tcp.complete", "connection.connect_unix_socket.complete"}
)


class HTTPClient:
    """Sends single questions, each on a fresh connection.

    It uses httpx's transport without its client: nothing here wants proxies from the environment
    (one made a dead port look healthy), redirects, cookies, pooled connections (one hides a
    restart) or decoded bodies (a bomb is 200 MB). The connection and read timeouts of httpx are
    off, too: they start anew with each byte. The caller's cancel scope is the one deadline.
    """

    def __init__(self) -> None:
        self._contexts: dict[TLS, ssl.SSLContext] = {}
        self._transports: dict[tuple[TLS | None, bool], httpx.AsyncHTTPTransport] = {}

    async def prepare(self, question: Question) -> None:
        """Read the files for TLS anew, and see that HTTP/2 can be spoken.

        Raises:
            ConfigError: A file is not what it should be, or h2 is not installed.
        """
        if question.http2 and importlib.util.find_spec("h2") is None:
            problem = "HTTP/2 needs the package h2: pip install 'trio-lifecycle[grpc]'"
            raise ConfigError("ready_mode", problem)
        tls = _tls_of(question)
        if tls is not None and (tls != TLS() or tls not in self._contexts):
            self._contexts[tls] = await trio.to_thread.run_sync(make_context, tls)
            self._transports.pop((tls, question.http2), None)

    async def ask(self, question: Question, stream: trio.abc.Stream | None = None) -> Answer:
        """Ask once; never raises for what a server does.

        Args:
            question: What to ask.
            stream: The connection to ask over, for who makes it and closes it; None makes one.
        """
        import httpx

        transport = await self._transport(question, stream)
        connection = _Connection()
        extensions: dict[str, Any] = {"trace": connection.note}
        if question.server_name is not None:
            extensions["sni_hostname"] = question.server_name
        request = httpx.Request(
            question.method,
            question.url,
            headers=_headers(question),
            stream=_stream_class()(question.body),
            extensions=extensions,
        )
        try:
            response = await transport.handle_async_request(request)
            answer = await _read(response, question.body_bytes)
            await response.aclose()
        except (httpx.ConnectError, ConnectionRefusedError) as error:
            problem, absent = explain(error)
            return Answer(None, problem, absent)
        except httpx.HTTPError as error:
            return Answer(None, f"gave no HTTP answer ({reason(error)})")
        finally:
            connection.close()
        return answer

    async def _transport(
        self, question: Question, stream: trio.abc.Stream | None
    ) -> "httpx.AsyncHTTPTransport":
        tls = _tls_of(question)
        is_kept = question.unix_path is None and stream is None
        kept = self._transports.get((tls, question.http2))
        if kept is not None and is_kept:
            return kept
        if tls not in self._contexts:
            await self.prepare(question)
        context = None if tls is None else self._contexts[tls]
        transport = _new_transport(context, question)
        if stream is not None:
            # Httpx has no other way to be given a connection.
            transport._pool = stream_pool(stream, context, http2=question.http2)
        elif is_kept:  # else there may be another path for each spawn
            self._transports[tls, question.http2] = transport
        return transport


def _tls_of(question: Question) -> TLS | None:
    return (question.tls or TLS()) if question.url.startswith("https:") else None


def _headers(question: Question) -> dict[str, str]:
    headers = {
        "host": urlsplit(question.url).netloc,
        **_HEADERS,
        **{name.lower(): value for name, value in question.headers},
    }
    if question.http2:
        del headers["connection"]  # RFC 9113 section 8.2.2 forbids it
    if question.says_length:
        headers["content-length"] = str(len(question.body))
    return headers


class _Once(AsyncIterator[bytes]):
    """A body in one piece.

    Httpx's own is an async generator, which Python warns of when a server closes too early.
    """

    def __init__(self, body: bytes) -> None:
        self._left = [body] if body else []

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


@functools.cache
def _stream_class() -> "Callable[[bytes], httpx.AsyncByteStream]":
    import httpx

    class Body(httpx.AsyncByteStream):
        def __init__(self, body: bytes) -> None:
            self._body = body

        def __aiter__(self) -> AsyncIterator[bytes]:
            return _Once(self._body)

    return Body


def _new_transport(
    context: ssl.SSLContext | None, question: Question
) -> "httpx.AsyncHTTPTransport":
    import httpx

    return httpx.AsyncHTTPTransport(
        verify=context or False,
        trust_env=False,
        http1=not question.http2,
        http2=question.http2,
        uds=question.unix_path,
        limits=httpx.Limits(max_keepalive_connections=0),
    )


def make_context(tls: TLS) -> ssl.SSLContext:
    """Read what TLS needs. It takes 25 ms for the certificates of the system.

    Raises:
        ConfigError: A file can't be read, or is not what it should be; names the field and file.
    """
    try:
        context = ssl.create_default_context(cafile=tls.ca_file)
    except OSError as error:
        raise _bad_file("tls.ca_file", tls.ca_file, error) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if tls.certificate is not None:
        _load_certificate(context, tls.certificate, tls.key)
    return context


def _load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    for field, path in (("tls.certificate", certificate), ("tls.key", key)):
        try:
            if path is not None:
                Path(path).read_bytes()
        except OSError as error:
            raise _bad_file(field, path, error) from error
    try:
        # Without a password of its own OpenSSL would ask for one at the terminal.
        context.load_cert_chain(certificate, key, password="")
    except OSError as error:
        shown = certificate if key is None else f"{certificate} with {key}"
        raise _bad_file("tls.certificate", shown, error) from error


def _bad_file(field: str, path: str | None, error: OSError) -> ConfigError:
    if isinstance(error, ssl.SSLError):
        problem = "does not hold what it should, in PEM form and without a passphrase"
        return ConfigError(field, f"{path} {problem} ({error.reason or error})")
    return ConfigError(field, f"{path} can't be read: {error.strerror}")


async def _read(response: "httpx.Response", body_bytes: int) -> Answer:
    if not body_bytes:
        return Answer(response.status_code)
    body = b""
    async for chunk in response.aiter_raw():
        body = (body + chunk)[:body_bytes]
        if len(body) == body_bytes:
            break
    return Answer(response.status_code, headers=dict(response.headers), body=body)


class _Connection:
    """The connection of one question.

    Closed here, for httpcore forgets one whose TLS handshake is cancelled.
    """

    def __init__(self) -> None:
        self._sockets: list[Any] = []

    async def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take what httpcore's extension "trace" tells."""
        sock = facts["return_value"].get_extra_info("socket") if event in _CONNECTED else None
        if sock is not None:
            self._sockets.append(sock)
            if reaches_itself(sock):
                raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))

    def close(self) -> None:
        """Close it at once; again is fine."""
        for sock in self._sockets:
            sock.close()
