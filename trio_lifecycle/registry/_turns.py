"""Turns: the tasks of one Trio run, one after the other by name, in the order they came."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

# A semaphore and no trio.Lock, which refuses a second entry by one task: that waits, for ever.
_Turns = dict[str, trio.Semaphore]


class Turns:
    """Lets one task in at a time, for each name.

    Every Trio run has turns of its own: what an earlier one left is not waited for.
    """

    def __init__(self) -> None:
        self._turns = trio.lowlevel.RunVar[_Turns]("trio_lifecycle.turns")

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait until those who came earlier have left, and keep others out for the block."""
        async with self._of_this_run().setdefault(name, trio.Semaphore(1, max_value=1)):
            yield

    def _of_this_run(self) -> _Turns:
        try:
            return self._turns.get()
        except LookupError:
            turns: _Turns = {}
            self._turns.set(turns)
            return turns
