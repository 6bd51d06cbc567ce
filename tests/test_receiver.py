"""The router of callbacks: tokens, answers, and the event loops that it can be called from."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
import hypercorn.trio
import pytest
import trio
import trio.testing
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.routing import Mount

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT
from trio_lifecycle._receiver import (
    LONGEST_BODY_BYTES,
    CallbackReceiver,
    Expectation,
    Peer,
    Reply,
    _asgi,
    _router,
)
from trio_lifecycle._receiver._body import parse_body

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


# --- tokens -----------------------------------------------------------------------------------


async def test_a_callback_with_the_right_token_is_taken() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await post(router, expectation, b'{"model": "tiny"}')
    assert (200, {"ready": True}) == (reply.status, json.loads(reply.body))
    assert {"model": "tiny"} == await expectation.wait()
    assert 0 == router.refused


async def test_the_url_is_the_base_url_and_a_token_that_differs_each_time() -> None:
    router = CallbackReceiver("http://10.0.0.5:8000/lifecycle/")
    urls = {router.expect(accept_all).url for _ in range(100)}
    assert 100 == len(urls)
    assert all(url.startswith("http://10.0.0.5:8000/lifecycle/") for url in urls)
    # 256 bits, in 43 characters that need no quoting in a URL.
    assert {len("http://10.0.0.5:8000/lifecycle/") + 43} == {len(url) for url in urls}


@pytest.mark.fault(80)
@pytest.mark.parametrize(
    "path", ["", "/", "/ready", "/ready/", "/ready/wrong", "/\udcff", "/" + "x" * 9000]
)
async def test_a_callback_without_a_known_token_is_not_found(path: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await router.handle("POST", path, b"{}", None)
    assert 404 == reply.status
    assert expectation.body is None
    assert (1, 1) == (router.refused, expectation.refused)


@pytest.mark.fault(80)
async def test_a_token_is_compared_with_all_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = receiver()
    expectations = [router.expect(accept_all) for _ in range(20)]
    compared: list[bytes] = []

    def compare_digest(ours: bytes, given: bytes) -> bool:
        compared.append(ours)
        return ours == given

    monkeypatch.setattr(_router.hmac, "compare_digest", compare_digest)
    await post(router, expectations[0])
    assert [e.digest for e in expectations] == compared


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "post", ""])
async def test_only_a_post_is_a_callback(method: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await router.handle(method, expectation.url, b"{}", None)
    assert 405 == reply.status
    assert (b"allow", b"POST") in reply.headers
    assert expectation.body is None


@pytest.mark.fault(81)
async def test_a_token_is_good_once() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    await post(router, expectation, b'{"n": 1}')
    assert 409 == (await post(router, expectation, b'{"n": 2}')).status
    expectation.close()
    assert 409 == (await post(router, expectation, b'{"n": 3}')).status
    assert {"n": 1} == await expectation.wait()


@pytest.mark.fault(81)
async def test_of_two_callbacks_at_once_one_is_taken() -> None:
    checked = trio.testing.Sequencer()
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        async with checked(body["turn"]):
            return None

    expectation = router.expect(verify)
    statuses: dict[int, int] = {}

    async def call(turn: int) -> None:
        statuses[turn] = (await post(router, expectation, b'{"turn": %d}' % turn)).status

    async with trio.open_nursery() as nursery:
        for turn in (1, 0):
            nursery.start_soon(call, turn)
    assert {0: 200, 1: 409} == statuses
    assert {"turn": 0} == expectation.body


@pytest.mark.fault(82)
async def test_a_callback_after_the_end_is_too_late() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    expectation.close()
    expectation.close()
    assert 410 == (await post(router, expectation)).status
    assert expectation.body is None


@pytest.mark.fault(82)
async def test_a_callback_that_is_checked_when_the_wait_ends_is_too_late() -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        expectation.close()
        return None

    expectation = router.expect(verify)
    assert 410 == (await post(router, expectation)).status
    assert expectation.body is None


async def test_a_bounded_number_of_late_tokens_is_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_router, "_RETIRED_TOKENS", 3)
    router = receiver()
    expectations = [router.expect(accept_all) for _ in range(5)]
    for expectation in expectations:
        expectation.close()
    statuses = [(await post(router, expectation)).status for expectation in expectations]
    assert [404, 404, 410, 410, 410] == statuses


@pytest.mark.fault(96)
async def test_no_token_stands_in_a_repr_or_a_reply() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    replies = [await post(router, expectation, body) for body in (b"[", b"{}", b"{}")]
    shown = repr((router, expectation, replies, expectation.last_refusal))
    assert expectation.token not in shown


# --- who may call -----------------------------------------------------------------------------


async def test_a_callback_that_is_not_the_daemons_is_refused_and_the_next_one_is_taken() -> None:
    router = receiver()
    problems = ["it is another one", None]
    seen: list[object] = []

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        seen.append((body, peer))
        return problems.pop(0)

    expectation = router.expect(verify)
    peer = Peer(("127.0.0.1", 40_000), ("127.0.0.1", 8000))
    reply = await post(router, expectation, b"", peer)
    assert (403, "it is another one") == (reply.status, reply.problem)
    assert "403, it is another one" == expectation.last_refusal
    assert 200 == (await post(router, expectation)).status
    assert ({}, peer) == seen[0]


async def test_a_check_that_takes_too_long_asks_to_try_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        await trio.sleep_forever()

    expectation = router.expect(verify)
    assert 503 == (await post(router, expectation)).status
    assert 5 == trio.current_time()


async def test_the_news_does_not_wait_for_ever_for_a_server_that_was_stopped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    await router.handle("POST", expectation.url, b'{"port": 1}', None)
    assert {"port": 1} == await expectation.wait()


async def test_refusals_that_may_be_anyones_are_noted_for_all() -> None:
    router = receiver()
    one, other = router.expect(accept_all), router.expect(accept_all)
    await post(router, one, b"[]")
    router.refuse(413, "the body is too long")
    assert (2, 1, 2) == (one.refused, other.refused, router.refused)
    assert "413, the body is too long" == one.last_refusal


# --- the body ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "facts"),
    [
        (b"", {}),
        (b" \r\n", {}),
        (b"{}", {}),
        (b'{"url": null, "port": null, "pid": null, "instance_id": null}', ...),
        (b'{"url": "https://[::1]:8443/v1", "port": 8443, "pid": 7, "instance_id": "a"}', ...),
        ('{"wörker": ["ü", 1.5, null, true]}'.encode(), ...),
        (b'{"worker_id": "7", "port": 65535}', ...),
        (b'{"a":' * 31 + b"{}" + b"}" * 31, ...),
    ],
)
def test_a_good_body_is_given_as_it_is(body: bytes, facts: object) -> None:
    assert (json.loads(body) if facts is ... else facts) == parse_body(body)


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"{", "no JSON"),
        (b"\xff\xfe\xfa", "no JSON"),
        (b'{"a": "\xc3"}', "no JSON"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[" * 30_000, "nested deeper"),
        (b'{"a":' * 30_000, "nested deeper"),
        (b'{"a":' * 33 + b"1" + b"}" * 33, "nested deeper"),
        (b"[]", "no JSON object"),
        (b'"port"', "no JSON object"),
        (b"null", "no JSON object"),
        (b'{"url": 1}', "url must be a URL"),
        (b'{"url": ""}', "url must begin with http"),
        (b'{"url": "unix:///run/x"}', "url must begin with http"),
        (b'{"url": "http://me:secret@a/"}', "url carries a user or password"),
        (b'{"url": "http://a:0/"}', "url has port 0"),
        (b'{"url": "http://a b/"}', "url contains a space"),
        (b'{"url": "http://a:\\u0000FREE_PORT\\u0000/"}', "url contains a NUL"),
        (b'{"url": "http://a/\\ud800"}', "url"),
        (b'{"port": "80"}', "port must be a number"),
        (b'{"port": true}', "port must be a number"),
        (b'{"port": 80.0}', "port must be a number"),
        (b'{"port": 0}', "port must be a number"),
        (b'{"port": 65536}', "port must be a number"),
        (b'{"pid": "1"}', "pid must be a number"),
        (b'{"pid": 0}', "pid must be a number"),
        (b'{"pid": -1}', "pid must be a number"),
        (b'{"pid": false}', "pid must be a number"),
        (b'{"instance_id": 5}', "instance_id must be a string"),
    ],
    ids=lambda value: repr(value[:30]),
)
async def test_a_wrong_body_is_refused_with_a_sentence(body: bytes, part: str) -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await post(router, expectation, body)
    assert 422 == reply.status
    assert part in reply.problem
    assert "secret" not in reply.problem
    assert part in expectation.last_refusal
    assert 200 == (await post(router, expectation)).status


@given(st.binary() | st.text().map(str.encode))
def test_a_body_is_an_object_or_a_value_error(body: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(parse_body(body), dict)


def test_a_long_problem_is_cut_off() -> None:
    assert 203 == len(Reply(422, "x" * 100_000).problem)


# --- configuration ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["", "10.0.0.5", "ftp://a/", "http://a/?b=c", f"http://a:{FREE_PORT}/", None, b"http://a"],
)
def test_a_base_url_that_cant_be_one_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="base_url"):
        CallbackReceiver(url)


def test_a_receiver_says_where_it_is() -> None:
    assert "CallbackReceiver('http://127.0.0.1:8000/lifecycle')" == repr(receiver())


# --- as an ASGI application -------------------------------------------------------------------


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


async def call_over_network(expectation: Expectation) -> None:
    """Post with a real client, and see that the news has come."""
    async with httpx.AsyncClient(trust_env=False, verify=False) as client:
        answer = await client.post(expectation.url, json={"pid": 5})
    assert 200 == answer.status_code
    assert {"pid": 5} == await expectation.wait()


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


# --- in other event loops ---------------------------------------------------------------------


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a thread that knows nothing of this loop, and that is gone afterwards."""
    result: list[Any] = []
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def run() -> None:
        result.append(work())
        token.run_sync_soon(done.set)

    thread = threading.Thread(target=run)
    thread.start()
    await done.wait()
    thread.join()
    return result[0]


