"""The recovery: what a daemon had comes back late, and is waited for, when the daemon is gone."""

from collections.abc import Sequence
from typing import Final

import trio

from trio_lifecycle._checks import Awaited, find_problem
from trio_lifecycle._diary import Diary
from trio_lifecycle._events import NotRecovered
from trio_lifecycle._groups import only
from trio_lifecycle._polling import next_interval

# A look at a GPU costs a millisecond or two in a thread.
_LONGEST_INTERVAL_S: Final = 0.1


class Recovery:
    """What is waited for after one stop: once, however many wait.

    Args:
        awaited: The checks whose matter is waited for, and what to ask.
    """

    def __init__(self, awaited: Sequence[Awaited] = ()) -> None:
        self._awaited = list(awaited)
        self._turn = trio.Lock()

    @property
    def over(self) -> bool:
        """Whether there is nothing to wait for, or no more."""
        return not self._awaited

    async def wait(self, pid: int | None, gone_at: float, diary: Diary) -> None:
        """Wait until all is free again, or its time is up; the diary hears of what is not.

        Args:
            pid: The process that is gone.
            gone_at: When it went, by Trio's clock. From then on the seconds count.
            diary: The daemon's.
        """
        if self.over:
            return
        try:
            async with self._turn, trio.open_nursery() as nursery:
                for awaited in self._awaited:
                    nursery.start_soon(self._wait_for, awaited, pid, gone_at, diary)
        except BaseExceptionGroup as group:
            raise only(group) from None

    @trio.lowlevel.enable_ki_protection
    async def _wait_for(
        self, awaited: Awaited, pid: int | None, gone_at: float, diary: Diary
    ) -> None:
        check, look = awaited
        problem: str | None = f"{check!r} could not be asked in time"
        with trio.move_on_at(gone_at + check.wait_for_recovery):
            while (problem := await find_problem(check, look)) is not None:
                waited_s = trio.current_time() - gone_at
                await trio.sleep(next_interval(waited_s, _LONGEST_INTERVAL_S))
        # One that was cancelled stays in the list, for who waits next.
        self._awaited.remove(awaited)
        if problem is not None:
            waited_s = trio.current_time() - gone_at
            diary.note(NotRecovered, pid=pid, problem=problem, waited_s=waited_s)
