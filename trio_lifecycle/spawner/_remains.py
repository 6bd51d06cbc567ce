"""What is left of a daemon whose main process has ended."""

from collections.abc import AsyncIterator, Iterable

import trio

from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import Stat, all_stats
from trio_lifecycle.abc import Verdict
from trio_lifecycle.spawner._observed import ObservedProcess, living
from trio_lifecycle.spawner._unseen_process import NoLines


class Remains(ObservedProcess):
    """The processes of a session or group whose leader is gone, and their descendants.

    Args:
        pid: The number of the main process that has ended.
        stats: What is left.
        output: The log file, where that is known.
        whole: Whether all that it has started goes with it; see ``ObservedProcess``.
    """

    def __init__(
        self, pid: int, stats: Iterable[Stat], output: FileOutput | None, *, whole: bool = False
    ) -> None:
        super().__init__(output, whole=whole)
        self._pid = pid
        self._stats = {stat.pid: stat for stat in stats}

    @property
    def pid(self) -> int:
        """The number that it had."""
        return self._pid

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
        lives = living(self._stats, stats)
        if any(stat.is_led_by(self._pid) for stat in lives.values()):
            # The number is nobody else's yet.
            lives |= self._tree_of(self._pid, stats)
        self._stats = lives
        return list(lives.values())

    async def wait(self) -> None:
        """It has ended."""
        await trio.lowlevel.checkpoint()

    async def send_signal(self, signum: int) -> None:
        """It has ended."""
        await trio.lowlevel.checkpoint()

    async def contains(self, pid: int) -> bool | None:
        """Look at what is left."""
        await trio.lowlevel.checkpoint()
        return any(pid == stat.pid for stat in self._rest())

    async def listener_at(self, host: str, port: int) -> Verdict:
        """Nobody asks what is dying."""
        await trio.lowlevel.checkpoint()
        return Verdict.UNKNOWN

    def lines(self) -> AsyncIterator[str]:
        """Give none: it has ended."""
        return NoLines()

    def close(self) -> None:
        """Nothing is open."""