async def test_it_works_in_an_asyncio_loop_of_another_thread() -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        await trio.lowlevel.checkpoint()  # fails in any loop but Trio's
        return body.get("problem")

    expectation = router.expect(verify)

    async def call_thrice() -> list[int]:
        async with client_of(router.asgi) as client:
            bodies = [{"problem": "not you"}, {"port": 1}, {"port": 2}]
            answers = [await client.post(expectation.url, json=body) for body in bodies]
            return [answer.status_code for answer in answers]

    statuses = await in_thread(lambda: asyncio.run(call_thrice()))
    assert [403, 200, 409] == statuses
    assert {"port": 1} == await expectation.wait()


async def test_it_works_in_another_trio_loop_of_another_thread() -> None:
    router = receiver()
    expectation = router.expect(accept_all)
    reply = await in_thread(lambda: trio.run(post, router, expectation, b'{"port": 1}'))
    assert 200 == reply.status
    assert {"port": 1} == await expectation.wait()


async def test_it_works_in_uvicorn_in_a_thread() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        router = CallbackReceiver(f"http://127.0.0.1:{listener.getsockname()[1]}/lifecycle")
        expectation = router.expect(accept_all)
        config = uvicorn.Config(router.asgi, log_level="critical")
        server = uvicorn.Server(config)

        async def call() -> None:
            await call_over_network(expectation)
            server.should_exit = True

        async with trio.open_nursery() as nursery:
            nursery.start_soon(call)
            await in_thread(lambda: asyncio.run(server.serve([listener])))


async def test_a_check_that_fails_in_another_loop_asks_to_try_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = receiver()

    async def verify(body: Mapping[str, Any], peer: Peer | None) -> str | None:
        raise LookupError("no such process")

    expectation = router.expect(verify)
    reply = await in_thread(lambda: asyncio.run(post(router, expectation)))
    assert 503 == reply.status
    assert "a callback could not be checked" in caplog.text
    assert expectation.token not in caplog.text


def test_a_callback_after_the_end_of_the_loop_is_too_late() -> None:
    router = receiver()

    async def expect() -> Expectation:
        return router.expect(accept_all)

    expectation = trio.run(expect)
    reply = asyncio.run(post(router, expectation))
    assert 410 == reply.status
    expectation._note_sent()


async def test_a_callback_at_the_end_of_the_loop_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = receiver()
    expectation = router.expect(accept_all)

    def spawn_system_task(task: object) -> None:
        raise RuntimeError("Nursery is closed to new arrivals")

    monkeypatch.setattr(trio.lowlevel, "spawn_system_task", spawn_system_task)
    reply = await in_thread(lambda: asyncio.run(post(router, expectation)))
    assert 503 == reply.status
