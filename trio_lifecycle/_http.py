"""Asking a URL anywhere over HTTP: the only file that says httpx."""

import errno
import os
import socket
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_lifecycle._version import __version__
from trio_lifecycle.abc import Answer

if TYPE_CHECKING:
    import httpx

_HEADERS: Final = {
    "user-agent": f"trio-lifecycle/{__version__}",
    "accept": "*/*",
    "connection": "close",
}

# Errors of connect(2) that mean: nothing is there. A time-out is not among them: it means that
# nobody knows.
_ABSENT: Final = frozenset(
    {
        errno.ECONNREFUSED,
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EAFNOSUPPORT,  # no IPv6 here
    }
)

# What a resolver says when it is sure (getaddrinfo(3)). With EAI_AGAIN and EAI_FAIL nobody knows.
_NO_SUCH_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})


class HTTPClient:
    """Sends single GET requests, each on a fresh connection.

    It uses httpx's transport without its client: nothing here wants proxies from the environment
    (one made a dead port look healthy), redirects, cookies, pooled connections (one hides a
    restart) or decoded bodies (a bomb is 200 MB). The connection and read timeouts of httpx are
    off, too: they start anew with each byte. The caller's cancel scope is the one deadline.
    """

    def __init__(self) -> None:
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    async def get(self, url: str, body_bytes: int = 0) -> Answer:
        """Ask once; never raises for what a server does."""
        import httpx

        if url.startswith("https:") and "https" not in self._transports:
            # Loading the certificates of the system takes 25 ms, too long for the event loop.
            context = await trio.to_thread.run_sync(ssl.create_default_context)
            self._transports["https"] = _transport(context)
        transport = self._transport(url.partition(":")[0])
        connection = _Connection()
        request = httpx.Request("GET", url, headers=_HEADERS, extensions={"trace": connection.note})
        try:
            response = await transport.handle_async_request(request)
            answer = await _read(response, body_bytes)
            await response.aclose()
        except httpx.ConnectError as error:
            return _unconnected(error)
        except httpx.HTTPError as error:
            return Answer(None, f"gave no HTTP answer ({_reason(error)})")
        finally:
            connection.close()
        return answer

    def _transport(self, scheme: str) -> "httpx.AsyncHTTPTransport":
        if scheme not in self._transports:
            self._transports[scheme] = _transport(verify=False)
        return self._transports[scheme]


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
        self._streams: list[Any] = []

    async def note(self, event: str, facts: Mapping[str, Any]) -> None:
        """Take what httpcore's extension "trace" tells."""
        if event == "connection.connect_tcp.complete":
            self._streams.append(facts["return_value"])

    def close(self) -> None:
        """Close it at once; again is fine."""
        for stream in self._streams:
            stream.get_extra_info("socket").close()


def _transport(verify: ssl.SSLContext | bool) -> "httpx.AsyncHTTPTransport":
    import httpx

    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)


def _unconnected(error: Exception) -> Answer:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            problem = f"has a host that can't be resolved ({cause.strerror})"
            return Answer(None, problem, absent=cause.errno in _NO_SUCH_HOST)
        if isinstance(cause, OSError) and cause.errno in _ABSENT:
            return Answer(
                None, f"could not be connected to ({os.strerror(cause.errno)})", absent=True
            )
    return Answer(None, f"could not be connected to ({_reason(error)})")


def _causes(error: BaseException | None) -> list[BaseException]:
    """Give an error and all that it came from.

    Httpx wraps the socket's error three deep, one of them a group.
    """
    if error is None:
        return []
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    below = [cause for each in inside for cause in _causes(each)]
    return [error, *below, *_causes(error.__cause__ or error.__context__)]


def _reason(error: Exception) -> str:
    # The innermost error says most: of a certificate that is not trusted, only that one speaks.
    said = (str(cause) for cause in reversed(_causes(error)))
    return next(filter(None, said), type(error).__name__)
