"""A callback receiver as an ASGI application (asgi.readthedocs.io, version 3)."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from trio_lifecycle._receiver._loops import within
from trio_lifecycle._receiver._reply import LONGEST_BODY_BYTES, REQUEST_LIMIT_S, Reply
from trio_lifecycle._way_back_contract import Peer

_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]


class _Router(Protocol):
    async def handle(self, method: str, path: str, body: bytes, peer: Peer | None) -> Reply: ...

    def refuse(self, status: int, problem: str) -> Reply: ...


class ASGIReceiver:
    """Serves callbacks inside a web server; made by ``CallbackReceiver.asgi``."""

    def __init__(self, router: _Router) -> None:
        self._router = router

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        """Serve one request; refuse a websocket; agree to being started and stopped."""
        match scope["type"]:
            case "http":
                await self._serve(scope, receive, send)
            case "websocket":
                await receive()
                await send({"type": "websocket.close"})
            case "lifespan":
                await _live(receive, send)

    async def _serve(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        try:
            body = await within(REQUEST_LIMIT_S, _read(receive))
        except _HungUpError:
            return
        reply = await self._reply(scope, body)
        try:
            start = {"type": "http.response.start", "status": reply.status}
            await send({**start, "headers": reply.headers})
            await send({"type": "http.response.body", "body": reply.body})
        finally:
            reply.sent()

    async def _reply(self, scope: _Message, body: bytes | None) -> Reply:
        if body is None:
            return self._router.refuse(408, f"the request took over {REQUEST_LIMIT_S:.0f} s")
        if len(body) > LONGEST_BODY_BYTES:
            return self._router.refuse(413, f"the body is over {LONGEST_BODY_BYTES} bytes")
        return await self._router.handle(scope["method"], scope["path"], body, _peer(scope))


class _HungUpError(Exception):
    """The client went away before its request was complete."""


async def _read(receive: _Receive) -> bytes:
    """Read the body, to its end or a little over the limit."""
    body = bytearray()
    more = True
    while more and len(body) <= LONGEST_BODY_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _HungUpError
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _peer(scope: _Message) -> Peer | None:
    client, server = scope.get("client"), scope.get("server")
    # A server behind a Unix socket gives its path and None.
    if not client or not server or server[1] is None:
        return None
    return Peer((client[0], client[1]), (server[0], server[1]))


async def _live(receive: _Receive, send: _Send) -> None:
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
