"""Asking a URL of this machine over HTTP, on a connection that costs next to nothing to be refused.

Waiting for a daemon is asking some hundred times whether it listens yet. On a loopback address
connect(2) knows at once, so a refusal takes 20 us here, and the first connection that is taken
carries the question itself.
"""

import errno
import os
import socket
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import trio

from trio_lifecycle._reports import Answer
from trio_lifecycle._urls import host_of, loopback_addresses, port_of
from trio_lifecycle._version import __version__

if TYPE_CHECKING:
    import h11

READ_BYTES: Final = 16_384

# What a machine without IPv6 says of ::1, such as most containers.
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EAFNOSUPPORT})


@lru_cache(maxsize=1024)
def loopback_address(url: str) -> tuple[str, int] | None:
    """Give the one loopback address that a plain-text URL leads to; None for any other URL."""
    hosts = loopback_addresses(host_of(url))
    return (hosts[0], port_of(url)) if url.startswith("http:") and len(hosts) == 1 else None


def prepare() -> None:
    """Import the parser now, so that the first question is not late."""
    import h11  # noqa: F401


async def get(url: str, address: tuple[str, int], body_bytes: int = 0) -> Answer:
    """Ask once; never raises for what a server does. A refusal comes without a checkpoint."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
            sock.setblocking(False)
            error = sock.connect_ex(address)
            if error == errno.EINPROGRESS:
                # What a loopback connection came to is known by now, unless its queue is full.
                error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error == errno.ECONNREFUSED:
                return Answer(None, "refused the connection", absent=True)
            if error:
                raise OSError(error, os.strerror(error))
            return await _ask(trio.socket.from_stdlib_socket(sock), url, body_bytes)
    except OSError as failure:
        is_missing = ":" in address[0] and failure.errno in _NO_IPV6
        return Answer(None, f"gave no HTTP answer ({failure})", absent=is_missing)


async def _ask(sock: trio.socket.SocketType, url: str, body_bytes: int) -> Answer:
    import h11

    connection = h11.Connection(h11.CLIENT)
    question = connection.send(_request(url)) or b""
    connection.send(h11.EndOfMessage())
    while question:
        question = question[await sock.send(question) :]
    answer: Answer | None = None
    try:
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                received = await sock.recv(READ_BYTES)
                if not received and answer is None:
                    return Answer(None, "closed the connection without an answer")
                connection.receive_data(received)
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
def _request(url: str) -> "h11.Request":
    import h11

    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    headers = {
        "host": parts.netloc,
        "user-agent": f"trio-lifecycle/{__version__}",
        "accept": "*/*",
        "connection": "close",
    }
    return h11.Request(method="GET", target=target, headers=list(headers.items()))
