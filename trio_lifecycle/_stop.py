"""Stopping a daemon: up the ladder, once, however often and by whomever it is asked."""

import logging
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import trio

from trio_lifecycle._diary import Diary
from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError, StopError
from trio_lifecycle._events import Died, ReaperLost, Stopped, Stopping, Unseen
from trio_lifecycle._ladder import KILL_PATIENCE_S, StopLadder, StopReport
from trio_lifecycle._recovery import Recovery
from trio_lifecycle._sight import look_once, out_of_sight, see_again
from trio_lifecycle._status import signal_name
from trio_lifecycle.abc import DaemonRecord, Process

# How long after SIGKILL to look for processes that were forked while it was sent, and kill them,
# too.
_KILL_AGAIN_AFTER_S: Final = 0.1

# How long a program that has run out of descriptors gets to close some.
_LOOK_AGAIN_AFTER_S: Final = 0.1

# What a registry gets to take the news that a daemon goes. The daemon goes without that, too.
_REGISTRY_PATIENCE_S: Final = 1.0

_log: Final = logging.getLogger("trio_lifecycle")


class Remembered(Protocol):
    """What is to be told when a daemon goes: its entry in a registry."""

    record: DaemonRecord | None

    async def note_stopping(self, ladder: StopLadder) -> None:
        """Hear that it was asked to go, and in which steps."""

    async def forget(self) -> None:
        """Hear that it is gone."""


