"""One process of a simulated daemon: when it ends follows from the clock and its signals."""

import signal
from collections.abc import Sequence
from itertools import count
from math import inf
from typing import Final, Protocol

import trio
from attrs import define

REFUSES: Final = -1
"""Instead of an HTTP status: nothing listens."""

HANGS: Final = -2
"""Instead of an HTTP status: the connection is taken and never answered."""

_SUCCESS: Final = range(200, 300)

# What a command ends with that finds no daemon that is up.
_FAILED: Final = 1

_births: Final = count(1)


class Simulated(Protocol):
    """What a simulated daemon does; ``SimulatedDaemon`` explains each."""

    ready_after: float
    dies_after: float | None
    exit_status: int
    health: Sequence[tuple[float, int]] | None
    answer_after: float
    spawn_after: float
    stops_after: float
    ignores_sigterm: bool
    unkillable: bool
    lingers: float
    is_foreign: bool
    unseen: bool
    unseen_after: float | None
    seen_again_after: float | None
    writes: bytes
    says: Sequence[tuple[float, str]]
    path: str | None
    file_after: float | None
    probes: Sequence[tuple[float, int]] | None

    @property
    def incarnations(self) -> Sequence["Incarnation"]:
        """Every process that was ever started."""
        ...

    def start(self, port: int | None = None, *, gated: bool = False) -> "Incarnation":
        """Start one more."""
        ...


@define(init=False, eq=False)
class Incarnation:
    """A simulated process.

    Attributes:
        made: When it was spawned; ``born`` is when its gate was opened.
        start_time: Which of all simulated processes it is; no two have the same.
        at_gate: True while nothing of its program runs.
    """

    daemon: Simulated
    pid: int
    start_time: int
    port: int
    at_gate: bool
    made: float
    born: float
    ends: float
    goes: float
    status: int | None
    changed: trio.Event
    last_now: float

    def __init__(self, daemon: Simulated, pid: int, port: int, *, gated: bool = False) -> None:
        self.daemon = daemon
        self.pid = pid
        self.start_time = next(_births)
        self.port = port
        self.at_gate = gated
        self.changed = trio.Event()
        self.made = self.born = self.last_now = trio.current_time()
        self.ends = self.goes = inf
        self.status = daemon.exit_status
        if not gated:
            self._begin()

    def _begin(self) -> None:
        self.ends = inf if self.daemon.dies_after is None else self.born + self.daemon.dies_after
        self.goes = self.ends + self.daemon.lingers

    def open_gate(self) -> None:
        """Begin to be the daemon; nothing happens if it has begun, or has ended."""
        if self.at_gate and not self.ended:
            self.at_gate = False
            self.born = self.now()
            self._begin()
            self._tell()

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        return self.now() >= self.ends

    @property
    def gone(self) -> bool:
        """Whether its whole tree has."""
        return self.now() >= self.goes

    def now(self) -> float:
        """Trio's clock, or where the run left it."""
        # After the run there is no clock any more; what counts then is how the run left it.
        try:
            self.last_now = trio.current_time()
        except RuntimeError:
            return self.last_now
        return self.last_now

    @property
    def lost_at(self) -> float:
        """When it is lost from sight."""
        after = self.daemon.unseen_after
        return inf if after is None else self.made + after

    @property
    def can_be_seen(self) -> bool:
        """Whether who looks now sees it."""
        again = self.daemon.seen_again_after
        now = self.now()
        return now < self.lost_at or (again is not None and now >= self.made + again)

    def answer(self) -> int:
        """What it answers now: an HTTP status, REFUSES or HANGS."""
        return self._planned(self._health, REFUSES)

    def probe(self) -> int:
        """What a command that looks at it ends with now: an exit status, or HANGS."""
        if self.daemon.probes is not None:
            return self._planned(self.daemon.probes, _FAILED)
        status = self.answer()
        return HANGS if status == HANGS else 0 if status in _SUCCESS else _FAILED

    @property
    def _health(self) -> Sequence[tuple[float, int]]:
        plan = self.daemon.health
        return [(0.0, REFUSES), (self.daemon.ready_after, 200)] if plan is None else plan

    def _planned(self, plan: Sequence[tuple[float, int]], otherwise: int) -> int:
        if self.at_gate:
            return otherwise
        age = self.now() - self.born
        return next((status for since, status in reversed(plan) if age >= since), otherwise)

    @property
    def has_file(self) -> bool:
        """Whether it has written its file by now; one that was written stays."""
        after = self.daemon.file_after
        if after is None:
            after = next((since for since, status in self._health if status in _SUCCESS), inf)
        moment = inf if self.at_gate else self.born + after
        return moment <= min(self.now(), self.ends)

    def moment_of(self, number: int) -> float:
        """When it writes a line, by the line's number; never, if it has none of that number."""
        if self.at_gate or number >= len(self.daemon.says):
            return inf
        moment = self.born + self.daemon.says[number][0]
        return moment if moment <= self.ends else inf

    @property
    def lines_written(self) -> int:
        """How many lines it has written so far."""
        now = self.now()
        return sum(self.moment_of(number) <= now for number in range(len(self.daemon.says)))

    @property
    def listens(self) -> bool:
        """Whether it takes connections now."""
        return not self.ended and self.answer() != REFUSES

    def listens_at(self, port: int) -> bool:
        """Whether it has this port open now."""
        return self.port == port and self.listens

    def signal(self, signum: int) -> None:
        """Get a signal."""
        now = self.now()
        if self.daemon.unkillable and not self.at_gate:
            return
        if signum == signal.SIGKILL or (self.at_gate and signum != signal.SIGCONT):
            # At its gate it is a shell, and ignores nothing.
            self._end(now, -signum)
            self.goes = min(self.goes, now)
        elif signum != signal.SIGCONT and not self.daemon.ignores_sigterm:
            self._end(now + self.daemon.stops_after, -signum)
            self.goes = min(self.goes, self.ends + self.daemon.lingers)
        self._tell()

    def _tell(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    def _end(self, when: float, status: int) -> None:
        if when < self.ends:
            self.ends, self.status = when, status
