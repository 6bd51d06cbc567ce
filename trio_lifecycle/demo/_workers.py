"""Which workers a hive has, for which models, and how many requests each has at work."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import Factory, define

from trio_lifecycle import DaemonHandle


@define(eq=False)
class Worker:
    """The worker of one model, whether it runs or not.

    Attributes:
        model: The model's name.
        daemon: What it is called.
        uses: How many requests need it at this moment, those that wait for it included.
        idle_since: By Trio's clock, when the last of them had gone.
        handle: Its process, while that lives.
        turn: Held while it is counted, or ended because nobody needs it.
    """

    model: str
    daemon: str
    uses: int = 0
    idle_since: float = Factory(trio.current_time)
    handle: DaemonHandle | None = None
    turn: trio.Lock = Factory(trio.Lock)

    @asynccontextmanager
    async def used(self) -> AsyncIterator[None]:
        """Keep it from being ended as idle, for the length of a block.

        The count is raised before its process is asked for, so that it is never ended between.
        """
        async with self.turn:
            self.uses += 1
        try:
            yield
        finally:
            self.uses -= 1
            self.idle_since = trio.current_time()

    def is_idle(self, after_s: float) -> bool:
        """Whether nobody has needed it for so many seconds."""
        return not self.uses and trio.current_time() - self.idle_since >= after_s
