"""A spawner whose processes are simulated."""

from collections.abc import AsyncIterator, Callable, Mapping
from math import inf
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from trio_lifecycle import BinaryNotFoundError, DaemonStateUnknownError, SpawnError
from trio_lifecycle.abc import (
    DaemonRecord,
    Hearing,
    Identity,
    Prober,
    Process,
    ReservedPort,
    Spawner,
    SpawnRequest,
    Verdict,
)
from trio_lifecycle.testing._incarnation import Incarnation, Simulated
from trio_lifecycle.testing._prober import SimulatedProber

# The name of the one machine that there is, and of its one boot.
_MACHINE: Final = "simulated"

# Counted for all spawners of one run: two daemons of one machine have two ports.
_next_port: Final = trio.lowlevel.RunVar("next_port", default=10_000)


class SimulatedSpawner(Spawner):
    """Spawns simulated daemons.

    Args:
        programs: The one daemon that every program is, or a daemon for each program's name.
    """

    def __init__(self, programs: Simulated | Mapping[str, Simulated]) -> None:
        self._programs = programs

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Let the daemon be born after its ``spawn_after``."""
        daemon = self._daemon(request.program.rpartition("/")[2])
        if daemon.spawn_after:
            await trio.sleep(daemon.spawn_after)
        ports = [int(arg) for arg in request.args if arg.isdecimal()]
        incarnation = daemon.start(ports[0] if ports else None, gated=request.gated)
        return SimulatedProcess(incarnation)

    async def find_process(self, record: DaemonRecord) -> Process | None:
        """Look among all processes that its daemons ever had."""
        await trio.lowlevel.checkpoint()
        if record.boot_id != _MACHINE != record.host:
            raise DaemonStateUnknownError(record.name, f"it is recorded on {record.host}")
        for process in map(SimulatedProcess, self._incarnations()):
            if process.identity == record.identity and not process.is_unseen:
                await process.look()
                return None if process.gone else process
        if any(daemon.unseen for daemon in self._daemons()):
            raise DaemonStateUnknownError(record.name, "its simulated daemon is unseen")
        return None

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Every program is there, unless only some were given."""
        await trio.lowlevel.checkpoint()
        self._daemon(name)
        return f"/simulated/{name}"

    async def reserve_port(self) -> ReservedPort:
        """Count upwards."""
        await trio.lowlevel.checkpoint()
        number = _next_port.get()
        _next_port.set(number + 1)
        return SimulatedPort(number)

    def open_prober(self) -> Prober:
        """Ask the simulated daemons."""
        return SimulatedProber(self._daemons(), SimulatedProcess, self._daemon)

    def _daemons(self) -> list[Simulated]:
        if isinstance(self._programs, Mapping):
            return list(self._programs.values())
        return [self._programs]

    def _incarnations(self) -> list[Incarnation]:
        return [incarnation for daemon in self._daemons() for incarnation in daemon.incarnations]

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
        self._is_seen_again = False

    @property
    def pid(self) -> int:
        """Counted from 1000 in each run."""
        return self._it.pid

    @property
    def identity(self) -> Identity:
        """Of a machine that was never started anew."""
        return Identity(_MACHINE, _MACHINE, self._it.pid, self._it.start_time)

    @property
    def is_unseen(self) -> bool:
        """What the daemon's description says."""
        return self._it.daemon.unseen

    @property
    def unseen(self) -> str | None:
        """What the daemon's description says, until somebody looks who can see it again."""
        is_lost = self._it.now() >= self._it.lost_at and not self._is_seen_again
        return "its simulated connection is lost" if is_lost and not self.gone else None

    async def look(self) -> None:
        """See it, if that can be done again."""
        await trio.lowlevel.checkpoint()
        self._is_seen_again = self._it.can_be_seen and self._it.now() >= self._it.lost_at
        self._insist_on_sight()

    def _insist_on_sight(self) -> None:
        if (reason := self.unseen) is not None:
            raise DaemonStateUnknownError("simulated", f"process {self.pid}: {reason}")

    def _has_come(self, moment: float) -> bool:
        """Say whether a moment was seen to come."""
        seen_until = inf if self._is_seen_again else self._it.lost_at
        return moment <= min(self._it.now(), seen_until)

    async def open_gate(self) -> None:
        """Let it be born."""
        await trio.lowlevel.checkpoint()
        self._insist_on_sight()
        if self._it.at_gate and self._it.ended:
            raise SpawnError("simulated", "its process has ended at its gate")
        self._it.open_gate()

    @property
    def status(self) -> int | None:
        """The status, once it has ended."""
        return self._it.status if self.ended else None

    @property
    def ended(self) -> bool:
        """Follows from the clock."""
        return self._has_come(self._it.ends)

    @property
    def gone(self) -> bool:
        """Follows from the clock."""
        return self._has_come(self._it.goes)

    async def wait(self) -> int | None:
        """Sleep until its end."""
        await self._sleep_until(lambda: self._it.ends)
        return self._it.status

    async def wait_gone(self) -> None:
        """Sleep until the end of its tree."""
        await self._sleep_until(lambda: self._it.goes)

    async def _sleep_until(self, moment: Callable[[], float]) -> None:
        await trio.lowlevel.checkpoint()
        while not self._has_come(moment()):
            self._insist_on_sight()
            lost_at = inf if self._is_seen_again else self._it.lost_at
            with trio.move_on_at(min(moment(), lost_at)):
                await self._it.changed.wait()

    async def send_signal(self, signum: int) -> None:
        """Let it get the signal."""
        self._insist_on_sight()
        self._it.signal(signum)

    async def signal_tree(self, signum: int) -> None:
        """Let it get the signal."""
        self._insist_on_sight()
        self._it.signal(signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Name the one process, while there is anything left."""
        return None if self._it.gone else (self._it.pid, "simulated_wait")

    async def contains(self, pid: int) -> bool | None:
        """It has one process."""
        return pid == self._it.pid

    async def listener_at(self, host: str, port: int) -> Verdict:
        """What the daemon's description says."""
        if self._it.daemon.is_foreign:
            return Verdict.FOREIGN
        ours = self._it.daemon.incarnations
        if host.startswith("/"):
            # Who binds a path anew takes it from the one before.
            holder = next((one for one in reversed(ours) if one.listens), None)
        else:
            # The first who has a port keeps it.
            holder = next((one for one in ours if one.listens_at(port)), None)
        return Verdict.OURS if holder in (None, self._it) else Verdict.FOREIGN

    def runs(self, program: str) -> bool | None:
        """What the daemon's description says."""
        return not self._it.daemon.is_foreign

    @property
    def heard_at(self) -> float | None:
        """When it wrote its last line so far."""
        written = self._it.lines_written
        return self._it.moment_of(written - 1) if written else None

    def output_tail(self) -> bytes:
        """What it was said to write, as far as it has come."""
        if self._it.at_gate:
            return b""
        said = self._it.daemon.says[: self._it.lines_written]
        return self._it.daemon.writes + "".join(f"{line}\n" for _, line in said).encode()

    def lines(self) -> AsyncIterator[str]:
        """What it says from now on; a line of this very moment is among it."""
        return _Lines(self._it)

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Have what it says heard at the moments when it does."""
        return _Heard(_Lines(self._it), hear)

    def close(self) -> None:
        """Nothing is open."""


class _Lines(AsyncIterator[str]):
    def __init__(self, incarnation: Incarnation) -> None:
        self._it = incarnation
        now = trio.current_time()
        moments = map(incarnation.moment_of, range(len(incarnation.daemon.says)))
        self._next = 0 if incarnation.at_gate else sum(moment < now for moment in moments)

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        while trio.current_time() < (moment := self._it.moment_of(self._next)):
            if self._it.ended:
                raise StopAsyncIteration
            with trio.move_on_at(min(moment, self._it.ends)):
                await self._it.changed.wait()
        return self.take()

    @property
    def is_due(self) -> bool:
        return self._it.moment_of(self._next) <= trio.current_time()

    def take(self) -> str:
        self._next += 1
        return self._it.daemon.says[self._next - 1][1]


class _Heard(Hearing):
    def __init__(self, lines: _Lines, hear: Callable[[list[str]], None]) -> None:
        self._lines = lines
        self._hear = hear
        self._scope = trio.CancelScope()
        self._is_closed = False

    async def run(self) -> None:
        # Who was cancelled may run it again, and a scope is good for once only.
        if not self._is_closed:
            with trio.CancelScope() as self._scope:
                async for line in self._lines:
                    self._hear([line])

    def look(self) -> None:
        while self._lines.is_due and not self._is_closed:
            self._hear([self._lines.take()])

    def close(self) -> None:
        self._is_closed = True
        self._scope.cancel()
