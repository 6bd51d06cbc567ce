"""Waiting in whatever event loop runs here: Trio's, another Trio's in another thread, asyncio's."""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Protocol, TypeVar

import sniffio
import trio

_T = TypeVar("_T")


class _Event(Protocol):
    def set(self) -> None: ...

    async def wait(self) -> object: ...


def runs_in(home: trio.lowlevel.TrioToken) -> bool:
    """Say whether the caller is a task of this Trio loop."""
    return in_trio() and trio.lowlevel.current_trio_token() is home


def in_trio() -> bool:
    """Say whether what runs here waits as Trio does.

    Once trio-asyncio was imported, asyncio's tasks run within one of Trio's, in other threads, too.
    """
    return trio.lowlevel.in_trio_task() and sniffio.current_async_library() == "trio"


def event_of_this_loop() -> tuple[Callable[[], Awaitable[object]], Callable[[], None]]:
    """Give a way to wait in the event loop that runs here, and one to end that from any thread."""
    event: _Event
    call_soon: Callable[[Callable[[], object]], object]
    if in_trio():
        event, call_soon = trio.Event(), trio.lowlevel.current_trio_token().run_sync_soon
    else:
        import asyncio  # a server under asyncio has it already; nobody else needs it

        event, call_soon = asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe

    def wake() -> None:
        with suppress(RuntimeError):  # that loop has ended, and with it whoever waited
            call_soon(event.set)

    return event.wait, wake


async def within(seconds: float, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Await something in the event loop that runs here; None when it takes longer."""
    if in_trio():
        with trio.move_on_after(seconds):
            return await work
        return None
    import asyncio

    try:
        return await asyncio.wait_for(work, seconds)
    except TimeoutError:
        return None
