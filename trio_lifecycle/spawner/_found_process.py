"""Processes that somebody else started, found behind an address or by a record."""

import os
import select
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import trio

from trio_lifecycle._machine import identity_of
from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    signal_process,
    tree_of,
    wchan,
)
from trio_lifecycle._records import Identity
from trio_lifecycle.abc import Process, Verdict
from trio_lifecycle.spawner._listening import Listening
from trio_lifecycle.spawner._program import runs
from trio_lifecycle.spawner._unseen_process import NoLines
from trio_lifecycle.spawner._wait import wait_for


class FoundProcess(Process):
    """A process of this machine that is not our child.

    Told by its number and start time together.

    Args:
        stat: The process.
        pidfd: A descriptor of it, which is kept as long as this object is.
        instance_id: Which instance of a daemon it is; empty where that is not known.
        output: The log file that it writes to, where that is known.
    """

    def __init__(
        self, stat: Stat, pidfd: int, instance_id: str = "", output: FileOutput | None = None
    ) -> None:
        self._stat = stat
        self._pidfd = pidfd
        self._output = output
        self._identity: Identity | None = None
        self._listening = Listening(lambda: tree_of(stat, all_stats()), instance_id)
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
    def identity(self) -> Identity | None:
        """Known from the beginning."""
        if self._identity is None:
            with suppress(OSError):
                self._identity = identity_of(self._stat.pid, self._stat.start_time)
        return self._identity

    @property
    def log_file(self) -> Path | None:
        """As it was recorded."""
        return None if self._output is None else self._output.path

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
        """Look who holds the listening socket: one of the tree, or one that bears its id."""
        return self._listening.verdict_at(host, port, None if self.ended else self.pid)

    def runs(self, program: str) -> bool | None:
        """Look at its executable and its arguments."""
        found = runs(self.pid, program)
        # As long as it has not ended the number is not another's.
        return None if self.ended else found

    def output_tail(self) -> bytes:
        """Give the end of the log file; nothing if its starter wanted the output elsewhere."""
        return b"" if self._output is None else self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Follow the log file; no line if its starter wanted the output elsewhere."""
        return NoLines() if self._output is None else self._output.lines(self)

    def close(self) -> None:
        """The descriptor stays with the object: others may use it, too."""


def _lives(stat: Stat, stats: Mapping[int, Stat]) -> bool:
    now = stats.get(stat.pid)
    return now is not None and now.start_time == stat.start_time and not now.dead
