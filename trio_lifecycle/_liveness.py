"""Asking again: whether a daemon runs, is gone, or nobody knows."""

from collections.abc import Awaitable, Callable
from typing import Literal

from trio_lifecycle._errors import DaemonStateUnknownError, ForeignDaemonError, ReadyError
from trio_lifecycle.abc import ArmedReady, Process

Liveness = Literal["running", "gone", "unknown"]


class Asker:
    """Asks one daemon, by the mode that said that it was ready.

    Args:
        process: The daemon's process.
        arm: Gets the mode ready to ask; None where the mode is not known.
        heard: The mode at work, where it goes on to hear the daemon.
    """

    def __init__(
        self,
        process: Process,
        arm: Callable[[], Awaitable[ArmedReady | None]] | None = None,
        heard: ArmedReady | None = None,
    ) -> None:
        self._process = process
        self._arm = arm
        self._armed = heard

    async def ask(self) -> Liveness:
        """Ask once, within the mode's own limit for one look."""
        try:
            await self._process.look()
        except DaemonStateUnknownError:
            return "unknown"
        answers = not self._process.ended and await self._answers()
        # It may have ended while it was asked.
        if self._process.ended:
            return "gone"
        return "running" if answers and self._process.unseen is None else "unknown"

    async def _answers(self) -> bool:
        if self._armed is None and self._arm is not None:
            self._armed = await self._arm()
        if self._armed is None:
            # It gave its word only once: being alive must do, where that can be seen.
            return self._process.pid is not None
        try:
            return await self._armed.ask(self._process) is not None
        except (DaemonStateUnknownError, ForeignDaemonError, ReadyError):
            return False
