"""Receivers of callbacks under test, and the ways to call them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import trio

from trio_lifecycle._receiver import CallbackReceiver, Expectation, Peer, Reply

Scope = dict[str, Any]


async def accept_all(body: Mapping[str, Any], peer: Peer | None) -> str | None:
    return None


def receiver() -> CallbackReceiver:
    return CallbackReceiver("http://127.0.0.1:8000/lifecycle")


async def post(
    to: CallbackReceiver, expectation: Expectation, body: bytes = b"{}", peer: Peer | None = None
) -> Reply:
    """Post as a web server would; the reply counts as sent."""
    reply = await to.handle("POST", f"/any/{expectation.token}", body, peer)
    reply.sent()
    return reply


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport) as client:
        yield client


def scripted(*messages: Scope | None) -> Callable[[], Awaitable[Any]]:
    """What an application receives; None is silence from then on."""
    script = iter(messages)

    async def receive() -> Any:
        message = next(script)
        if message is None:
            await trio.sleep_forever()
        return message

    return receive


def http_scope(path: str, **more: object) -> Scope:
    return {"type": "http", "method": "POST", "path": path, "headers": [], **more}


async def run_asgi(
    app: Any, scope: Scope, *messages: Scope | None, sent: list[Any] | None = None
) -> list[Any]:
    sent = [] if sent is None else sent

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, scripted(*messages), send)
    return sent


async def call_over_network(expectation: Expectation) -> None:
    """Post with a real client, and see that the news has come."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.post(expectation.url, json={"pid": 5})
    assert 200 == answer.status_code
    assert {"pid": 5} == await expectation.wait()
