"""What a passed socket gains, and what it costs."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio

from tests.benchmarks._command import accepting, interpreter, note_file, read_moment
from tests.benchmarks._table import Row, Table, middle, percentile_90
from tests.benchmarks._waits import health_check
from tests.passing import Early
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    LifecycleConfig,
    ListenSocket,
    Manual,
    open_daemon_nursery,
)
from trio_lifecycle.abc import ReadyMode

ROUNDS: Final = 41
GOAL_MS: Final = 0.7


def tables() -> Iterator[Table]:
    """Measure."""
    yield trio.run(_lateness)
    yield trio.run(_cost)


async def _lateness() -> Table:
    rows = []
    for start_up_ms in (0, 20):
        answered = [await _answered_ms(start_up_ms) for _ in range(ROUNDS)]
        handed_out = [await _handed_out_ms(start_up_ms) for _ in range(ROUNDS)]
        rows.append(_row(start_up_ms, "a client has its answer", answered, GOAL_MS))
        rows.append(_row(start_up_ms, "HealthCheck has given the handle", handed_out))
    return Table(
        "How soon is a request answered that waits in a passed socket? (milliseconds)",
        ("start-up", "until", "median", "p90"),
        rows,
        ("From the moment before the daemon's first accept().",),
    )


def _row(start_up_ms: int, what: str, late: list[float], goal: float | None = None) -> Row:
    figures = (f"{middle(late):.2f}", f"{percentile_90(late):.2f}")
    return Row((f"{start_up_ms} ms", what, *figures), middle(late), goal)


async def _answered_ms(start_up_ms: int) -> float:
    with note_file() as note:
        async with _daemon(Early(), start_up_ms, note).running() as daemon:
            return _since(note, daemon.report["at_ns"])


async def _handed_out_ms(start_up_ms: int) -> float:
    with note_file() as note:
        async with _daemon(health_check(), start_up_ms, note).running():
            return _since(note, time.monotonic_ns())


def _since(note: Path, moment_ns: int) -> float:
    return (moment_ns - read_moment(note)) / 1e6


def _daemon(mode: ReadyMode, start_up_ms: int, note: Path) -> DaemonLifecycle:
    config = LifecycleConfig(
        interpreter(),
        args=accepting(start_up_ms, note),
        name="daemon",
        ready_mode=mode,
        listen=[ListenSocket(port=FREE_PORT)],
    )
    return DaemonLifecycle(config)


async def _cost() -> Table:
    without, with_socket = [], []
    for _ in range(ROUNDS):
        without.append(await _spawn_ms([]))
        with_socket.append(await _spawn_ms([ListenSocket(port=FREE_PORT)]))
    rows = [
        Row((name, f"{middle(times):.2f}", f"{middle(times) - middle(without):+.2f}"))
        for name, times in (("without", without), ("with a socket", with_socket))
    ]
    return Table(
        "What does a passed socket cost at the spawn? (milliseconds, medians)",
        ("spawn of sleep, ready at once", "until the handle", "more"),
        rows,
        ("The socket is bound, and a shell tells the daemon its own process number.",),
    )


async def _spawn_ms(sockets: list[ListenSocket]) -> float:
    config = LifecycleConfig("sleep", args=["3600"], ready_mode=Manual(), listen=sockets)
    async with open_daemon_nursery() as daemons:
        began = time.perf_counter()
        await daemons.ensure_running(DaemonLifecycle(config))
        return (time.perf_counter() - began) * 1000
