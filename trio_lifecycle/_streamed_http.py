"""HTTP over a connection that is made already, such as one through another machine."""

import ssl
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    import httpcore


def stream_pool(
    stream: trio.abc.Stream, context: ssl.SSLContext | None, *, http2: bool
) -> "httpcore.AsyncConnectionPool":
    """Give a pool of one connection: whatever it is to connect to, it gets this stream.

    Who made the stream closes it.
    """
    import httpcore

    class Streamed(httpcore.AsyncNetworkStream):
        def __init__(self, below: trio.abc.Stream) -> None:
            self._below = below

        # Without time limits: the caller's cancel scope is the one deadline.

        async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
            try:
                return bytes(await self._below.receive_some(max_bytes))
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.ReadError(str(error) or "the connection was cut") from error

        async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
            try:
                await self._below.send_all(buffer)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise httpcore.WriteError(str(error) or "the connection was cut") from error

        async def aclose(self) -> None:
            await trio.aclose_forcefully(self._below)

        async def start_tls(
            self,
            ssl_context: ssl.SSLContext,
            server_hostname: str | None = None,
            timeout: float | None = None,  # noqa: ASYNC109
        ) -> httpcore.AsyncNetworkStream:
            tls = trio.SSLStream(
                self._below, ssl_context, server_hostname=server_hostname, https_compatible=True
            )
            try:
                await tls.do_handshake()
            except trio.BrokenResourceError as error:
                raise httpcore.ConnectError(str(error.__cause__ or error)) from error
            return Streamed(tls)

        def get_extra_info(self, info: str) -> Any:
            is_tls = info == "ssl_object" and isinstance(self._below, trio.SSLStream)
            return _ssl_object(self._below) if is_tls else None

    class Given(httpcore.AsyncNetworkBackend):
        async def connect_tcp(
            self,
            host: str,
            port: int,
            timeout: float | None = None,  # noqa: ASYNC109
            local_address: str | None = None,
            socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
        ) -> httpcore.AsyncNetworkStream:
            return Streamed(stream)

    return httpcore.AsyncConnectionPool(
        ssl_context=context,
        http1=not http2,
        http2=http2,
        max_keepalive_connections=0,
        network_backend=Given(),
    )


class _Negotiated:
    """What httpcore asks of a TLS connection: which protocol was agreed upon."""

    def __init__(self, stream: trio.SSLStream[trio.abc.Stream]) -> None:
        self._stream = stream

    def selected_alpn_protocol(self) -> str | None:
        agreed: str | None = self._stream.selected_alpn_protocol()
        return agreed


def _ssl_object(stream: trio.abc.Stream) -> _Negotiated:
    assert isinstance(stream, trio.SSLStream)
    return _Negotiated(stream)
