"""The receiver of callbacks as an ASGI application."""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

import hypercorn.trio
import pytest
import trio
import trio.testing
from starlette.applications import Starlette
from starlette.routing import Mount

from tests.receivers import (
    Scope,
    accept_all,
    call_over_network,
    client_of,
    http_scope,
    receiver,
    run_asgi,
    scripted,
)
from trio_lifecycle._receiver import LONGEST_BODY_BYTES, CallbackReceiver, Peer, _asgi


async def test_it_can_be_mounted_in_an_application() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    app = Starlette(routes=[Mount("/lifecycle", app=router.asgi)])
    async with client_of(app) as client:
        answer = await client.post(expectation.url, json={"port": 4000})
        assert (200, {"ready": True}) == (answer.status_code, answer.json())
        assert {"port": 4000} == await expectation.wait()
        answer = await client.post(expectation.url)
        assert (409, False) == (answer.status_code, answer.json()["ready"])
        answer = await client.get(expectation.url)
        assert (405, "POST") == (answer.status_code, answer.headers["allow"])
        assert 404 == (await client.post(f"{router.base_url}/wrong")).status_code


@pytest.mark.parametrize(
    ("more", "peer"),
    [
        ({}, None),
        ({"client": None, "server": ("127.0.0.1", 80)}, None),
        ({"client": ("127.0.0.1", 9), "server": ("/run/app.sock", None)}, None),
        (
            {"client": ["127.0.0.1", 9], "server": ["127.0.0.1", 80]},
            Peer(("127.0.0.1", 9), ("127.0.0.1", 80)),
        ),
    ],
)
async def test_the_peer_is_told_where_the_server_knows_it(more: Scope, peer: Peer | None) -> None:
    router = receiver()
    peers: list[Peer | None] = []

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        peers.append(peer)
        return None

    expectation = router.expect(verify)
    await run_asgi(
        router.asgi, http_scope(f"/{expectation.token}", **more), {"type": "http.request"}
    )
    assert [peer] == peers


@pytest.mark.fault(84)
async def test_a_body_in_pieces_is_read_up_to_the_limit() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    scope = http_scope(f"/{expectation.token}")
    piece = {"type": "http.request", "body": b" " * 1024, "more_body": True}
    sent = await run_asgi(router.asgi, scope, *[piece] * (LONGEST_BODY_BYTES // 1024 + 1))
    assert 413 == sent[0]["status"]
    last = {"type": "http.request", "body": b"{}"}
    sent = await run_asgi(router.asgi, scope, piece, piece, last)
    assert 200 == sent[0]["status"]


@pytest.mark.fault(84)
async def test_a_body_that_does_not_come_is_not_waited_for(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = receiver()
    sent = await run_asgi(router.asgi, http_scope("/x"), None)
    assert 408 == sent[0]["status"]


def test_a_body_that_does_not_come_is_not_waited_for_under_asyncio(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_asgi, "REQUEST_LIMIT_S", 0.001)
    sent: list[Any] = []

    async def main() -> None:
        async def receive() -> Any:
            await asyncio.Event().wait()

        async def send(message: Any) -> None:
            sent.append(message)

        await receiver().asgi(http_scope("/x"), receive, send)

    asyncio.run(main())
    assert 408 == sent[0]["status"]


async def test_a_client_that_hangs_up_is_sent_nothing() -> None:
    router = receiver()
    assert [] == await run_asgi(router.asgi, http_scope("/x"), {"type": "http.disconnect"})
    assert 0 == router.refused


async def test_the_news_comes_although_the_answer_cant_be_sent() -> None:
    router = receiver()
    expectation = router.expect(accept_all)

    async def send(message: Any) -> None:
        raise OSError("the client is gone")

    with pytest.raises(OSError, match="gone"):
        await router.asgi(
            http_scope(f"/{expectation.token}"), scripted({"type": "http.request"}), send
        )
    assert {} == await expectation.wait()


async def test_it_agrees_to_its_life_and_refuses_a_websocket() -> None:
    app = receiver().asgi
    life = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    agreed = [{"type": f"{message['type']}.complete"} for message in life]
    assert agreed == await run_asgi(app, {"type": "lifespan"}, *life)
    knock = {"type": "websocket.connect"}
    assert [{"type": "websocket.close"}] == await run_asgi(app, {"type": "websocket"}, knock)
    assert [] == await run_asgi(app, {"type": "something new"})


async def test_it_works_in_a_server_of_the_same_loop() -> None:
    routers: list[CallbackReceiver] = []
    stop = trio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (routers or [receiver()])[0].asgi(scope, receive, send)

    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.errorlog = None
    serve = partial(hypercorn.trio.serve, app, config, shutdown_trigger=stop.wait)
    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(serve)
        routers.append(CallbackReceiver(f"{address}/lifecycle"))
        await call_over_network(routers[0].expect(accept_all))
        stop.set()
