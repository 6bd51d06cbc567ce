"""What is left of a daemon whose main process has ended."""

from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from pathlib import Path

import trio

from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import Stat, all_stats, signal_process, tree_of, wchan
from trio_lifecycle.abc import Process, Verdict
from trio_lifecycle.spawner._unseen_process import NoLines
from trio_lifecycle.spawner._wait import wait_for


class Remains(Process):
    """The processes of a session or group whose leader is gone, and their descendants.

    Args:
        pid: The number of the main process that has ended.
        stats: What is left.
        output: The log file, where that is known.
    """

    def __init__(self, pid: int, stats: Iterable[Stat], output: FileOutput | None) -> None:
        self._pid = pid
        self._stats = {stat.pid: stat for stat in stats}
        self._output = output

    @property
    def log_file(self) -> Path | None:
        """As it was recorded."""
        return None if self._output is None else self._output.path

    @property
    def pid(self) -> int:
        """The number that it had."""
        return self._pid

    @property
    def status(self) -> None:
        """Only its parent could know."""
        return

    @property
    def ended(self) -> bool:
        """It has."""
        return True

    @property
    def gone(self) -> bool:
        """Look at what was left, and at what that has started."""
        return not self._rest()

    def _rest(self) -> list[Stat]:
        stats = all_stats()
        lives = {pid: stat for pid, stat in self._stats.items() if _lives(stat, stats.get(pid))}
        if any(stat.is_led_by(self._pid) for stat in lives.values()):
            # The number is nobody else's yet.
            lives |= {stat.pid: stat for stat in tree_of(self._pid, stats)}
        self._stats = lives
        return list(lives.values())

    async def wait(self) -> None:
        """It has ended."""
        await trio.lowlevel.checkpoint()

    async def wait_gone(self) -> None:
        """Wait for one after the other."""
        await trio.lowlevel.checkpoint()
        while rest := self._rest():
            await wait_for(rest[0])

    async def send_signal(self, signum: int) -> None:
        """It has ended."""
        await trio.lowlevel.checkpoint()

    async def signal_tree(self, signum: int) -> None:
        """Send to each by its identity."""
        await trio.lowlevel.checkpoint()
        for stat in self._rest():
            with suppress(PermissionError):
                signal_process(stat, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Look at what is left."""
        return next(((stat.pid, wchan(stat.pid)) for stat in self._rest()), None)

    async def contains(self, pid: int) -> bool | None:
        """Look at what is left."""
        await trio.lowlevel.checkpoint()
        return any(pid == stat.pid for stat in self._rest())

    async def listener_at(self, host: str, port: int) -> Verdict:
        """Nobody asks what is dying."""
        await trio.lowlevel.checkpoint()
        return Verdict.UNKNOWN

    def output_tail(self) -> bytes:
        """Give the end of the log file."""
        return b"" if self._output is None else self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Give none: it has ended."""
        return NoLines()

    def close(self) -> None:
        """Nothing is open."""


def _lives(stat: Stat, now: Stat | None) -> bool:
    return now is not None and now.start_time == stat.start_time and not now.dead
