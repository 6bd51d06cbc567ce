"""Processes that somebody else started, found behind an address or by a record."""

import os
import select
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from trio_lifecycle._machine import identity_of
from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import Stat, all_stats, tree_of
from trio_lifecycle._records import Identity
from trio_lifecycle.abc import Verdict
from trio_lifecycle.spawner._listening import Listening
from trio_lifecycle.spawner._observed import ObservedProcess, living
from trio_lifecycle.spawner._program import runs
from trio_lifecycle.spawner._unseen_process import NoLines


class FoundProcess(ObservedProcess):
    """A process of this machine that is not our child.

    Told by its number and start time together.

    Args:
        stat: The process.
        pidfd: A descriptor of it, which is kept as long as this object is.
        instance_id: Which instance of a daemon it is; empty where that is not known.
        output: The log file that it writes to, where that is known.
        whole: Whether all that it has started goes with it; see ``ObservedProcess``.
    """

    def __init__(
        self,
        stat: Stat,
        pidfd: int,
        instance_id: str = "",
        output: FileOutput | None = None,
        *,
        whole: bool = False,
    ) -> None:
        super().__init__(output, whole=whole)
        self._stat = stat
        self._pidfd = pidfd
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
        self._tree = living(self._tree, stats)
        if main is None:
            keeps_number = any(stat.is_led_by(self.pid) for stat in self._tree.values())
        else:
            keeps_number = main.start_time == self._stat.start_time
        if keeps_number:
            self._tree |= self._tree_of(self._stat, stats)
        return list(self._tree.values())

    async def wait(self) -> None:
        """Wait on the pidfd."""
        async with self._turn:
            while not self.ended:
                await trio.lowlevel.wait_readable(self._pidfd)

    async def send_signal(self, signum: int) -> None:
        """Send through the pidfd."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signum)

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

    def lines(self) -> AsyncIterator[str]:
        """Follow the log file; no line if its starter wanted the output elsewhere."""
        return NoLines() if self._output is None else self._output.lines(self)

    def close(self) -> None:
        """The descriptor stays with the object: others may use it, too."""
