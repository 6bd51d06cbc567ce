"""Running in simulated time, under a chosen schedule."""

from collections.abc import Awaitable, Callable
from typing import TypeVar, TypeVarTuple

import trio
import trio.testing

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")


def run_simulated(
    async_fn: Callable[[*ArgsT], Awaitable[ResultT]], *args: *ArgsT, seed: int = 0
) -> ResultT:
    """Run an async function under a clock that jumps over every wait; give what it returns.

    Real processes, sockets and threads, such as those in which ``FileExists`` and ``Executable``
    look, must stay out of it: while one of them works, the clock sees everybody asleep and jumps.

    Args:
        async_fn: What to run.
        args: Its arguments.
        seed: Chooses the order in which Trio lets tasks run that could run at the same time. Trio
            shuffles them; the same seed gives the same order. Without one Hypothesis would see one
            order only, since it resets every random generator before each example.
    """
    clock = trio.testing.MockClock(autojump_threshold=0)

    async def seeded() -> ResultT:
        # Private, but the only way; a test counts the orders that come out of it.
        trio._core._run._r.seed(seed)
        return await async_fn(*args)

    return trio.run(seeded, clock=clock)
