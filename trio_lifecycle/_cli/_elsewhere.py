"""The machine of ``--host``: how daemons are started and found there, and their logs."""

from collections.abc import Iterable
from typing import Any

import trio

from trio_lifecycle._cli._log_file import LogFile, Piece
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._ssh import _remote_files
from trio_lifecycle._ssh._host_facts import HostFacts
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_files import Chunk
from trio_lifecycle.abc import DaemonRecord, Process, Report
from trio_lifecycle.spawner._ssh import SSHSpawner


class Elsewhere(SSHSpawner):
    """Another machine, as one command needs it.

    Args:
        forwards: Whether a daemon's address is to be one of this machine. A forward ends with the
            command, so what is said of a daemon that is left running is its own address.
        **options: See ``SSHSpawner``.
    """

    def __init__(self, *, forwards: bool, **options: Any) -> None:
        super().__init__(**options)
        self._forwards = forwards

    @property
    def name(self) -> str:
        """The machine, as it was named."""
        return self._target.host

    async def facts(self) -> HostFacts:
        """Connect, and give what the machine says of itself.

        Raises:
            SSHConnectError: It can't be reached.
        """
        return await self._machine.facts()

    async def those_of(self, records: Iterable[DaemonRecord]) -> list[DaemonRecord]:
        """Give the records that are about daemons of this machine.

        Raises:
            SSHConnectError: It can't be reached.
        """
        facts = await self.facts()
        return [record for record in records if _is_about(record, facts)]

    async def insist_on(self, record: DaemonRecord) -> None:
        """Refuse a record that is about a daemon of another machine.

        Raises:
            DaemonStateUnknownError: It is; both are named.
            SSHConnectError: This one can't be reached.
        """
        facts = await self.facts()
        if not _is_about(record, facts):
            problem = (
                f"it is recorded as running on machine {record.host}, and {self.name} is "
                f"{facts.host}"
            )
            raise DaemonStateUnknownError(record.name, problem)

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        """Give an address of this machine, or the daemon's own."""
        if self._forwards:
            return await super().reach(report, nursery, process)
        await trio.lowlevel.checkpoint()
        return report

    async def open_log(self, path: str) -> LogFile:
        """Give a log file there.

        Raises:
            OSError: It is not there, or can't be read.
            SSHConnectError: The machine can't be reached.
        """
        log = _LogThere(self._machine, path)
        await log.open()
        return log

    async def default_log(self, name: str) -> str:
        """Say where the log is of a daemon that was left running, if nobody chose another place.

        Raises:
            SSHConnectError: The machine can't be reached.
        """
        return f"{(await self.facts()).state_dir}/logs/{name}.log"


def _is_about(record: DaemonRecord, facts: HostFacts) -> bool:
    return record.boot_id == facts.boot_id or record.host == facts.host


class _LogThere(LogFile):
    """A log file of another machine, read by its path."""

    def __init__(self, machine: Machine, path: str) -> None:
        super().__init__()
        self._machine = machine
        self._path = path

    async def open(self) -> None:
        """See that it is there, and can be read."""
        if await self._look(0, 0) is None:
            raise FileNotFoundError(self._path)

    def close(self) -> None:
        """Nothing is open."""

    async def _read_at(self, offset: int, most_bytes: int) -> Piece:
        # One that is not there any more was moved away, and the next is not written yet.
        return Piece(*(await self._look(offset, most_bytes) or (0, b"")))

    async def _look(self, offset: int, most_bytes: int) -> Chunk | None:
        async def look(line: Line) -> Chunk | None:
            return await _remote_files.read_log(line, self._path, offset, most_bytes)

        return await self._machine.look(look)
