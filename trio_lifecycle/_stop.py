"""Stopping a daemon: up the ladder, once, however often and by whomever it is asked."""

import signal
from typing import Final

import trio

from trio_lifecycle._diary import Diary
from trio_lifecycle._errors import StopError
from trio_lifecycle._events import Stopped, Stopping
from trio_lifecycle._ladder import KILL_PATIENCE_S, StopLadder, StopReport
from trio_lifecycle._status import signal_name
from trio_lifecycle.abc import Process

# How long after SIGKILL to look for processes that were forked while it was sent, and kill them,
# too.
_KILL_AGAIN_AFTER_S: Final = 0.1


class Stopper:
    """Stops one process and its tree."""

    def __init__(self, process: Process, ladder: StopLadder, diary: Diary) -> None:
        self._process = process
        self._ladder = ladder
        self._diary = diary
        self._turn = trio.Lock()
        self._patience = trio.CancelScope()
        self._report: StopReport | None = None
        self._last_rung: str | None = None
        self.asked = False

    async def stop(self, ladder: StopLadder | None = None) -> StopReport:
        """Climb the ladder; whoever asks while it is climbed, or later, gets the same report.

        Raises:
            StopError: A process outlived SIGKILL.
        """
        self.asked = True
        # Shielded, because a ladder left half-way leaves a daemon that nobody waits for. It is
        # bounded by the ladder's own seconds and the patience after SIGKILL.
        with trio.CancelScope(shield=True):
            await self._stop_once(self._ladder if ladder is None else ladder)
        assert self._report is not None
        return self._report

    async def _stop_once(self, ladder: StopLadder) -> None:
        async with self._turn:
            if self._report is None:
                self._report = await self._climb(ladder)
                self._process.close()

    async def kill(self) -> StopReport:
        """Send SIGKILL at once, also when a ladder is being climbed."""
        self._patience.cancel()
        return await self.stop(StopLadder())

    async def terminate(self, signum: int) -> None:
        """Ask the tree once to go, and don't wait."""
        self.asked = True
        if not self._process.ended:
            await self._send(signum)

    async def _climb(self, ladder: StopLadder) -> StopReport:
        began = trio.current_time()
        with self._patience:
            for rung in ladder.rungs:
                if self._process.gone or self._patience.cancel_called:
                    break
                await self._send(rung.signum)
                with trio.move_on_after(rung.seconds):
                    await self._process.wait_gone()
        # A scope serves once, and who gets a StopError may ask again.
        self._patience = trio.CancelScope()
        if not self._process.gone:
            await self._insist(began)
        seconds = trio.current_time() - began
        report = StopReport(self._last_rung, self._process.status, seconds)
        self._diary.note(
            Stopped, pid=self._process.pid, rung=report.rung, status=report.status, seconds=seconds
        )
        return report

    async def _insist(self, began: float) -> None:
        deadline = trio.current_time() + KILL_PATIENCE_S
        while not self._process.gone and trio.current_time() < deadline:
            await self._send(signal.SIGKILL)
            with trio.move_on_after(_KILL_AGAIN_AFTER_S):
                await self._process.wait_gone()
        stuck = self._process.find_stuck()
        if stuck and not self._process.gone:
            pid, waiting_in = stuck
            seconds = trio.current_time() - began
            raise StopError(self._diary.name, pid, waiting_in, seconds)

    async def _send(self, signum: int) -> None:
        rung = signal_name(signum)
        if rung != self._last_rung:
            self._last_rung = rung
            self._diary.note(Stopping, pid=self._process.pid, rung=rung)
        await self._process.signal_tree(signum)
        if signum != signal.SIGKILL:
            # A stopped process acts on nothing but SIGKILL until it is continued.
            await self._process.signal_tree(signal.SIGCONT)
