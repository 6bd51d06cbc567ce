"""An HTTP service under Trio: Starlette for the routes, hypercorn for the protocol."""

import json
import resource
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from trio_lifecycle.demo._hub import Hub

HOST: Final = "127.0.0.1"

# Whoever is still being answered when a service is left may finish in this time.
_GRACE_S: Final = 1.0
_LONGEST_BODY_BYTES: Final = 1_000_000

__all__ = [
    "HOST",
    "JSONResponse",
    "RefusedError",
    "Request",
    "Response",
    "Route",
    "Server",
    "Stream",
    "asked_to_stop",
    "error_event",
    "event_route",
    "json_of",
    "memory_mib",
    "model_in",
    "serving",
    "stop_signals",
]


class RefusedError(Exception):
    """What was asked can't be done; the text says why, and goes to whoever asked.

    Args:
        sentence: Why, and what to do.
        status: The HTTP status.
    """

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.status = status


def _answer_refusal(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RefusedError)
    return JSONResponse({"error": {"message": str(error)}}, error.status)


def _answer_stray(request: Request, error: Exception) -> JSONResponse:
    """Answer what no route takes."""
    assert isinstance(error, HTTPException)
    sentence = f"{request.method} {request.url.path} is not served here: {error.detail}"
    return JSONResponse({"error": {"message": sentence}}, error.status_code, error.headers)


async def json_of(request: Request) -> dict[str, Any]:
    """Read a request's JSON object.

    Raises:
        RefusedError: It has none.
    """
    try:
        value = json.loads(await _body_of(request) or b"{}")
    except ClientDisconnect as error:
        raise RefusedError("the request broke off") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"the request is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise RefusedError("the request must be a JSON object")
    return value


async def _body_of(request: Request) -> bytes:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY_BYTES:
            raise RefusedError(f"the request is longer than {_LONGEST_BODY_BYTES:,} bytes", 413)
    return body


def model_in(body: dict[str, Any]) -> str:
    """Say which model a request is for.

    Raises:
        RefusedError: It does not say.
    """
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise RefusedError("model must be the name of a model")
    return name


def error_event(sentence: str) -> bytes:
    """Tell of an error within an answer that has begun."""
    return f"data: {json.dumps({'error': {'message': sentence}})}\n\n".encode()


class Stream(StreamingResponse):
    """An answer that comes bit by bit.

    Args:
        bits: What it is made of.
        held: What is let go when it is through, or whoever asked has gone.
        media_type: What it is.
    """

    def __init__(
        self,
        bits: AsyncGenerator[bytes],
        held: AsyncExitStack | None = None,
        media_type: str = "application/x-ndjson",
    ) -> None:
        super().__init__(bits, media_type=media_type)
        self._bits = bits
        self._held = held or AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it."""
        async with self._held, aclosing(self._bits):
            await super().__call__(scope, receive, send)


def event_route(hub: Hub) -> Route:
    """Give the route by which a hub's events can be heard, a line of JSON each.

    ``?after=7`` leaves out the first seven, which were heard before.
    """

    # A plain function would run in a thread.
    async def events(request: Request) -> Stream:  # noqa: ASYNC124
        after = request.query_params.get("after", "0")
        # Not as many digits as make a long number of theirs.
        if not (after.isascii() and after.isdigit() and len(after) < 16):
            raise RefusedError("after must be how many events were heard before")
        return Stream(hub.listen(int(after)))

    return Route("/events", events)


class Server:
    """Serves on this machine's loopback address, which others can't reach.

    Args:
        port: Where.

    Attributes:
        over: Set by whoever has had enough of it.
    """

    def __init__(self, port: int) -> None:
        self.over = trio.Event()
        self._config = Config()
        self._config.bind = [f"{HOST}:{port}"]
        self._config.graceful_timeout = _GRACE_S
        self._config.loglevel = "WARNING"

    async def run(  # noqa: ASYNC114, ASYNC128  # it is hypercorn that says when it has started
        self, *routes: Route, task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Serve until it is over. It is started when connections are taken."""
        strays: Any = {RefusedError: _answer_refusal, HTTPException: _answer_stray}
        app: Any = Starlette(routes=routes, exception_handlers=strays)
        # Also when the program is cancelled: what is answered then has its grace.
        with trio.CancelScope(shield=True):
            over = self.over.wait
            await serve(app, self._config, shutdown_trigger=over, task_status=task_status)


@asynccontextmanager
async def serving(port: int, *routes: Route) -> AsyncIterator[None]:
    """Serve for the length of a block; it begins when connections are taken."""
    server = Server(port)
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run, *routes)
        try:
            yield
        finally:
            server.over.set()


def stop_signals() -> AbstractContextManager[AsyncIterator[int]]:
    """Take SIGTERM and Ctrl-C as a wish, for the length of a block.

    Enter it before anybody can know that the program is up: who does may wish it to end at once.
    """
    return trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)


async def asked_to_stop(signals: AsyncIterator[int], over: trio.Event | None = None) -> None:
    """Wait for that wish, or until something else says that it is over."""
    over = trio.Event() if over is None else over
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on, signals, over)
        await over.wait()
        nursery.cancel_scope.cancel()


async def _pass_on(signals: AsyncIterator[int], over: trio.Event) -> None:
    async for _ in signals:
        over.set()


def memory_mib() -> int:
    """Say how much memory this program has used at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
