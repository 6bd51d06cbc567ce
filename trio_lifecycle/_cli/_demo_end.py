"""The demo's end: all that it has started is gone, in order or else at once."""

from collections.abc import Sequence
from typing import Final

import trio

from trio_lifecycle._cli._codes import ALL_WELL, NOT_KEPT_UP
from trio_lifecycle._cli._demo_audience import Audience
from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._proc import read_stat
from trio_lifecycle.demo._asking import AskingError
from trio_lifecycle.demo._sentences import sentence_of
from trio_lifecycle.demo.keeper import Keeper
from trio_lifecycle.demo.queen_lifecycle import HERE, HiveLifecycles

# What is stopped is gone within its ladder, and the queen stops all hives at once.
_STOP_S: Final = 60.0
_KILL_S: Final = 20.0

# The queen's last word about its hives may be on its way when it has ended.
_LAST_WORDS_S: Final = 2.0

# The workers of a hive that was killed are ended by what guards them.
_GUARDED_S: Final = 5.0
_LOOK_S: Final = 0.02


class End:
    """Stops the queen, with all that it has.

    Args:
        keeper: Asks the queen to stop its hives.
        audience: What was seen.
        hosts: Machines that got a hive.
    """

    def __init__(self, keeper: Keeper, audience: Audience, hosts: Sequence[str]) -> None:
        self._keeper = keeper
        self._audience = audience
        self._hosts = (HERE, *hosts)
        self._in_order = trio.CancelScope()

    async def insist(self) -> None:
        """Wait no longer for those who are to go: kill them."""
        self._in_order.cancel()

    async def come(self) -> int:
        """Stop all, see that it is gone, and say so.

        Returns:
            The exit status.
        """
        self._audience.tell("rbee-keeper stop:")
        status = await self._stop()
        if self._in_order.cancelled_caught or status is None:
            return await self._kill()
        await self._audience.hear_all(_LAST_WORDS_S)
        await self._see_them_gone(everywhere=False)
        self._audience.close()
        every = self._audience.rows()
        left = [row.name for row in every if row.goes_on]
        if left:
            self._audience.complain(remainder(left))
            return NOT_KEPT_UP
        self._audience.tell(farewell(sum(row.pid is not None for row in every)))
        return status

    async def _stop(self) -> int | None:
        """Stop all in order; None where that can't be done."""
        self._in_order.deadline = trio.current_time() + _STOP_S
        problems: list[str] = []
        with self._in_order:
            try:
                # Another one, where that which was used has died.
                self._audience.hear(await self._keeper.queen())
                told = await self._keeper.stop() or ()
                problems = [each["error"] for each in told if "error" in each]
            except LifecycleError as error:
                self._audience.complain(sentence_of(error, "queen-rbee can't be stopped"))
                return None
            except AskingError as error:
                self._audience.complain(str(error))
                return None
        for problem in problems:
            self._audience.complain(problem)
        return NOT_KEPT_UP if problems else ALL_WELL

    async def _kill(self) -> int:
        """Kill all. The queen is the first, so that nothing is started any more."""
        problems: list[str] = []
        with trio.move_on_after(_KILL_S) as patience:
            await self._kill_queen(problems)
            async with trio.open_nursery() as nursery:
                for host in self._hosts:
                    nursery.start_soon(self._kill_hive, host, problems)
        if patience.cancelled_caught:
            problems.append(f"not all was seen to be gone within {_KILL_S:.0f} s")
        await self._see_them_gone(everywhere=not problems)
        self._audience.close()
        for problem in problems:
            self._audience.complain(problem)
        if not problems:
            self._audience.tell("all that was left has been killed")
        # Unless a signal counts for more: it was not stopped as it should have been.
        return NOT_KEPT_UP

    async def _kill_queen(self, problems: list[str]) -> None:
        queen = self._keeper.used
        try:
            if queen is not None:
                await queen.kill()
        except LifecycleError as error:
            problems.append(sentence_of(error, "queen-rbee can't be killed"))

    async def _kill_hive(self, host: str, problems: list[str]) -> None:
        try:
            hive = await HiveLifecycles([], lambda _event: None).find(host)
            if hive is not None:
                await hive.kill()
        except LifecycleError as error:
            problems.append(sentence_of(error, f"the hive on {host} can't be killed"))

    async def _see_them_gone(self, *, everywhere: bool) -> None:
        """See that those are gone, too, of whom nobody tells any more: workers of a killed hive.

        Args:
            everywhere: Whether they are on other machines, where they can't be seen from here.
        """
        quiet = [row for row in self._audience.rows() if row.goes_on]
        here = [row for row in quiet if not row.host]
        with trio.move_on_after(_GUARDED_S):
            while any(_is_there(row.pid) for row in here):  # noqa: ASYNC110  # nobody tells
                await trio.sleep(_LOOK_S)
        for row in quiet:
            if everywhere if row.host else not _is_there(row.pid):
                self._audience.note_end(row)


def _is_there(pid: int | None) -> bool:
    stat = None if pid is None else read_stat(pid)
    return stat is not None and not stat.dead


def farewell(started: int) -> str:
    """Say that nothing is left.

    Args:
        started: Of how many.
    """
    if started == 1:
        return "1 daemon was started, and nothing is left of it"
    return f"{started} daemons were started, and nothing is left of them"


def remainder(left: Sequence[str]) -> str:
    """Say what is left, perhaps, and the cure.

    Args:
        left: Who was not seen to be gone.
    """
    names = ", ".join(left)
    return f"not seen to be gone: {names}; stop what is left of that with: rbee-keeper stop"
