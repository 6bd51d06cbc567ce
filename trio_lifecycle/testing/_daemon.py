"""A daemon that only exists in simulated time: when it is up, what it answers, how it ends."""

import signal
from collections.abc import Sequence
from typing import Final

import trio
from attrs import define, field

from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    MemoryRegistry,
    StopLadder,
)
from trio_lifecycle._config import OnChange
from trio_lifecycle.abc import Observer, Preflight, ReadyMode, Registry
from trio_lifecycle.testing._incarnation import Incarnation
from trio_lifecycle.testing._spawner import SimulatedSpawner

_FIRST_PID: Final = 1_000

_last_pid: Final = trio.lowlevel.RunVar("last_pid", default=_FIRST_PID - 1)


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
        unkillable: Not even SIGKILL ends it, as one that waits for a dead disk.
        lingers: How long the rest of its tree outlives the main process, unless it gets SIGKILL.
        is_foreign: Its address is answered by another program.
        unseen: Whether one that was recorded lives can't be told, as from another machine.
        unseen_after: When it is lost from sight, as when the connection to its machine is. Defaults
            to None: never.
        seen_again_after: When whoever looks sees it again. Defaults to None: never.
        writes: What it writes when it is spawned.
        says: The lines that it writes later: pairs (from when on, the line), the earliest first.
        path: The path of its socket, and of the file that it writes. Defaults to None: any, for
            there is no other daemon.
        file_after: When it writes its file, which stays when it ends. Defaults to None: with the
            first success of its health.
        probes: What a command that looks at it ends with over time: pairs (from when on, exit
            status); the status may be ``HANGS``. Defaults to None: 0 while its health is a success,
            ``HANGS`` while that hangs, else 1.
        port: Its port where it uses no FREE_PORT.
        registry: Where a detached one is remembered; each has its own unless one is given.
    """

    ready_after: float = 0.0
    dies_after: float | None = None
    exit_status: int = 1
    health: Sequence[tuple[float, int]] | None = None
    answer_after: float = 0.0
    spawn_after: float = 0.0
    stops_after: float = 0.0
    ignores_sigterm: bool = False
    unkillable: bool = False
    lingers: float = 0.0
    is_foreign: bool = False
    unseen: bool = False
    unseen_after: float | None = None
    seen_again_after: float | None = None
    writes: bytes = b""
    says: Sequence[tuple[float, str]] = ()
    path: str | None = None
    file_after: float | None = None
    probes: Sequence[tuple[float, int]] | None = None
    port: int = 8080
    registry: Registry = field(factory=MemoryRegistry)
    incarnations: list[Incarnation] = field(factory=list, init=False)

    @property
    def spawned(self) -> int:
        """How many processes of it were ever started."""
        return len(self.incarnations)

    @property
    def opened(self) -> int:
        """How many of them ever ran the program, because they had no gate or passed it."""
        return sum(not incarnation.at_gate for incarnation in self.incarnations)

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
        recorded: bool | None = None,
        name: str = "simulated",
        on_change: OnChange = "keep",
        claim_timeout: float | None = None,
        stall_timeout: float | None = None,
        max_ready_timeout: float | None = None,
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
            recorded: Whether it is remembered in ``registry``. Defaults to ``detach``.
            name: What it is called.
            on_change: What is done when it runs from another configuration.
            claim_timeout: Seconds to wait for another program's start.
            stall_timeout: Seconds that it may be silent until it is ready.
            max_ready_timeout: Seconds that it has if it asks for more time.
        """
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
            name=name,
            on_change=on_change,
            claim_timeout=claim_timeout,
            stall_timeout=stall_timeout,
            max_ready_timeout=max_ready_timeout,
        )
        is_recorded = detach if recorded is None else recorded
        return DaemonLifecycle(
            config,
            spawner=SimulatedSpawner(self),
            preflight=preflight,
            observer=observer,
            registry=self.registry if is_recorded else None,
        )

    def start(self, port: int | None = None, *, gated: bool = False) -> Incarnation:
        """Start a process of it now, as another program would; it is found, not spawned.

        Args:
            port: Where it listens; by default at its own port.
            gated: Whether nothing of the program runs until the incarnation's ``open_gate()``.
        """
        pid = _next_pid(max((it.pid for it in self.incarnations), default=0))
        port = self.port if port is None else port
        incarnation = Incarnation(self, pid, port, gated=gated)
        self.incarnations.append(incarnation)
        return incarnation


def _next_pid(after: int) -> int:
    """Count for all daemons of one run, so that no two living ones have the same number."""
    pid = max(_last_pid.get(), after) + 1
    _last_pid.set(pid)
    return pid
