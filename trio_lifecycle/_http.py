"""Asking a URL over HTTP: the only file that says httpx."""

import errno
import socket
import ssl
from typing import TYPE_CHECKING, Final

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
    {errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL}
)


class HTTPClient:
    """Sends single GET requests, each on a fresh connection.

    It uses httpx's transport without its client: nothing here wants proxies from the environment
    (one made a dead port look healthy), redirects, cookies, pooled connections (one hides a
    restart) or decoded bodies (a bomb is 200 MB). The connection and read timeouts of httpx are
    off, too: they start anew with each byte. The caller's cancel scope is the one deadline.
    """

    def __init__(self) -> None:
        self._transports: dict[str, httpx.AsyncHTTPTransport] = {}

    def prepare(self) -> None:
        """Import httpx now, which takes some 80 ms once per program."""
        self._transport("http")

    async def get(self, url: str) -> Answer:
        """Ask once; never raises for what a server does."""
        import httpx

        if url.startswith("https:") and "https" not in self._transports:
            # Loading the certificates of the system takes 25 ms, too long for the event loop.
            context = await trio.to_thread.run_sync(ssl.create_default_context)
            self._transports["https"] = _transport(context)
        transport = self._transport(url.partition(":")[0])
        try:
            response = await transport.handle_async_request(
                httpx.Request("GET", url, headers=_HEADERS)
            )
            await response.aclose()
        except httpx.ConnectError as error:
            return _unconnected(error)
        except httpx.HTTPError as error:
            return Answer(None, f"gave no HTTP answer ({_reason(error)})")
        return Answer(response.status_code)

    def _transport(self, scheme: str) -> "httpx.AsyncHTTPTransport":
        if scheme not in self._transports:
            self._transports[scheme] = _transport(verify=False)
        return self._transports[scheme]


def _transport(verify: ssl.SSLContext | bool) -> "httpx.AsyncHTTPTransport":
    import httpx

    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.AsyncHTTPTransport(verify=verify, trust_env=False, limits=limits)


def _unconnected(error: Exception) -> Answer:
    for cause in _causes(error):
        if isinstance(cause, socket.gaierror):
            return Answer(
                None, f"has a host that can't be resolved ({cause.strerror})", absent=True
            )
        if isinstance(cause, OSError) and cause.errno in _ABSENT:
            return refused(cause.errno)
    return Answer(None, f"could not be connected to ({_reason(error)})")


def refused(number: int) -> Answer:
    """Give the answer of a place where nothing listens."""
    if number == errno.ECONNREFUSED:
        return Answer(None, "refused the connection", absent=True)
    return Answer(None, f"could not be reached ({errno.errorcode[number]})", absent=True)


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
    return str(error) or type(error).__name__
