"""Servers that do what no server should, and the two ways to ask them."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from trio_lifecycle import _loopback_http
from trio_lifecycle._http import HTTPClient
from trio_lifecycle.abc import Answer, Question

Talk = Callable[[trio.abc.Stream], Awaitable[object]]
Ask = Callable[[str], Awaitable[Answer]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def server(talk: Talk, context: ssl.SSLContext | None = None) -> AsyncIterator[str]:
    """A server on loopback that does what it wants with each connection; gives its address."""

    async def serve(plain: trio.SocketStream) -> None:
        stream: trio.abc.Stream = plain
        if context is not None:
            stream = trio.SSLStream(plain, context, server_side=True)
        try:
            await talk(stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        finally:
            await trio.aclose_forcefully(plain)

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(trio.serve_listeners, serve, listeners)
        try:
            yield f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        finally:
            nursery.cancel_scope.cancel()


def saying(*chunks: bytes) -> Talk:
    """Answer a request with these bytes, and close."""

    async def talk(stream: trio.abc.Stream) -> None:
        await stream.receive_some(65_536)
        for chunk in chunks:
            await stream.send_all(chunk)

    return talk


async def hang(_stream: trio.abc.Stream) -> None:
    """Take the connection, and no notice of it."""
    await trio.sleep_forever()


async def ask_anywhere(url: str) -> Answer:
    """Ask as of another machine, with httpx."""
    return await HTTPClient().ask(Question(url))


async def ask_loopback(url: str) -> Answer:
    """Ask as of this machine, by the shorter way."""
    question = Question(url)
    address = _loopback_http.way_to(question)
    assert address is not None
    return await _loopback_http.ask(question, address)


async def get(ask: Ask, address: str, scheme: str = "http") -> Answer:
    """Ask within a limit that no test needs."""
    with trio.fail_after(10):
        return await ask(f"{scheme}://{address}/health")


async def answer_to(ask: Ask, talk: Talk) -> Answer:
    """What is made of a server that does this."""
    async with server(talk) as address:
        return await get(ask, address)
