"""A daemon that only exists in simulated time: when it is up, what it answers, how it ends."""

import signal
from collections.abc import Sequence
from math import inf
from typing import Final

import trio
from attrs import define, field

from trio_lifecycle import (
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    StopLadder,
)
from trio_lifecycle.abc import Observer, Preflight, ReadyMode

REFUSES: Final = -1
"""Instead of an HTTP status: nothing listens."""

HANGS: Final = -2
"""Instead of an HTTP status: the connection is taken and never answered."""

_FIRST_PID: Final = 1_000


@define(kw_only=True)
class SimulatedDaemon:
    """What a simulated daemon does, and what became of every process of it.

    All times are seconds of Trio's clock since the spawn; run it under ``run_simulated``.

    Attributes:
        ready_after: When it begins to answer 200; before that it refuses connections.
        dies_after: When it ends by itself; None is never.
        exit_status: With which status it then ends.
        health: What it answers over time instead: pairs (from when on, HTTP status), such as
            ``[(0, REFUSES), (2, 503), (3, 200)]``; the status may be ``REFUSES`` or ``HANGS``.
        answer_after: How long each answer takes.
        spawn_after: How long the spawn itself takes, as on another machine.
        stops_after: How long it takes to end once it got a signal that it obeys.
        ignores_sigterm: Only SIGKILL ends it.
        lingers: How long the rest of its tree outlives the main process, unless it gets SIGKILL.
        is_foreign: Its address is answered by another program.
        writes: What it writes when it is spawned.
        port: Its port where it uses no FREE_PORT.
    """

    ready_after: float = 0.0
    dies_after: float | None = None
    exit_status: int = 1
    health: Sequence[tuple[float, int]] | None = None
    answer_after: float = 0.0
    spawn_after: float = 0.0
    stops_after: float = 0.0
    ignores_sigterm: bool = False
    lingers: float = 0.0
    is_foreign: bool = False
    writes: bytes = b""
    port: int = 8080
    incarnations: list["Incarnation"] = field(factory=list, init=False)

    @property
    def spawned(self) -> int:
        """How many processes of it were ever started."""
        return len(self.incarnations)

    @property
    def alive(self) -> int:
        """How many of them still have a process in their tree."""
        return sum(not incarnation.gone for incarnation in self.incarnations)

    def lifecycle(
        self,
        *,
        ready_timeout: float = 30.0,
        interval: float | None = None,
        probe_timeout: float = 1.0,
        stop_ladder: StopLadder | None = None,
        detach: bool = False,
        free_port: bool = True,
        ready_mode: ReadyMode | None = None,
        preflight: Sequence[Preflight] = (),
        observer: Observer | None = None,
    ) -> DaemonLifecycle:
        """Give a real lifecycle whose daemon is this one.

        Args:
            ready_timeout: Seconds that it has to become ready.
            interval: Of its health check. Defaults to 0.1, or the ready timeout if that is shorter.
            probe_timeout: Of its health check.
            stop_ladder: Defaults to SIGTERM, 10 s.
            detach: Whether a bare ``ensure_running()`` is permitted.
            free_port: Whether it is given a port at its spawn; else ``port`` is asked before it.
            ready_mode: Another ready mode than the health check.
            preflight: Checks before it is spawned.
            observer: Is told of every event.
        """
        from trio_lifecycle.testing._spawner import SimulatedSpawner

        port = FREE_PORT if free_port else str(self.port)
        longest = min(0.1, ready_timeout) if interval is None else interval
        health = HealthCheck(f"http://127.0.0.1:{port}/", longest, probe_timeout=probe_timeout)
        config = LifecycleConfig(
            "simulated",
            args=["--port", port],
            ready_mode=health if ready_mode is None else ready_mode,
            ready_timeout=ready_timeout,
            stop_ladder=stop_ladder or StopLadder((signal.SIGTERM, 10.0)),
            detach=detach,
        )
        return DaemonLifecycle(
            config, spawner=SimulatedSpawner(self), preflight=preflight, observer=observer
        )

    def start(self, port: int | None = None) -> "Incarnation":
        """Start a process of it now, as another program would; it is found, not spawned."""
        pid = _FIRST_PID + len(self.incarnations)
        incarnation = Incarnation(self, pid, self.port if port is None else port)
        self.incarnations.append(incarnation)
        return incarnation


@define(init=False, eq=False)
class Incarnation:
    """One process of a simulated daemon: when it ends follows from the clock and its signals."""

    daemon: SimulatedDaemon
    pid: int
    port: int
    born: float
    ends: float
    goes: float
    status: int | None
    changed: trio.Event
    last_now: float

    def __init__(self, daemon: SimulatedDaemon, pid: int, port: int) -> None:
        self.daemon = daemon
        self.pid = pid
        self.port = port
        self.born = trio.current_time()
        self.ends = inf if daemon.dies_after is None else self.born + daemon.dies_after
        self.goes = self.ends + daemon.lingers
        self.status = daemon.exit_status
        self.changed = trio.Event()
        self.last_now = self.born

    @property
    def ended(self) -> bool:
        """Whether the main process has ended."""
        return self._now() >= self.ends

    @property
    def gone(self) -> bool:
        """Whether its whole tree has."""
        return self._now() >= self.goes

    def _now(self) -> float:
        # After the run there is no clock any more; what counts then is how the run left it.
        try:
            self.last_now = trio.current_time()
        except RuntimeError:
            return self.last_now
        return self.last_now

    def answer(self) -> int:
        """What it answers now: an HTTP status, REFUSES or HANGS."""
        age = self._now() - self.born
        plan = self.daemon.health
        if plan is None:
            plan = [(0.0, REFUSES), (self.daemon.ready_after, 200)]
        return next((status for since, status in reversed(plan) if age >= since), REFUSES)

    def signal(self, signum: int) -> None:
        """Get a signal."""
        now = self._now()
        if signum == signal.SIGKILL:
            self._end(now, -signal.SIGKILL)
            self.goes = min(self.goes, now)
        elif signum != signal.SIGCONT and not self.daemon.ignores_sigterm:
            self._end(now + self.daemon.stops_after, -signum)
            self.goes = min(self.goes, self.ends + self.daemon.lingers)
        self.changed.set()
        self.changed = trio.Event()

    def _end(self, when: float, status: int) -> None:
        if when < self.ends:
            self.ends, self.status = when, status


def check_simulated(value: object) -> SimulatedDaemon:
    """Return the value if it is a simulated daemon."""
    if not isinstance(value, SimulatedDaemon):
        raise ConfigError("daemon", f"must be a SimulatedDaemon, not {value!r}")
    return value