class Stopper:
    """Stops one process and its tree, and knows whether its end was wanted.

    Attributes:
        asked: Whether somebody has asked it to go.
        unseen: Why it was lost from sight; it stays when the process is seen again.
        tell_owner: Has its owner, if it has one, look at once what became of it.
    """

    def __init__(
        self,
        process: Process,
        ladder: StopLadder,
        diary: Diary,
        entry: Remembered | None = None,
        recovery: Recovery | None = None,
    ) -> None:
        self._entry = entry
        self._recovery = Recovery() if recovery is None else recovery
        self._gone_at = 0.0
        self._process = process
        self._ladder = self._climbed = ladder
        self._diary = diary
        self._turn = trio.Lock()
        self._patience = trio.CancelScope()
        self._report: StopReport | None = None
        self._last_rung: str | None = None
        self._terminated_by: int | None = None
        self._died = self._is_lost_from_sight = False
        self.asked: bool = False
        self.unseen: str | None = None
        self.tell_owner: Callable[[], None] = lambda: None

    def note_death(self) -> bool:
        """Say whether it ended, or lost its reaper, unasked; the diary hears of it once."""
        if not self._died and not self.asked:
            pid, lost = self._process.pid, self._process.lost
            # First, since an observer may end the program by what it raises.
            self._died = lost is not None or self._process.ended
            if lost is not None:
                self._diary.note(ReaperLost, pid=pid, reason=lost)
            elif self._died:
                self._diary.note(Died, pid=pid, status=self._process.status)
        return self._died

    def note_unseen(self) -> bool:
        """Say whether it was lost from sight, unasked and alive; the diary hears of it once."""
        process, reason = self._process, self.unseen or self._process.unseen
        is_over = self._died or self.asked or process.ended or process.lost is not None
        if reason is not None and not (is_over or self._is_lost_from_sight):
            self._is_lost_from_sight = True
            self.unseen = reason
            self._diary.note(Unseen, pid=process.pid, reason=reason)
        return self._is_lost_from_sight

    @property
    def seconds(self) -> float:
        """How long its ladder takes at most: the one that is climbed, or that it will climb."""
        return self._climbed.seconds

    async def stop(self, ladder: StopLadder | None = None) -> StopReport:
        """Climb the ladder; whoever asks while it is climbed, or later, gets the same report.

        Raises:
            StopError: A process outlived SIGKILL.
            DaemonStateUnknownError: It can't be seen to be gone.
        """
        self.note_unseen()
        self.asked = not self.note_death()
        # Shielded, because a ladder left half-way leaves a daemon that nobody waits for. It is
        # bounded by the ladder's own seconds and the patience after SIGKILL.
        with trio.CancelScope(shield=True):
            await self._stop_once(self._ladder if ladder is None else ladder)
        assert self._report is not None
        return self._report

    async def _stop_once(self, ladder: StopLadder) -> None:
        async with self._turn:
            if self._report is None:
                await self._climb(ladder)

    @property
    def is_recovering(self) -> bool:
        """Whether something is still to be waited for, once it is gone."""
        return not self._recovery.over

    async def recovered(self) -> None:
        """Wait, once it was stopped, until what it had is free again, or the time for that is up.

        Not shielded: nobody is held by what is only late.
        """
        if self._report is not None:
            await self._recovery.wait(self._process.pid, self._gone_at, self._diary)

    async def kill(self) -> StopReport:
        """Send SIGKILL at once, also when a ladder is being climbed."""
        self._patience.cancel()
        return await self.stop(StopLadder())

    async def terminate(self, signum: int) -> None:
        """Ask the tree once to go, and don't wait.

        Raises:
            DaemonStateUnknownError: It can't be seen any more, so nothing was sent.
        """
        await look_once(self._process, KILL_PATIENCE_S)
        if self._process.unseen is not None and not self._process.ended:
            raise self._out_of_sight()
        self.asked = not self.note_death()
        if self.asked and not self._process.ended:
            await self._note_stopping(self._ladder)
            # Meanwhile another task may have ended it.
            if self._report is None and not self._process.ended:
                self._terminated_by = signum
                await self._send(signum)

    async def _climb(self, ladder: StopLadder) -> None:
        began = trio.current_time()
        self._climbed = ladder
        # What is known of it may be old, where a look is a question to another machine.
        await look_once(self._process, KILL_PATIENCE_S)
        if not self._is_gone():
            await self._note_stopping(ladder)
        try:
            with self._patience:
                await self._climb_politely(ladder)
        finally:
            # A scope serves once, and who gets a StopError may ask again.
            self._patience = trio.CancelScope()
        await self._insist(began)
        self._gone_at = trio.current_time()
        seconds = self._gone_at - began
        report = self._report = StopReport(self._last_rung, self._process.status, seconds)
        self._process.close()
        self._diary.note(
            Stopped, pid=self._process.pid, rung=report.rung, status=report.status, seconds=seconds
        )
        if self._entry is not None:
            await self._tell(self._entry.forget)

    async def _note_stopping(self, ladder: StopLadder) -> None:
        if self._entry is not None:
            await self._tell(partial(self._entry.note_stopping, ladder))

    async def _tell(self, tell: Callable[[], Awaitable[None]]) -> None:
        with trio.move_on_after(_REGISTRY_PATIENCE_S):
            try:
                await tell()
            except LifecycleError as error:
                # A record of what is gone is found to be stale by the next who reads it.
                _log.warning("the record of %s: %s", self._diary.name, error)

    async def _climb_politely(self, ladder: StopLadder) -> None:
        for number, rung in enumerate(ladder.rungs):
            if self._is_gone() or self._patience.cancel_called:
                break
            # Who comes into sight late is asked all the same, and has the whole time to go.
            with trio.move_on_after(rung.seconds):
                await see_again(self._process)
            if self._process.unseen is not None or self._is_gone():
                continue
            # Many programs take a second SIGTERM for an order to drop all.
            if number > 0 or rung.signum != self._terminated_by:
                await self._send(rung.signum)
            await self._wait_gone(rung.seconds)

    async def _insist(self, began: float) -> None:
        with trio.move_on_after(KILL_PATIENCE_S):
            await see_again(self._process)
        deadline = trio.current_time() + KILL_PATIENCE_S
        while not self._is_gone():
            if self._process.unseen is not None or trio.current_time() >= deadline:
                raise self._failure(trio.current_time() - began)
            await self._send(signal.SIGKILL)
            await self._wait_gone(_KILL_AGAIN_AFTER_S)
            with trio.move_on_at(deadline):
                await see_again(self._process)

    def _out_of_sight(self) -> DaemonStateUnknownError:
        recorded = self._entry is not None and self._entry.record is not None
        return out_of_sight(self._diary.name, self._process, recorded=recorded)

    def _failure(self, seconds: float) -> LifecycleError:
        if self._process.unseen is not None:
            return self._out_of_sight()
        stuck = None
        with suppress(OSError):
            stuck = self._process.find_stuck()
        pid, waiting_in = stuck or (self._process.pid or 0, "")
        return StopError(self._diary.name, pid, waiting_in, seconds)

    async def _send(self, signum: int) -> None:
        rung = signal_name(signum)
        if signum != signal.SIGKILL or rung != self._last_rung:
            self._last_rung = rung
            self._diary.note(Stopping, pid=self._process.pid, rung=rung)
        with suppress(OSError, DaemonStateUnknownError):
            await self._process.signal_tree(signum)
            if signum != signal.SIGKILL:
                # A stopped process acts on nothing but SIGKILL until it is continued.
                await self._process.signal_tree(signal.SIGCONT)

    # A program that has run out of descriptors can't look at the rest of a tree. That is no reason
    # to leave a stop half-way: who can't be seen is not gone, and is looked at again. Neither is it
    # one that the connection to another machine was lost.

    def _is_gone(self) -> bool:
        with suppress(OSError):
            return self._process.gone
        return False

    async def _wait_gone(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            while not self._is_gone():
                with suppress(OSError, DaemonStateUnknownError):
                    await self._process.wait_gone()
                    return
                await see_again(self._process)
                await trio.sleep(_LOOK_AGAIN_AFTER_S)
