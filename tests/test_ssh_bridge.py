"""The asyncio loop inside Trio: what is called there comes to an end, as its caller or it does."""

import asyncio
import threading

import pytest
import trio
import trio_asyncio

from trio_lifecycle._ssh._bridge import Bridge, bridge
from trio_lifecycle._ssh._session import LostError


async def wait_for(thing: threading.Event) -> None:
    """Wait in a thread of asyncio, and then for good."""
    await asyncio.get_running_loop().run_in_executor(None, thing.wait)
    await asyncio.sleep(3600)


async def give_up(over: Bridge, thing: threading.Event) -> None:
    """Call that, and be cancelled while the thread waits."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(over.call, wait_for, thing)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()


async def test_a_call_that_is_cancelled_waits_for_no_thread() -> None:
    thing = threading.Event()
    try:
        with trio.fail_after(5):
            await give_up(await bridge(), thing)
    finally:
        thing.set()


async def test_a_call_that_could_not_hear_of_its_cancellation_hears_of_it_later() -> None:
    thing = threading.Event()
    # Its threads are the application's, and are waited for.
    with trio.fail_after(5):
        async with trio_asyncio.open_loop(), trio.open_nursery() as nursery:
            nursery.start_soon(give_up, await bridge(), thing)
            for _ in range(2):
                await trio.testing.wait_all_tasks_blocked()
            thing.set()


async def test_nothing_begins_when_the_loop_is_about_to_end() -> None:
    over = await bridge()
    await over.end()
    with trio.fail_after(5), pytest.raises(LostError, match="has ended"):
        await over.call(asyncio.sleep, 3600)
    with trio.fail_after(5), pytest.raises(LostError, match="has ended"):
        await over.see_through(asyncio.sleep, 3600, late=lambda _: None)


async def test_a_call_ends_with_the_loop() -> None:
    async with trio.open_nursery() as nursery, trio_asyncio.open_loop():
        nursery.start_soon(expect_the_end, await bridge())
        await trio.testing.wait_all_tasks_blocked()


async def expect_the_end(over: Bridge) -> None:
    with trio.fail_after(5), pytest.raises(LostError, match="has ended"):
        await over.call(asyncio.sleep, 3600)
