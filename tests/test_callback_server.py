"""The small server for callbacks: requests in any shape, and how long they may take."""

import gc
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import example, given
from hypothesis import strategies as st

from tests.callbacks import REQUEST_START, FakeProcess, Waiting, read_answer, reset, waiting
from tests.support import PATIENCE_S
from trio_lifecycle._receiver import LONGEST_BODY_BYTES

HUGE = 1_000_000_000


@pytest.mark.fault(84)
@pytest.mark.parametrize(
    ("status", "attack"),
    [
        (400, b"\r\n\r\n"),
        (400, b"hello\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\r\n" * 2),
        (400, b"POST TARGET HTTP/9.9.9\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\n\r\n"),  # no Host
        (400, b"POST TARGET HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\n folded: a\r\nb\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nna me: a\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\na: \x00\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 0x2\r\n\r\n{}"),
        # Smuggling: two lengths, a length and chunks, an encoding that is none.
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n"),
        (501, b"POST TARGET HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n"),
        (501, b"POST TARGET HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        (400, b"POST TARGET HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
        (431, b"POST /" + b"x" * 70_000),
        (431, b"POST TARGET HTTP/1.1\r\nHost: x\r\na: " + b"x" * 70_000),
        (431, b"POST TARGET HTTP/1.1\r\n" + b"a:b\r\n" * 10_000),
        (413, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % HUGE),
        (
            413,
            b"POST TARGET HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
            % HUGE,
        ),
        (
            413,
            b"POST TARGET HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            + b"10000\r\n%b\r\n1\r\n \r\n" % (b" " * 65_536),
        ),
        (405, b"GET TARGET HTTP/1.1\r\nHost: x\r\n\r\n"),
        (405, b"HEAD TARGET HTTP/1.1\r\nHost: x\r\n\r\n"),
        (405, b"CONNECT TARGET HTTP/1.1\r\nHost: x\r\n\r\n"),
        (405, b"PRI * HTTP/1.1\r\nHost: x\r\n\r\nSM\r\n\r\n"),
        (
            405,
            b"GET TARGET HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        ),
        (422, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfa\xfb"),
        (422, b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 30000\r\n\r\n" + b"[" * 30_000),
    ],
    ids=lambda value: repr(value[:70]) if isinstance(value, bytes) else str(value),
)
async def test_a_request_that_is_wrong_is_answered_and_the_wait_goes_on(
    status: int, attack: bytes
) -> None:
    async with waiting() as it:
        answer = await it.send(attack.replace(b"TARGET", it.target))
        assert status == answer[0]
        assert f"refused: {status}, " in it.armed.last_seen
        await it.assert_still_works()


@pytest.mark.fault(84)
async def test_a_gigabyte_is_refused_without_reading_it() -> None:
    async with waiting() as it, await it.connect() as stream:
        request = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
        await stream.send_all(request % (it.target, HUGE))
        sent = 0
        with trio.fail_after(PATIENCE_S), suppress(trio.BrokenResourceError):
            while sent < HUGE:
                await stream.send_all(bytes(65_536))
                sent += 65_536
        assert sent < HUGE
        await it.assert_still_works()


async def test_a_client_that_asks_before_it_sends_a_body_is_told_to_go_on() -> None:
    async with waiting() as it, await it.connect() as stream:
        header, body = it.request(b'{"port": 9}', b"Expect: 100-continue\r\n").split(b"\r\n\r\n")
        await stream.send_all(header + b"\r\n\r\n")
        assert b"HTTP/1.1 100 \r\n\r\n" == await stream.receive_some()
        await stream.send_all(body)
        assert 200 == (await read_answer(stream))[0]


async def test_a_request_in_small_pieces_and_chunks_is_understood() -> None:
    async with waiting() as it, await it.connect() as stream:
        head = b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % it.target
        for byte in head + b'1\r\n{\r\n9\r\n"port": 9\r\n1\r\n}\r\n0\r\n\r\n':
            await stream.send_all(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()
        assert 200 == (await read_answer(stream))[0]
        await it.ready.wait()
        assert it.report is not None
        assert 9 == it.report.port


async def test_a_body_may_be_as_long_as_the_limit() -> None:
    async with waiting() as it:
        assert 200 == (await it.send(it.request(b"{}".ljust(LONGEST_BODY_BYTES))))[0]


async def test_what_comes_after_the_request_is_not_looked_at() -> None:
    async with waiting() as it:
        pipelined = it.request(b'{"port": 1}') + it.request(b'{"port": 2}')
        async with await it.connect() as stream:
            await stream.send_all(pipelined)
            await it.ready.wait()
        assert it.report is not None
        assert 1 == it.report.port


@pytest.mark.fault(84)
@pytest.mark.parametrize(
    "beginning", [b"", b"P", REQUEST_START, REQUEST_START + b"Content-Length: 9\r\n\r\n{"]
)
async def test_a_request_that_is_not_complete_after_5_s_is_answered(
    beginning: bytes, mock_clock: trio.testing.MockClock
) -> None:
    async with waiting() as it, await it.connect() as stream:
        await stream.send_all(beginning)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(4.9)
        await trio.testing.wait_all_tasks_blocked()
        assert "no callback came" == it.armed.last_seen
        mock_clock.jump(0.2)
        assert 408 == (await read_answer(stream))[0]
        await it.assert_still_works()


@pytest.mark.fault(84)
async def test_a_client_that_drips_bytes_gets_no_more_time(
    mock_clock: trio.testing.MockClock,
) -> None:
    async with waiting() as it, await it.connect() as stream:
        for _ in range(5):
            await stream.send_all(b"P")
            await trio.testing.wait_all_tasks_blocked()
            mock_clock.jump(1)
        assert 408 == (await read_answer(stream))[0]
        await it.assert_still_works()


async def test_a_failure_of_ours_is_logged_and_the_wait_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(FakeProcess):
        async def contains(self, pid: int) -> bool | None:
            raise LookupError("no /proc here")

    async with waiting(process=Broken()) as it:
        assert (0, {}) == await it.send(it.request(b'{"pid": 1}'))
        assert "was given up" in caplog.text
        assert it.armed.secrets[0] not in caplog.text
        await it.assert_still_works()


class LongestStep(trio.abc.Instrument):
    """Measures the longest time of the processor that a task took between two checkpoints."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = time.thread_time()

    def before_task_step(self, task: object) -> None:
        self._began = time.thread_time()

    def after_task_step(self, task: object) -> None:
        self.seconds = max(self.seconds, time.thread_time() - self._began)


@pytest.fixture
def frozen_heap() -> Iterator[None]:
    """Hide what the whole suite has made; a full collection takes 100 ms for it."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.fault(84)
@pytest.mark.parametrize(
    "attack",
    [
        REQUEST_START + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 65_537,
        REQUEST_START + b"a:\r\n" * 4_000 + b"\r\n",
        b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 65536\r\n\r\n" + b"[" * 65_536,
        b"POST TARGET HTTP/1.1\r\nHost: x\r\nContent-Length: 65529\r\n\r\n%b1]"
        % (b"[" + b"[]," * 21_842),
    ],
    ids=["tiny chunks", "many fields", "deep", "wide"],
)
@pytest.mark.usefixtures("frozen_heap")
async def test_no_request_blocks_the_loop(attack: bytes) -> None:
    longest = LongestStep()
    async with waiting() as it:
        await it.post(target=b"/warm")
        trio.lowlevel.add_instrument(longest)
        answer = await it.send(attack.replace(b"TARGET", it.target))
        trio.lowlevel.remove_instrument(longest)
        assert answer[0] >= 400
        await it.assert_still_works()
    # Ten times what is aimed at: a loaded machine under a tracer is slow.
    assert longest.seconds < 0.5


def run_against_server(attack: Callable[[Waiting], Awaitable[object]]) -> None:
    async def main() -> None:
        async with waiting() as it:
            with trio.fail_after(PATIENCE_S):
                await attack(it)
                await it.assert_still_works()

    trio.run(main)


def requests() -> st.SearchStrategy[list[bytes]]:
    """Pieces of HTTP in any order, and any bytes between them."""
    pieces = [b"POST /ready/ HTTP/1.1", b"GET / HTTP/1.0", b"Host: x", b"Content-Length: 5"]
    pieces += [b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"5\r\n{}   ", b"0", b"\r\n"]
    known = st.sampled_from(pieces).map(lambda piece: piece + b"\r\n")
    return st.lists(known | st.binary(max_size=50), max_size=12)


@pytest.mark.fault(84)
@given(pieces=requests(), hang_up=st.sampled_from(["half", "reset", "close"]))
@example(pieces=[], hang_up="half")
def test_no_bytes_end_the_wait(pieces: list[bytes], hang_up: str) -> None:
    async def attack(it: Waiting) -> None:
        async with await it.connect() as stream:
            with suppress(trio.BrokenResourceError):
                for piece in pieces:
                    await stream.send_all(piece)
                if hang_up == "half":
                    await stream.send_eof()
                    await read_to_end(stream)
            if hang_up == "reset":
                reset(stream)

    run_against_server(attack)


async def read_to_end(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


def json_values() -> st.SearchStrategy[Any]:
    plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    return st.recursive(plain, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


def bodies() -> st.SearchStrategy[bytes]:
    keys = st.sampled_from(["url", "port", "pid", "instance_id"]) | st.text()
    objects = st.dictionaries(keys, json_values()).map(json.dumps).map(str.encode)
    return objects | json_values().map(json.dumps).map(str.encode) | st.binary()


@pytest.mark.fault(85)
@given(body=bodies())
def test_a_body_is_taken_or_refused_with_a_sentence(body: bytes) -> None:
    async def main() -> None:
        async with waiting() as it:
            with trio.fail_after(PATIENCE_S):
                status, answer = await it.send(it.request(body))
                assert status in (200, 403, 422)
                if status != 200:
                    assert answer["problem"]
                    await it.assert_still_works()
                await it.ready.wait()

    trio.run(main)
