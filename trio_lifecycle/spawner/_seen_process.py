"""Processes of another machine whose end nobody tells: they are looked at."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

from trio_lifecycle._destination import DEFAULT_TAIL_BYTES
from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh import _remote_processes
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_processes import Tree
from trio_lifecycle.abc import Hearing
from trio_lifecycle.spawner._remote_log import LogHearing, LogLines, RemoteLog, end_of
from trio_lifecycle.spawner._remote_process import RemoteProcess
from trio_lifecycle.spawner._unseen_process import NoLines

# How long a machine may be out of reach before its processes count as unseen to who waits. A
# machine that is started anew, or a network that is mended, takes longer.
_PATIENCE_S: Final = 30.0


class SeenProcess(RemoteProcess):
    """A process that somebody else has started there, found behind an address or by a record.

    Args:
        machine: Where it runs.
        name: The daemon's name, for messages.
        identity: Which process it is.
        instance_id: Which instance of a daemon it is; empty where that is not known.
        output: Takes what is read of its log file.
        log: The path of its log file; None where its output goes elsewhere.
        tree: What was seen of it.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        identity: Identity,
        instance_id: str,
        output: FedOutput,
        log: str | None,
        tree: Tree | None,
    ) -> None:
        super().__init__(machine, name, identity, instance_id, output)
        self._log = log
        self._tree = tree

    @property
    def log_file(self) -> Path | None:
        """Its path there."""
        return None if self._log is None else Path(self._log)

    @property
    def seen_alive(self) -> int | None:
        """When it was looked at last."""
        return None if self._tree is None else self._tree.now

    @property
    def status(self) -> int | None:
        """Only its parent could know."""
        return None

    @property
    def ended(self) -> bool:
        """As it was seen last."""
        return self._tree is not None and not self._tree.has(self._told)

    @property
    def gone(self) -> bool:
        """As it was seen last."""
        return self._tree is not None and not self._tree.members

    async def wait(self) -> int | None:
        """Look again and again."""
        await self._poll(lambda: self.ended, self._look_for_end, _PATIENCE_S)
        return self.status

    async def wait_gone(self) -> None:
        """Look again and again."""
        await self._poll(lambda: self.gone, self.look, _PATIENCE_S)

    async def _look_for_end(self) -> None:
        """Look at the one process first: to look at all costs the machine some milliseconds."""

        async def look(line: Line) -> bool:
            return self._is_of(line) and await _remote_processes.lives(line, self._told)

        if not await self._ask(look):
            await self.look()

    async def send_signal(self, signum: int) -> None:
        """Send it there, by the identity."""
        await self._signal_one(signum)

    async def signal_tree(self, signum: int) -> None:
        """Send it there to each by its identity."""
        if not self.gone:
            await self._signal_tree(signum)

    async def read_tail(self) -> None:
        """Bring the end of its log file here.

        Raises:
            SSHConnectError: The machine can't be reached.
        """
        if self._log is not None:
            self._output.feed(await end_of(self._machine, self._log, DEFAULT_TAIL_BYTES))

    def lines(self) -> AsyncIterator[str]:
        """Follow the log file."""
        if self._log is None:
            return NoLines()
        return LogLines(RemoteLog(self._machine, self._log), self)

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Follow the log file."""
        if self._log is None:
            return super().hear_lines(hear)
        return LogHearing(LogLines(RemoteLog(self._machine, self._log), self), hear)
