"""The small server for callbacks: clients that go away, and more of them than it can hold."""

import resource
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import cast

import pytest
import trio
import trio.testing

from tests.callbacks import (
    REQUEST_START,
    FakeProcess,
    Waiting,
    arm,
    read_answer,
    reset,
    waiting,
)
from tests.support import PATIENCE_S
from trio_lifecycle.ready import _callback_server

# --- clients that go away ---------------------------------------------------------------------


@pytest.mark.fault(84)
@pytest.mark.parametrize("beginning", [b"", b"PO", REQUEST_START + b"Content-Length: 9\r\n\r\n"])
@pytest.mark.parametrize("end", [reset, lambda stream: stream.socket.close()])
async def test_clients_that_go_away_do_no_harm(
    beginning: bytes, end: Callable[[trio.SocketStream], None], caplog: pytest.LogCaptureFixture
) -> None:
    async with waiting() as it:
        for wait in (True, False) * 10:
            stream = await it.connect()
            await stream.send_all(beginning)
            if wait:
                await trio.testing.wait_all_tasks_blocked()
            end(stream)
        await it.assert_still_works()
    assert "" == caplog.text


async def test_a_client_that_resets_after_a_refusal_does_no_harm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with waiting() as it:
        for _ in range(10):
            stream = await it.connect()
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await stream.receive_some()
            reset(stream)
        await trio.testing.wait_all_tasks_blocked()
        await it.assert_still_works()
    assert "" == caplog.text


async def test_the_news_comes_although_the_daemon_reset_its_connection() -> None:
    armed = await arm()
    it = Waiting(armed)
    stream = await it.connect()
    await stream.send_all(it.request(b'{"port": 5}'))
    stream.socket.close()
    assert 5 == (await armed.wait(FakeProcess())).port
    await armed.disarm()


async def test_a_connection_that_was_reset_has_no_peer() -> None:
    with socket.socket() as unconnected:
        assert _callback_server._Request(unconnected).peer is None
        with pytest.raises(_callback_server._HungUpError):
            _callback_server._Request(unconnected).send(b"x")
        with pytest.raises(_callback_server._HungUpError):
            await _callback_server._linger(unconnected)


async def test_a_client_may_close_its_side_after_the_request() -> None:
    async with waiting() as it, await it.connect() as stream:
        await stream.send_all(it.request())
        await stream.send_eof()
        assert 200 == (await read_answer(stream))[0]


# --- too many of them -------------------------------------------------------------------------


@asynccontextmanager
async def idle_clients(it: Waiting, count: int) -> AsyncIterator[list[trio.SocketStream]]:
    streams: list[trio.SocketStream] = []
    try:
        for _ in range(count):
            streams += [await it.connect()]
        yield streams
    finally:
        for stream in streams:
            stream.socket.close()


@pytest.mark.fault(84)
async def test_when_all_connections_are_taken_the_oldest_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_callback_server, "_MOST_CONNECTIONS", 3)
    async with waiting() as it, idle_clients(it, 4) as clients:
        assert b"" == await clients[0].receive_some()
        for client in clients[1:]:
            with trio.move_on_after(0.01) as still_open:
                await client.receive_some()
            assert still_open.cancelled_caught
        await it.assert_still_works()


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 8192 if hard == resource.RLIM_INFINITY else min(hard, 8192)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.fault(84)
@pytest.mark.parametrize("count", [500, 2500])
@pytest.mark.usefixtures("many_descriptors")
async def test_idle_clients_do_not_starve_the_daemon(count: int) -> None:
    async with waiting() as it, idle_clients(it, count):
        await it.assert_still_works()


@pytest.mark.fault(84)
async def test_a_thousand_connections_before_the_wait_do_not_starve_the_daemon() -> None:
    armed = await arm()
    it = Waiting(armed)
    async with idle_clients(it, 400), await it.connect() as stream:
        await stream.send_all(it.request())
        with trio.fail_after(PATIENCE_S):
            await armed.wait(FakeProcess())
    await armed.disarm()


@pytest.mark.parametrize(
    ("limit", "most"), [(256, 64), (20_000, 1024), (resource.RLIM_INFINITY, 1024)]
)
async def test_connections_take_a_part_of_the_descriptors_only(
    limit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    armed = await arm()
    assert armed._server is not None
    assert most == armed._server._most
    await armed.disarm()


@pytest.mark.fault(84)
@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ConnectionAbortedError()])
async def test_a_shortage_of_descriptors_passes(
    error: OSError, autojump_clock: trio.testing.MockClock
) -> None:
    armed = await arm()
    it = Waiting(armed)
    assert armed._server is not None
    real = armed._server._listener

    class Short:
        errors = [error] * 3

        def fileno(self) -> int:
            return real.fileno()

        def accept(self) -> object:
            if self.errors:
                raise self.errors.pop()
            return real.accept()

        def close(self) -> None:
            real.close()

    armed._server._listener = cast(socket.socket, Short())
    async with await it.connect() as stream:
        await stream.send_all(it.request())
        assert {} == (await armed.wait(FakeProcess())).facts
    await armed.disarm()
