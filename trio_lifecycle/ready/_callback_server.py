"""A small HTTP server for callbacks: h11 on a listener of its own, hardened against callers."""

import logging
import socket
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

# How much is parsed in one go. In chunks of one byte each, 64 KiB would block the loop for 150 ms.
_PIECE_BYTES: Final = 4096

# How many connections may be open at once, and the part of the program's descriptors that they may
# take. When they are all taken the oldest is dropped: a daemon needs its own for a millisecond.
_MOST_CONNECTIONS: Final = 1024
_DESCRIPTOR_SHARE: Final = 4

# The pause when the system has no descriptor or memory for one more connection.
_CAPACITY_PAUSE_S: Final = 0.05

# How long is read on after a refusal.
_LINGER_LIMIT_S: Final = 0.2

_log: Final = logging.getLogger("trio_lifecycle")


class CallbackServer:
    """Serves one receiver on one listener.

    Every request has 5 s to arrive, every connection is closed after its answer, and nothing that
    a client sends ends the server. What can be done without waiting is: from a daemon's connection
    to its answer, the loop is entered twice.
    """

    def __init__(self, receiver: CallbackReceiver, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._receiver = receiver
        self._listener = listener
        self._connections: dict[socket.socket, trio.CancelScope] = {}
        self._most = min(_MOST_CONNECTIONS, _descriptor_limit() // _DESCRIPTOR_SHARE)
        _rehearse()

    @trio.lowlevel.enable_ki_protection
    async def serve(self, nursery: trio.Nursery) -> NoReturn:
        """Serve until cancelled, each connection in a task of the nursery. Again is fine."""
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):  # whoever knocked is gone
                continue
            except OSError:
                self._drop_oldest()
                await trio.sleep(_CAPACITY_PAUSE_S)
                continue
            connection.setblocking(False)
            nursery.start_soon(self._serve_connection, connection)

    def close(self) -> None:
        """Stop listening; who has connected but was not served yet is turned away."""
        if self._listener.fileno() != -1:
            trio.lowlevel.notify_closing(self._listener)
            self._listener.close()

    def _drop_oldest(self) -> None:
        oldest = next(iter(self._connections), None)
        if oldest is not None:
            self._connections.pop(oldest).cancel()

    @trio.lowlevel.enable_ki_protection
    async def _serve_connection(self, connection: socket.socket) -> None:
        if len(self._connections) >= self._most:
            self._drop_oldest()
        with connection, trio.CancelScope() as scope:
            self._connections[connection] = scope
            try:
                await self._serve_request(connection)
            except _HungUpError:
                pass
            except Exception:
                _log.exception("a connection to the callback server was given up")
            finally:
                self._connections.pop(connection, None)

    async def _serve_request(self, connection: socket.socket) -> None:
        request = _Request(connection)
        reply = await self._reply(request)
        if reply is None:
            return
        try:
            request.send(_encode(reply))
        finally:
            reply.sent()
        if reply.problem:
            await _linger(connection)

    async def _reply(self, request: "_Request") -> Reply | None:
        """Read the request and give the answer; None when the client closed without asking."""
        import h11

        try:
            with trio.fail_after(REQUEST_LIMIT_S):
                line = await request.next_event()
                if not isinstance(line, h11.Request):
                    return None
                body = await _read_body(request, line)
        except trio.TooSlowError:
            return self._receiver.refuse(408, f"the request took over {REQUEST_LIMIT_S:.0f} s")
        except h11.RemoteProtocolError as error:
            return self._receiver.refuse(error.error_status_hint, f"no good HTTP/1.1: {error}")
        if body is None:
            return self._receiver.refuse(413, f"the body is over {LONGEST_BODY_BYTES} bytes")
        path = line.target.decode("latin-1").partition("?")[0]
        return await self._receiver.handle(line.method.decode(), path, body, request.peer)


class _HungUpError(Exception):
    """The client went away."""


class _Request:
    """The one request of a connection, read event by event."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parser = _parser()
        self._is_fresh = True

    @property
    def peer(self) -> Peer | None:
        try:
            client, server = self._connection.getpeername(), self._connection.getsockname()
        except OSError:  # the client has reset the connection
            return None
        return Peer(client[:2], server[:2])

    async def next_event(self) -> object:
        """Give h11's next event, reading as much as it takes."""
        import h11

        while (event := self._parser.next_event()) is h11.NEED_DATA:
            self._parser.receive_data(await self._receive())
        return event

    def invite_body(self) -> None:
        """Say that the body may come, if the client asks first; curl does for longer ones."""
        import h11

        if self._parser.they_are_waiting_for_100_continue:
            go_on = h11.InformationalResponse(status_code=100, headers=[])
            self.send(self._parser.send(go_on) or b"")

    def send(self, data: bytes) -> None:
        """Send at once: what is said here fits in the send buffer, which is empty."""
        try:
            self._connection.send(data)
        except OSError:
            raise _HungUpError from None

    async def _receive(self) -> bytes:
        # Most clients have sent their request by the time that the connection is accepted. Only
        # the first look may come without a wait, so that a fast sender can't keep the loop.
        fresh, self._is_fresh = self._is_fresh, False
        try:
            return await _receive(self._connection, look_first=fresh)
        except OSError:
            raise _HungUpError from None


async def _receive(connection: socket.socket, *, look_first: bool = False) -> bytes:
    while True:
        if not look_first:
            await trio.lowlevel.wait_readable(connection)
        try:
            return connection.recv(_PIECE_BYTES)
        except BlockingIOError:
            look_first = False


async def _read_body(request: _Request, line: "h11.Request") -> bytes | None:
    """Read the body; None when it is, or will be, too long."""
    import h11

    if any(k == b"content-length" and int(v) > LONGEST_BODY_BYTES for k, v in line.headers):
        return None
    request.invite_body()
    body = bytearray()
    while isinstance(event := await request.next_event(), h11.Data):
        body += event.data
        if len(body) > LONGEST_BODY_BYTES:
            return None
    return bytes(body)


def _parser() -> "h11.Connection":
    import h11

    return h11.Connection(h11.SERVER, max_incomplete_event_size=_LONGEST_HEADER_BYTES)


def _rehearse() -> None:
    # The first request of a program takes 0.5 ms longer than the second, and importing h11 takes
    # 20 ms. Now, before the spawn, nobody waits for it.
    parser = _parser()
    parser.receive_data(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}")
    for _ in range(3):
        parser.next_event()
    _encode(Reply(200))


def _encode(reply: Reply) -> bytes:
    from http import HTTPStatus

    # By hand, since one fixed form must serve every request, also one that h11 could not read.
    fields = [*reply.headers, (b"connection", b"close")]
    header = b"".join(b"%b: %b\r\n" % field for field in fields)
    phrase = HTTPStatus(reply.status).phrase.encode()
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (reply.status, phrase, header, reply.body)


async def _linger(connection: socket.socket) -> None:
    # Closing with unread bytes resets the connection, and the client may lose the reply with it
    # (RFC 9112 section 9.6): so say that this was all, and read on for a moment.
    try:
        connection.shutdown(socket.SHUT_WR)
        with trio.move_on_after(_LINGER_LIMIT_S):
            while await _receive(connection):
                pass
    except OSError:
        raise _HungUpError from None


def _descriptor_limit() -> int:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS * _DESCRIPTOR_SHARE if soft == resource.RLIM_INFINITY else soft
