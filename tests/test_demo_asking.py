"""One service of the demo asks another: answers, streams that break off, requests half made."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, nullcontext
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.support import free_port
from trio_lifecycle import (
    DaemonHandle,
)
from trio_lifecycle.demo._asking import Asker, AskingError, lines_of, words_in
from trio_lifecycle.demo._passing import pass_on
from trio_lifecycle.demo._serving import (
    JSONResponse,
    RefusedError,
    Request,
    Route,
    Stream,
    json_of,
    serving,
)

# --- answers ---


async def _bits(*bits: bytes) -> AsyncIterator[bytes]:
    for bit in bits:
        yield bit


@given(text=st.text("a€\n"), data=st.data())
async def test_lines_are_the_same_however_they_are_cut(text: str, data: st.DataObject) -> None:
    raw = text.encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    lines = [line async for line in lines_of(_bits(*pieces))]
    assert text.removesuffix("\n").split("\n") == (lines or [""])


WORD = b'data: {"choices": [{"text": " hi"}]}\n\n'


async def _said(*bits: bytes) -> tuple[str, str]:
    words: list[str] = []
    try:
        async for word in words_in(_bits(*bits)):
            words.append(word)  # noqa: PERF401 - what came before an error counts
    except AskingError as error:
        return "".join(words), str(error)
    return "".join(words), ""


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (WORD + WORD + b"data: [DONE]\n\n", (" hi hi", "")),
        (b": a comment\nevent: x\n" + WORD + b"data:[DONE]", (" hi", "")),
        (WORD, (" hi", "the answer broke off before its end")),
        (b"", ("", "the answer broke off before its end")),
        (WORD + b'data: {"error": {"message": "worn out"}}\n\n', (" hi", "worn out")),
        (b"data: {\n\n", ("", "the answer has a part that is no completion: {")),
        (b"data: 7\n\n", ("", "the answer has a part that is no completion: 7")),
        (b"data: {}\n\n", ("", "the answer has a part that is no completion: {}")),
        (
            b'data: {"error": 1}\n',
            ("", 'the answer has a part that is no completion: {"error": 1}'),
        ),
    ],
)
async def test_words_are_read_out_of_events(raw: bytes, said: tuple[str, str]) -> None:
    assert said == await _said(raw)
    assert said == await _said(*(raw[at : at + 1] for at in range(len(raw))))


def _answers(status: str, body: bytes, length: int | None = None) -> bytes:
    """Put an HTTP answer together; with another length, it breaks off."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


async def _asked(answer: bytes, ask: Callable[[Asker, str], Awaitable[object]]) -> object:
    """Have something asked of a service that gives this answer, whatever it is asked."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(answer)
        await stream.send_eof()
        async for _ in stream:
            pass  # Closed with something unread, it would be reset.

    outcome: object = None
    async with trio.open_nursery() as nursery, Asker() as asker:
        (listener, *_) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        try:
            outcome = await ask(asker, f"http://127.0.0.1:{port}/x")
        except (AskingError, RefusedError) as error:
            outcome = error  # Raised here, it would be one of a group.
        nursery.cancel_scope.cancel()
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@pytest.mark.parametrize(
    ("answer", "sentence", "status"),
    [
        (_answers("200 OK", b"hi"), "/x gave no JSON$", 502),
        (_answers("200 OK", b"[1]"), "/x gave no JSON object$", 502),
        (_answers("418 Teapot", b"hi"), "/x answered with status 418$", 418),
        (_answers("418 Teapot", b'{"error": 1}'), "/x answered with status 418$", 418),
        (_answers("404 No", b'{"error": {"message": "not here"}}'), "^not here$", 404),
        (_answers("200 OK", b"{", 9), "/x can't be asked: peer closed connection", 502),
        (b"", "/x can't be asked: Server disconnected", 502),
    ],
)
async def test_an_answer_that_is_none_becomes_a_sentence(
    answer: bytes, sentence: str, status: int
) -> None:
    with pytest.raises(AskingError, match=sentence) as caught:
        await _asked(answer, lambda asker, url: asker.get(url))
    assert status == caught.value.status


async def _passed(answer: bytes, *, stream: bool) -> bytes:
    """Pass an answer on, from a daemon of which nothing but its URL counts here."""

    async def why(_handle: DaemonHandle, _error: AskingError) -> str:
        return "it has died"

    async def pass_it(asker: Asker, url: str) -> bytes:
        held = nullcontext(cast("DaemonHandle", SimpleNamespace(url=url)))
        passed = await pass_on(asker, held, "/x", {"stream": stream}, why)
        if not isinstance(passed, Stream):
            return bytes(passed.body)
        async with passed._held, aclosing(passed._bits) as bits:
            return b"".join([bit async for bit in bits])

    passed = await _asked(answer, pass_it)
    assert isinstance(passed, bytes)
    return passed


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b""])
async def test_a_stream_is_passed_on_as_it_is(end: bytes) -> None:
    body = WORD + b"data: [DONE]" + end
    assert body == await _passed(_answers("200 OK", body), stream=True)


async def test_a_stream_that_breaks_off_ends_with_the_cause() -> None:
    """What is left of an event goes; whoever reads lines meets none that is torn."""
    passed = await _passed(_answers("200 OK", WORD + WORD[:9], 999), stream=True)
    assert (" hi", "it has died") == await _said(passed)


async def test_a_whole_answer_that_breaks_off_is_refused() -> None:
    assert b"{}" == await _passed(_answers("200 OK", b"{}"), stream=False)
    with pytest.raises(RefusedError, match="it has died"):
        await _passed(_answers("200 OK", b"{", 9), stream=False)


async def test_a_stream_that_never_begins_is_refused() -> None:
    with pytest.raises(RefusedError, match="it has died") as caught:
        await _passed(_answers("503 Service Unavailable", b"{}"), stream=True)
    assert 503 == caught.value.status


# --- requests ---


async def test_who_goes_before_the_request_is_through_is_no_failure_of_the_service() -> None:
    async def receive() -> dict[str, Any]:
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    with pytest.raises(RefusedError, match="the request broke off"):
        await json_of(Request({"type": "http"}, receive))


async def test_a_service_is_told_that_no_connection_is_kept() -> None:
    """Else it may keep one for seconds that is closed, and a burst takes all its descriptors."""
    told: list[str] = []

    async def answer(request: Request) -> JSONResponse:  # noqa: ASYNC124
        told.append(request.headers["Connection"])
        return JSONResponse({})

    port = free_port()
    async with Asker() as asker, serving(port, Route("/", answer)):
        await asker.get(f"http://127.0.0.1:{port}/")
    assert ["close"] == told
