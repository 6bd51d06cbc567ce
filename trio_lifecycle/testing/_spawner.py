"""A spawner whose processes are simulated."""

from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import trio
from attrs import frozen

from trio_lifecycle import BinaryNotFoundError
from trio_lifecycle.abc import (
    Answer,
    Prober,
    Process,
    ReservedPort,
    Spawner,
    SpawnRequest,
    Verdict,
)
from trio_lifecycle.testing._incarnation import HANGS, REFUSES, Incarnation, Simulated


class SimulatedSpawner(Spawner):
    """Spawns simulated daemons.

    Args:
        programs: The one daemon that every program is, or a daemon for each program's name.
    """

    def __init__(self, programs: Simulated | Mapping[str, Simulated]) -> None:
        self._programs = programs
        self._ports = count(10_000)

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Let the daemon be born after its ``spawn_after``."""
        daemon = self._daemon(request.program.rpartition("/")[2])
        if daemon.spawn_after:
            await trio.sleep(daemon.spawn_after)
        ports = [int(arg) for arg in request.args if arg.isdecimal()]
        return SimulatedProcess(daemon.start(ports[0] if ports else None))

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Every program is there, unless only some were given."""
        await trio.lowlevel.checkpoint()
        self._daemon(name)
        return f"/simulated/{name}"

    async def reserve_port(self) -> ReservedPort:
        """Count upwards."""
        await trio.lowlevel.checkpoint()
        return SimulatedPort(next(self._ports))

    def open_prober(self) -> Prober:
        """Ask the simulated daemons."""
        if isinstance(self._programs, Mapping):
            return SimulatedProber(list(self._programs.values()))
        return SimulatedProber([self._programs])

    def _daemon(self, name: str) -> Simulated:
        if not isinstance(self._programs, Mapping):
            return self._programs
        if name not in self._programs:
            raise BinaryNotFoundError(name, (f"/simulated/{name}",))
        return self._programs[name]


@frozen
class SimulatedPort:
    """A port that nobody else gets."""

    number: int

    def release(self) -> None:
        """Numbers are never given twice."""


class SimulatedProcess(Process):
    """A handle on a simulated process."""

    def __init__(self, incarnation: Incarnation) -> None:
        self._it = incarnation

    @property
    def pid(self) -> int:
        """Counted from 1000 for each daemon."""
        return self._it.pid

    @property
    def status(self) -> int | None:
        """The status, once it has ended."""
        return self._it.status if self._it.ended else None

    @property
    def ended(self) -> bool:
        """Follows from the clock."""
        return self._it.ended

    @property
    def gone(self) -> bool:
        """Follows from the clock."""
        return self._it.gone

    async def wait(self) -> int | None:
        """Sleep until its end."""
        await self._sleep_until(lambda: self._it.ends)
        return self._it.status

    async def wait_gone(self) -> None:
        """Sleep until the end of its tree."""
        await self._sleep_until(lambda: self._it.goes)

    async def _sleep_until(self, moment: Callable[[], float]) -> None:
        await trio.lowlevel.checkpoint()
        while trio.current_time() < moment():
            with trio.move_on_at(moment()):
                await self._it.changed.wait()

    async def send_signal(self, signum: int) -> None:
        """Let it get the signal."""
        self._it.signal(signum)

    async def signal_tree(self, signum: int) -> None:
        """Let it get the signal."""
        self._it.signal(signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Name the one process, while there is anything left."""
        return None if self._it.gone else (self._it.pid, "simulated_wait")

    async def contains(self, pid: int) -> bool | None:
        """It has one process."""
        return pid == self._it.pid

    async def listener_at(self, host: str, port: int) -> Verdict:
        """What the daemon's description says."""
        return Verdict.FOREIGN if self._it.daemon.is_foreign else Verdict.OURS

    def output_tail(self) -> bytes:
        """What it was said to write."""
        return self._it.daemon.writes

    def lines(self) -> AsyncIterator[str]:
        """Nothing more after the spawn."""
        return _LinesUntilTheEnd(self)

    def close(self) -> None:
        """Nothing is open."""


class _LinesUntilTheEnd(AsyncIterator[str]):
    def __init__(self, process: SimulatedProcess) -> None:
        self._process = process

    async def __anext__(self) -> str:
        await self._process.wait()
        raise StopAsyncIteration


class SimulatedProber(Prober):
    """Asks simulated daemons."""

    def __init__(self, daemons: list[Simulated]) -> None:
        self._daemons = daemons

    async def get(self, url: str) -> Answer:
        """Ask whoever lives at the port, or be refused."""
        await trio.lowlevel.checkpoint()
        incarnation = self._at(urlsplit(url).port or 80)
        status = REFUSES if incarnation is None else incarnation.answer()
        if incarnation is None or status == REFUSES:
            return Answer(None, "refused the connection", absent=True)
        if status == HANGS:
            await trio.sleep_forever()
        await trio.sleep(incarnation.daemon.answer_after)
        if incarnation.ended:
            return Answer(None, "closed the connection without an answer")
        return Answer(status)

    async def owner_of(self, host: str, port: int) -> Process:
        """Give whoever lives there."""
        await trio.lowlevel.checkpoint()
        incarnation = self._at(port)
        assert incarnation is not None
        return SimulatedProcess(incarnation)

    def describe_owner(self, host: str, port: int) -> str:
        """Name whoever lives there."""
        incarnation = self._at(port)
        return "nobody" if incarnation is None else f"process {incarnation.pid} (simulated)"

    def _at(self, port: int) -> Incarnation | None:
        living = [
            incarnation
            for daemon in self._daemons
            for incarnation in daemon.incarnations
            if incarnation.port == port and not incarnation.ended
        ]
        return living[0] if living else None
