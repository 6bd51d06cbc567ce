"""Work that may hang, such as a look at a disk in a network: in a thread that can be abandoned."""

from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

import trio

ResultT = TypeVar("ResultT")
ArgsT = TypeVarTuple("ArgsT")

# An abandoned thread keeps its place until the disk answers. Those of the program's own, of which
# Trio has 40, are not taken by that.
_MOST_THREADS: Final = 40

_limiter: Final = trio.lowlevel.RunVar[trio.CapacityLimiter | None]("preflight", default=None)


async def in_thread(work: Callable[[*ArgsT], ResultT], *args: *ArgsT) -> ResultT:
    """Do it in a thread; who is cancelled goes on at once and leaves the thread to itself."""
    limiter = _limiter.get()
    if limiter is None:
        limiter = trio.CapacityLimiter(_MOST_THREADS)
        _limiter.set(limiter)
    return await trio.to_thread.run_sync(work, *args, abandon_on_cancel=True, limiter=limiter)
