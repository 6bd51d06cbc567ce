"""What the claims of every registry must do, as a check."""

import os
from collections.abc import Sequence

import trio

from trio_lifecycle.abc import Registry

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long a wait is watched that must not end.
_WATCHED_S = 0.1

# How long a claim is held in the face of others, who may not rob it. Also how soon a wait that is
# cancelled has to end, even on a machine with much else to do.
_HELD_S = 2.0

# So many tasks ask for one claim.
_TASKS = 20


async def check_claims(views: Sequence[Registry], prefix: str) -> None:
    """Hold the claims of a registry to their contract.

    Args:
        views: Views of the registry, two or more.
        prefix: With what the names begin that are claimed.

    Raises:
        AssertionError: They do not keep it; the message says where.
    """
    check = _Check(views, prefix)
    await check.one_at_a_time_has_the_claim()
    await check.a_wait_ends_when_it_is_cancelled()
    await check.a_waiter_can_leave()
    await check.the_claim_is_free_after_its_block()
    await check.the_holder_is_found()


class _Check:
    """One check of the claims of one registry."""

    def __init__(self, views: Sequence[Registry], prefix: str) -> None:
        self._views = views
        self._registry, self._other, *_ = views
        self._prefix = prefix

    async def one_at_a_time_has_the_claim(self) -> None:
        inside = most = entries = 0

        async def enter(view: Registry) -> None:
            nonlocal inside, most, entries
            async with view.claim(self._name("claimed")):
                inside += 1
                entries += 1
                most = max(most, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1

        with trio.move_on_after(_PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number in range(_TASKS):
                    nursery.start_soon(enter, self._views[number % len(self._views)])
        assert most == 1, f"{most} tasks had the claim at once"
        assert entries == _TASKS, f"only {entries} of {_TASKS} tasks got the claim"

    async def a_wait_ends_when_it_is_cancelled(self) -> None:
        name = self._name("claimed")
        left = trio.Event()

        async def wait() -> None:
            await self._gets(self._other, name, within_s=_WATCHED_S)
            left.set()

        # Where the wait does not end, the claim has to be left first.
        async with trio.open_nursery() as nursery, self._registry.claim(name):
            nursery.start_soon(wait)
            with trio.move_on_after(_WATCHED_S + _HELD_S):
                await left.wait()
            in_time = left.is_set()
        assert in_time, "a wait for a claim that was cancelled did not end at once"
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "waiters that were cancelled keep the claim"

    async def a_waiter_can_leave(self) -> None:
        name = self._name("claimed")
        robbers = []

        async def rob(view: Registry) -> None:
            if await self._gets(view, name, within_s=_HELD_S):
                robbers.append(view)

        async with self._registry.claim(name):
            got = await self._gets(self._registry, name, within_s=_WATCHED_S)
            assert not got, "a claim was given twice"
            for end in ("other", "CLAIMED"):
                other = await self._gets(self._other, self._name(end), within_s=_PATIENCE_S)
                assert other, "one claim keeps another name's from others"
            async with trio.open_nursery() as nursery:
                for view in self._views:
                    nursery.start_soon(rob, view)
        assert not robbers, "a claim was given twice"
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "waiters that were cancelled keep the claim"

    async def the_claim_is_free_after_its_block(self) -> None:
        name = self._name("claimed")
        left = None
        try:
            async with self._registry.claim(name):
                raise _LeavingError
        except _LeavingError as error:
            left = error
        assert left is not None, "claim() ate the exception of its block"
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "the claim is not free after an exception"
        with trio.CancelScope() as scope:
            async with self._registry.claim(name):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "the claim is not free after a cancellation"

    async def the_holder_is_found(self) -> None:
        name = self._name("claimed")
        assert await self._registry.find_claim(name) is None, "find_claim() found nobody's claim"
        async with self._registry.claim(name):
            holder = await self._other.find_claim(name)
            assert holder is not None, "find_claim() did not find the holder"
            assert holder.pid in (None, os.getpid()), f"find_claim() found process {holder.pid}"
            other = await self._other.find_claim(self._name("other"))
            assert other is None, "find_claim() found another name's claim"
            again = await self._other.find_claim(name)
            assert again == holder, "find_claim() disturbs the claim"
        assert await self._registry.find_claim(name) is None, "find_claim() found who has left"

    async def _gets(self, view: Registry, name: str, *, within_s: float) -> bool:
        """Whether a claim is given in time."""
        got = False
        with trio.move_on_after(within_s):
            async with view.claim(name):
                got = True
        return got

    def _name(self, end: str) -> str:
        return self._prefix + end


class _LeavingError(Exception):
    """Leaves a block."""
