"""How late the news of readiness is, and what waiting for it costs."""

import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Final

import trio

from tests.benchmarks import _waits
from tests.benchmarks._table import Row, Table, middle, percentile_90
from trio_lifecycle import (
    FREE_PORT,
    Exec,
    FileAppears,
    LogLine,
    Notify,
    TCPPort,
    UnixSocket,
)

# Start-up times in milliseconds, and how often each is measured.
ROUNDS: Final = {0: 25, 20: 25, 200: 15, 1000: 7}

WAITS: Final[dict[str, Callable[[int], Awaitable[float]]]] = {
    "HealthCheck": _waits.by_health_check,
    "Callback": _waits.by_callback,
    "poll of 100 ms": _waits.by_poll,
    "mirakuru": _waits.by_mirakuru,
}

VAIN_WAITS: Final[dict[str, Callable[[float], Awaitable[None]]]] = {
    "HealthCheck": _waits.vainly_by_health_check,
    "Callback": _waits.vainly_by_callback,
    **{
        type(mode).__name__: partial(_waits.vainly_by_mode, mode)
        for mode in (
            TCPPort(FREE_PORT),
            UnixSocket("nothing.sock"),
            FileAppears("nothing"),
            Exec(["false"]),
            LogLine("nothing"),
            Notify(),
        )
    },
    "poll of 100 ms": _waits.vainly_by_poll,
    "mirakuru": _waits.vainly_by_mirakuru,
}
PEERS: Final = {"poll of 100 ms", "mirakuru"}
VAIN_WAIT_S: Final = 10.0
VAIN_WAIT_GOAL_PERCENT: Final = 2.0


def goal_ms(wait: str, start_up_ms: int) -> float | None:
    """Say how late the news may be; only this package has goals."""
    if wait == "Callback":
        return 1.2
    if wait == "HealthCheck":
        return {0: 1.5, 20: 1.5, 200: 3.0}.get(start_up_ms, start_up_ms / 100)
    return None


def tables() -> Iterator[Table]:
    """Measure."""
    yield trio.run(_lateness)
    yield trio.run(_cost)


async def _lateness() -> Table:
    for wait in WAITS.values():  # imports, and whatever else is done once
        await wait(0)
    rows = [row for start_up_ms in ROUNDS for row in await _rows(start_up_ms)]
    return Table(
        "How late is the news that a daemon is ready? (milliseconds)",
        ("start-up", "wait", "rounds", "median", "p90", "ratio to HealthCheck"),
        rows,
        (
            "The daemon is a Python program; its interpreter's start comes on top of the start-up.",
            "It notes the moment itself, after listen() or before it connects to call back.",
        ),
    )


async def _rows(start_up_ms: int) -> list[Row]:
    late: dict[str, list[float]] = {name: [] for name in WAITS}
    for _ in range(ROUNDS[start_up_ms]):
        for name, wait in WAITS.items():
            late[name].append(await wait(start_up_ms))
    ours = middle(late["HealthCheck"])
    return [_row(start_up_ms, name, values, ours) for name, values in late.items()]


def _row(start_up_ms: int, name: str, values: list[float], ours: float) -> Row:
    value = middle(values)
    figures = (f"{value:.2f}", f"{percentile_90(values):.2f}", f"{value / ours:.1f}")
    cells = (f"{start_up_ms} ms", name, str(len(values)), *figures)
    return Row(cells, value, goal_ms(name, start_up_ms))


async def _cost() -> Table:
    rows = []
    for name, wait in VAIN_WAITS.items():
        share = await _share_percent(wait)
        goal = None if name in PEERS else VAIN_WAIT_GOAL_PERCENT
        rows.append(Row((name, f"{share:.2f}"), share, goal))
    return Table(
        f"What does it cost to wait {VAIN_WAIT_S:g} s while nothing listens? (% of one core)",
        ("wait", "processor time"),
        rows,
        ("With the spawn before and the stop after it, but for the poll, which has neither.",),
    )


async def _share_percent(wait: Callable[[float], Awaitable[None]]) -> float:
    began = time.process_time()
    await wait(VAIN_WAIT_S)
    return (time.process_time() - began) / VAIN_WAIT_S * 100
