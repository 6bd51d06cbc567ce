"""Daemons that answer, but whose process is not to be seen."""

from collections.abc import AsyncIterator

import trio

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle.abc import Process, Verdict


class UnseenProcess(Process):
    """A daemon that answers, but whose process can't be found from here.

    On another machine, or another user's.
    """

    @property
    def pid(self) -> None:
        """It can't be told."""
        return

    @property
    def status(self) -> None:
        """It can't be told."""
        return

    @property
    def ended(self) -> bool:
        """Its end can't be seen."""
        return False

    @property
    def gone(self) -> bool:
        """Its end can't be seen."""
        return False

    async def wait(self) -> None:
        """Its end can't be seen."""
        await trio.sleep_forever()

    async def wait_gone(self) -> None:
        """Its end can't be seen."""
        await trio.sleep_forever()

    async def send_signal(self, signum: int) -> None:
        """Refuse: there is nobody to send it to."""
        raise DaemonStateUnknownError(
            "the daemon", "its process can't be found from here, so it can't be signalled"
        )

    async def signal_tree(self, signum: int) -> None:
        """Refuse: there is nobody to send it to."""
        await self.send_signal(signum)

    def find_stuck(self) -> None:
        """Nothing is seen."""
        return

    async def contains(self, pid: int) -> None:
        """It can't be told."""
        return

    async def listener_at(self, host: str, port: int) -> Verdict:
        """It can't be told."""
        return Verdict.UNKNOWN

    def output_tail(self) -> bytes:
        """Its output goes where its starter wanted it."""
        return b""

    def lines(self) -> AsyncIterator[str]:
        """Its output goes where its starter wanted it."""
        return NoLines()

    def close(self) -> None:
        """Nothing is open."""


class NoLines(AsyncIterator[str]):
    """The lines of a process whose output goes elsewhere: none."""

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration
