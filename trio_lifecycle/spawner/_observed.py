"""What processes have in common that somebody else has started."""

from abc import abstractmethod
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import Stat, signal_process, tree_of, wchan
from trio_lifecycle.abc import Process
from trio_lifecycle.spawner._wait import wait_for


class ObservedProcess(Process):
    """A tree that somebody else started, each process of it told by number and start time.

    Args:
        output: The log file that it writes to, where that is known.
        whole: Whether all that it has started goes with it, as under a reaper. Else only what has
            stayed in its session does, as for its starter: it may have left daemons running.
    """

    def __init__(self, output: FileOutput | None, *, whole: bool) -> None:
        self._output = output
        self._whole = whole

    def _tree_of(self, leader: Stat | int, stats: Mapping[int, Stat]) -> dict[int, Stat]:
        """Find what goes with it, as long as its number is its own."""
        tree = tree_of(leader, stats)
        pid = leader if isinstance(leader, int) else leader.pid
        session = pid if isinstance(leader, int) else leader.session
        return {
            stat.pid: stat
            for stat in tree
            if self._whole or stat.is_led_by(pid) or stat.session == session
        }

    @property
    def log_file(self) -> Path | None:
        """As it was recorded."""
        return None if self._output is None else self._output.path

    @property
    def status(self) -> None:
        """Only its parent could know."""
        return

    @abstractmethod
    def _rest(self) -> list[Stat]:
        """Find what there is of the tree at this moment."""

    async def wait_gone(self) -> None:
        """Wait for one after the other."""
        await self.wait()
        while rest := self._rest():
            await wait_for(rest[0])

    async def signal_tree(self, signum: int) -> None:
        """Send to each by its identity."""
        for stat in self._rest():
            with suppress(PermissionError):
                signal_process(stat, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Look at what is left."""
        return next(((stat.pid, wchan(stat.pid)) for stat in self._rest()), None)

    def output_tail(self) -> bytes:
        """Give the end of the log file; nothing if its starter wanted the output elsewhere."""
        return b"" if self._output is None else self._output.tail()


def living(known: Mapping[int, Stat], stats: Mapping[int, Stat]) -> dict[int, Stat]:
    """Say which of the processes that were known are among those that there are now."""
    return {pid: stat for pid, stat in known.items() if _lives(stat, stats.get(pid))}


def _lives(stat: Stat, now: Stat | None) -> bool:
    return now is not None and now.start_time == stat.start_time and not now.dead
