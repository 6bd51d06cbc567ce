"""Asking this machine over HTTP, on a connection that costs next to nothing to be refused.

Waiting for a daemon is asking some hundred times whether it listens yet. On a loopback address
connect(2) knows at once, so a refusal takes 20 us here, and the first connection that is taken
carries the question itself.
"""

import errno
import os
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from trio_lifecycle._connecting import REFUSED, Address, connect_now, explain_here, new_socket
from trio_lifecycle._questions import Question
from trio_lifecycle._reports import Answer
from trio_lifecycle._urls import host_of, loopback_addresses, port_of
from trio_lifecycle._version import __version__

if TYPE_CHECKING:
    import h11

READ_BYTES: Final = 16_384


@lru_cache(maxsize=1024)
def way_to(question: Question) -> Address | None:
    """Give the one address of this machine that a plain-text question goes to; else None."""
    return address_of(question) if is_plain(question) else None


@lru_cache(maxsize=1024)
def address_of(question: Question) -> Address | None:
    """Give the one address of this machine that a question goes to; None for any other."""
    if question.unix_path is not None:
        return question.unix_path
    hosts = loopback_addresses(host_of(question.url))
    return (hosts[0], port_of(question.url)) if len(hosts) == 1 else None


def prepare() -> None:
    """Import the parser now, so that the first question is not late."""
    import h11  # noqa: F401


async def ask(question: Question, address: Address) -> Answer:
    """Ask once; never raises for what a server does. A refusal comes without a checkpoint."""
    try:
        with new_socket(address) as sock:
            error = connect_now(sock, address)
            if error == errno.ECONNREFUSED:
                return Answer(None, REFUSED, absent=True)
            if error:
                raise OSError(error, os.strerror(error))
            connected = trio.socket.from_stdlib_socket(sock)
            return await _ask(connected.send, connected.recv, question)
    except OSError as failure:
        _, is_missing = explain_here(address, failure.errno or 0)
        return Answer(None, f"gave no HTTP answer ({failure})", absent=is_missing)


def is_plain(question: Question) -> bool:
    """Say whether a question is one for ``ask_over``: neither TLS nor HTTP/2."""
    return question.url.startswith("http:") and not question.http2


async def ask_over(stream: trio.abc.Stream, question: Question) -> Answer:
    """Ask once over a connection that is made; never raises for what a server does."""

    async def send(said: bytes) -> int:
        await stream.send_all(said)
        return len(said)

    try:
        return await _ask(send, stream.receive_some, question)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        return Answer(None, f"gave no HTTP answer ({error.__cause__ or error})")


async def _ask(
    send: Callable[[bytes], Awaitable[int]],
    receive: Callable[[int], Awaitable[bytes | bytearray]],
    question: Question,
) -> Answer:
    import h11

    connection = h11.Connection(h11.CLIENT)
    body_bytes = question.body_bytes
    said = connection.send(_request(question)) or b""
    if question.body:
        said += connection.send(h11.Data(data=question.body)) or b""
    connection.send(h11.EndOfMessage())
    while said:
        said = said[await send(said) :]
    answer: Answer | None = None
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                received = await receive(READ_BYTES)
                if not received and answer is None:
                    return Answer(None, "closed the connection without an answer")
                connection.receive_data(bytes(received))
            elif isinstance(event, h11.Response):
                if not body_bytes:
                    return Answer(event.status_code)
                answer = Answer(event.status_code, headers=_headers(event))
            elif answer is not None:
                if not isinstance(event, h11.Data):
                    return answer
                answer = answer._replace(body=(answer.body + event.data)[:body_bytes])
                if len(answer.body) == body_bytes:
                    return answer
            elif not isinstance(event, h11.InformationalResponse):
                return Answer(None, "gave no HTTP answer (it wants to speak another protocol)")
    except h11.RemoteProtocolError as error:
        return answer or Answer(None, f"gave no HTTP answer ({error})")


def _headers(response: "h11.Response") -> dict[str, str]:
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in response.headers}


@lru_cache(maxsize=1024)
def _request(question: Question) -> "h11.Request":
    import h11

    parts = urlsplit(question.url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "host": parts.netloc,
        "user-agent": f"trio-lifecycle/{__version__}",
        "accept": "*/*",
        "connection": "close",
        **{name.lower(): value for name, value in question.headers},
    }
    if question.says_length:
        headers["content-length"] = str(len(question.body))
    return h11.Request(method=question.method, target=target, headers=list(headers.items()))
