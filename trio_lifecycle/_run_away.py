"""What a failed start has left outside of its tree."""

import trio

from trio_lifecycle._diary import Diary
from trio_lifecycle._ladder import StopLadder
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import Process, Spawner


async def end_strays(process: Process, spawner: Spawner, diary: Diary, ladder: StopLadder) -> None:
    """End what has left a daemon's session, as a program does that goes into the background.

    Args:
        process: What was started.
        spawner: Who has started it.
        diary: Hears of it; it has the id of the start.
        ladder: How it is ended.
    """
    # Shielded, because the start may have been cancelled. Bounded: a look, then the ladder.
    with trio.CancelScope(shield=True):
        strays = await spawner.find_strays(process, diary.instance_id)
        if strays is not None:
            await Stopper(strays, ladder, diary).stop()
