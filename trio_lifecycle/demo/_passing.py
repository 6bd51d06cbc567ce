"""Passing an answer on, from a service that was started to whoever has asked this one."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from trio_lifecycle import DaemonHandle
from trio_lifecycle.demo._asking import Asker, AskingError, address
from trio_lifecycle.demo._serving import RefusedError, Response, Stream, error_event

# Says what became of a service that does not answer, or not to the end.
Why = Callable[[DaemonHandle, AskingError], Awaitable[str]]


async def pass_on(
    asker: Asker,
    held: AbstractAsyncContextManager[DaemonHandle],
    path: str,
    body: dict[str, Any],
    why: Why,
) -> Response:
    """Ask a service, and pass its answer on: as it comes, if that is wanted.

    Args:
        asker: Who asks.
        held: Keeps the service up; held until the answer is through.
        path: What is asked for.
        body: What is sent.
        why: Says what became of the service, where it does not answer.

    Raises:
        RefusedError: It has refused, or does not answer.
    """
    async with AsyncExitStack() as stack:
        handle = await stack.enter_async_context(held)
        try:
            answer = asker.stream("POST", address(handle, path), body)
            bits = await stack.enter_async_context(answer)
        except AskingError as error:
            raise RefusedError(await why(handle, error), error.status) from error
        if body.get("stream"):
            return Stream(_told(bits, handle, why), stack.pop_all(), "text/event-stream")
        try:
            return Response(b"".join([bit async for bit in bits]), media_type="application/json")
        except AskingError as error:
            raise RefusedError(await why(handle, error), error.status) from error
    # A type checker can't know that the stack lets no error out of sight.
    raise AssertionError


async def _told(
    bits: AsyncIterator[bytes], handle: DaemonHandle, why: Why
) -> AsyncGenerator[bytes]:
    """Pass whole lines on, and where they break off, why."""
    rest = b""
    try:
        async for bit in bits:
            whole, end, rest = (rest + bit).rpartition(b"\n")
            if end:
                yield whole + end
    except AskingError as error:
        # The empty line ends an event that has lost its own.
        yield b"\n" + error_event(await why(handle, error))
    else:
        yield rest
