"""A small HTTP server for callbacks: h11 on a listener of its own, hardened against callers."""

import errno
import logging
import resource
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn

import trio

from trio_lifecycle._receiver import (
    LONGEST_BODY_BYTES,
    REQUEST_LIMIT_S,
    CallbackReceiver,
    Peer,
    Reply,
)

if TYPE_CHECKING:
    import h11

# The longest request line with its header; curl and the HTTP clients of all languages send less
# than 1 KiB.
_LONGEST_HEADER_BYTES: Final = 16_384

# How many connections may be open at once, and the part of the program's descriptors that they may
# take. When they are all taken the oldest is dropped: a daemon needs its own for a millisecond.
_MOST_CONNECTIONS: Final = 1024
_DESCRIPTOR_SHARE: Final = 4

# How long a reply may take to send (it fits in any send buffer, so it never waits in earnest), and
# how long is read on after a refusal.
_SEND_LIMIT_S: Final = 0.2
_LINGER_LIMIT_S: Final = 0.2

# The pause when descriptors have run out.
_CAPACITY_PAUSE_S: Final = 0.05
_NO_CAPACITY: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

_CHUNK_BYTES: Final = 65_536

_log: Final = logging.getLogger("trio_lifecycle")


class CallbackServer:
    """Serves one receiver on one listener.

    Every request has 5 s to arrive, every connection is closed after its answer, and nothing that
    a client sends ends the server.
    """

    def __init__(self, receiver: CallbackReceiver, listener: socket.socket) -> None:
        import h11

        self._h11 = h11  # imported now, before the spawn: it takes 20 ms
        self._receiver = receiver
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._connections: dict[trio.SocketStream, trio.CancelScope] = {}
        self._most = min(_MOST_CONNECTIONS, _soft_descriptor_limit() // _DESCRIPTOR_SHARE)

    async def serve(self) -> NoReturn:
        """Serve until cancelled, which drops what is connected. It may be called again."""
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    stream = await self._listener.accept()
                except OSError as error:
                    if error.errno not in _NO_CAPACITY:
                        raise
                    self._drop_oldest()
                    await trio.sleep(_CAPACITY_PAUSE_S)
                else:
                    nursery.start_soon(self._serve_connection, stream)

    def close(self) -> None:
        """Stop listening; who has connected but was not served yet is turned away."""
        self._listener.socket.close()

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._connections), None)
        if oldest is not None:
            self._connections.pop(oldest).cancel()

    async def _serve_connection(self, stream: trio.SocketStream) -> None:
        if len(self._connections) >= self._most:
            self._drop_oldest()
        with trio.CancelScope() as scope:
            self._connections[stream] = scope
            try:
                await self._serve_request(stream)
            except trio.BrokenResourceError:
                pass  # the client went away
            except Exception:
                _log.exception("a connection to the callback server was given up")
            finally:
                self._connections.pop(stream, None)
                stream.socket.close()

    async def _serve_request(self, stream: trio.SocketStream) -> None:
        h11 = self._h11
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEADER_BYTES)
        reply = await self._reply(stream, connection)
        if reply is None:
            return
        try:
            # Shielded: the daemon was found ready, and must not see a reset because its word ended
            # the wait. Bounded, because a client may refuse to read.
            with trio.move_on_after(_SEND_LIMIT_S, shield=True):
                await stream.send_all(_encode(reply))
        finally:
            reply.sent()
        if reply.problem:
            await _linger(stream)

    async def _reply(self, stream: trio.SocketStream, connection: "h11.Connection") -> Reply | None:
        """Read the request and give the answer; None when the client closed without asking."""
        try:
            with trio.fail_after(REQUEST_LIMIT_S):
                request = await self._next_event(stream, connection)
                if not isinstance(request, self._h11.Request):
                    return None
                body = await self._read_body(stream, connection, request)
        except trio.TooSlowError:
            return self._receiver.refuse(408, f"the request took over {REQUEST_LIMIT_S:.0f} s")
        except self._h11.RemoteProtocolError as error:
            return self._receiver.refuse(error.error_status_hint, f"no good HTTP/1.1: {error}")
        if body is None:
            return self._receiver.refuse(413, f"the body is over {LONGEST_BODY_BYTES} bytes")
        method, target = request.method.decode(), request.target.decode("latin-1")
        path = target.partition("?")[0]
        return await self._receiver.handle(method, path, body, _peer(stream))

    async def _read_body(
        self, stream: trio.SocketStream, connection: "h11.Connection", request: "h11.Request"
    ) -> bytes | None:
        """Read the body; None when it is, or will be, too long."""
        if any(k == b"content-length" and int(v) > LONGEST_BODY_BYTES for k, v in request.headers):
            return None
        if connection.they_are_waiting_for_100_continue:
            go_on = self._h11.InformationalResponse(status_code=100, headers=[])
            await stream.send_all(connection.send(go_on) or b"")
        body = bytearray()
        while isinstance(event := await self._next_event(stream, connection), self._h11.Data):
            body += event.data
            if len(body) > LONGEST_BODY_BYTES:
                return None
        return bytes(body)

    async def _next_event(self, stream: trio.SocketStream, connection: "h11.Connection") -> object:
        while (event := connection.next_event()) is self._h11.NEED_DATA:
            connection.receive_data(await stream.receive_some(_CHUNK_BYTES))
        return event


def _peer(stream: trio.SocketStream) -> Peer | None:
    try:
        client, server = stream.socket.getpeername(), stream.socket.getsockname()
    except OSError:  # the client has reset the connection
        return None
    return Peer(client[:2], server[:2])


def _encode(reply: Reply) -> bytes:
    # By hand, since one fixed form must serve every request, also one that h11 could not read.
    fields = [*reply.headers, (b"connection", b"close")]
    header = b"".join(b"%b: %b\r\n" % field for field in fields)
    phrase = HTTPStatus(reply.status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (reply.status, phrase, header, reply.body)


async def _linger(stream: trio.SocketStream) -> None:
    # Closing with unread bytes resets the connection, and the client may lose the reply with it
    # (RFC 9112 section 9.6): so say that this was all, and read on for a moment.
    with trio.move_on_after(_LINGER_LIMIT_S):
        await stream.send_eof()
        while await stream.receive_some(_CHUNK_BYTES):
            pass


def _soft_descriptor_limit() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS * _DESCRIPTOR_SHARE if soft == resource.RLIM_INFINITY else soft
