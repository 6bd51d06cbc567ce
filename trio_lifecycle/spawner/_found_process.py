"""Processes that somebody else started: found behind an address, or not to be seen at all."""

import os
import select
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

import trio

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    signal_process,
    tree_of,
    wchan,
)
from trio_lifecycle.abc import Process, Verdict
from trio_lifecycle.spawner._wait import wait_for


class FoundProcess(Process):
    """A process of this machine that is not our child.

    Told by its number and start time together.
    """

    def __init__(self, stat: Stat, pidfd: int) -> None:
        self._stat = stat
        self._pidfd = pidfd
        self._turn = trio.Lock()
        self._ended = False
        self._tree = {stat.pid: stat}
        self._rest()

    def __del__(self) -> None:
        # Kept by the prober that found it and by handles, in no order; the last one to let go
        # closes it.
        os.close(self._pidfd)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._stat.pid

    @property
    def status(self) -> None:
        """Only its parent could know."""
        return None

    @property
    def ended(self) -> bool:
        """Ask the pidfd."""
        if not self._ended:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            self._ended = bool(poll.poll(0))
        return self._ended

    @property
    def gone(self) -> bool:
        """Look at the processes that were of its tree when it was signalled."""
        return self.ended and not self._rest()

    def _rest(self) -> list[Stat]:
        """Find what is left of the tree.

        Who was in it is remembered: an orphan's ancestry can't be seen any more. The number of the
        main process is another's once nobody is left of the session or group that it led.
        """
        stats = all_stats()
        main = stats.get(self.pid)
        self._tree = {stat.pid: stat for stat in self._tree.values() if _lives(stat, stats)}
        if main is None:
            keeps_number = any(stat.is_led_by(self.pid) for stat in self._tree.values())
        else:
            keeps_number = main.start_time == self._stat.start_time
        if keeps_number:
            self._tree |= {stat.pid: stat for stat in tree_of(self._stat, stats)}
        return list(self._tree.values())

    async def wait(self) -> None:
        """Wait on the pidfd."""
        async with self._turn:
            while not self.ended:
                await trio.lowlevel.wait_readable(self._pidfd)

    async def wait_gone(self) -> None:
        """Wait for one after the other."""
        await self.wait()
        while rest := self._rest():
            await wait_for(rest[0])

    async def send_signal(self, signum: int) -> None:
        """Send through the pidfd."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signum)

    async def signal_tree(self, signum: int) -> None:
        """Send to each by its identity."""
        for stat in self._rest():
            with suppress(PermissionError):
                signal_process(stat, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Look at what is left."""
        return next(((stat.pid, wchan(stat.pid)) for stat in self._rest()), None)

    async def contains(self, pid: int) -> bool | None:
        """Look at the tree."""
        return any(pid == stat.pid for stat in tree_of(self._stat, all_stats()))

    async def listener_at(self, host: str, port: int) -> Verdict:
        """It was found by its listener."""
        return Verdict.UNKNOWN

    def output_tail(self) -> bytes:
        """Its output goes where its starter wanted it."""
        return b""

    def lines(self) -> AsyncIterator[str]:
        """Its output goes where its starter wanted it."""
        return _NoLines()

    def close(self) -> None:
        """The descriptor stays with the object: others may use it, too."""


class _NoLines(AsyncIterator[str]):
    """The lines of a process whose output goes elsewhere: none."""

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        raise StopAsyncIteration


def _lives(stat: Stat, stats: Mapping[int, Stat]) -> bool:
    now = stats.get(stat.pid)
    return now is not None and now.start_time == stat.start_time and not now.dead


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
        return _NoLines()

    def close(self) -> None:
        """Nothing is open."""
