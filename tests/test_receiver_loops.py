"""The receiver of callbacks, called from other threads and other event loops."""

import asyncio
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import trio
import uvicorn

from tests.receivers import accept_all, call_over_network, client_of, post, receiver
from trio_lifecycle._receiver import CallbackReceiver, Expectation, Peer
from trio_lifecycle._ssh._bridge import bridge


async def in_thread(work: Callable[[], Any]) -> Any:
    """Run something in a thread that knows nothing of this loop, and that is gone afterwards."""
    result: list[Any] = []
    done = trio.Event()
    token = trio.lowlevel.current_trio_token()

    def run() -> None:
        try:
            result.append(work())
        finally:
            token.run_sync_soon(done.set)

    thread = threading.Thread(target=run)
    thread.start()
    await done.wait()
    thread.join()
    return result[0]


@pytest.mark.parametrize("speaks_ssh", [False, True])
async def test_it_works_in_an_asyncio_loop_of_another_thread(speaks_ssh: bool) -> None:
    """Where SSH is spoken, trio-asyncio gives all threads loops that run within Trio."""
    if speaks_ssh:
        await bridge()
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
