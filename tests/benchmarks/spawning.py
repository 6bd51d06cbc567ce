"""Spawn to ready and stop, of one daemon and of a hundred at once, against bare subprocess."""

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Final

import trio
from attrs import frozen

from tests.benchmarks._bare import BareDaemons, wait_for_answers
from tests.benchmarks._command import interpreter, serving
from tests.benchmarks._table import Row, Table, middle
from tests.benchmarks._waits import health_check
from trio_lifecycle import FREE_PORT, DaemonLifecycle, LifecycleConfig, Manual
from trio_lifecycle._ports import reserve_port

# How many daemons at once, and how often that is measured.
ROUNDS: Final = {1: 15, 100: 7}
GOAL_RATIO: Final = 1.5
GOAL_COUNT: Final = 100

# Ready as soon as it is spawned, and light: what is left is the work of its starter.
SLEEP: Final = ["sleep", "3600"]


@frozen
class Times:
    """How long one round took.

    Attributes:
        ready_s: Until all were ready.
        stop_s: From there until all were gone.
    """

    ready_s: float
    stop_s: float

    @property
    def total_s(self) -> float:
        """Both."""
        return self.ready_s + self.stop_s


Way = Callable[[int], Awaitable[Times]]


def tables() -> Iterator[Table]:
    """Measure."""
    yield trio.run(_measure)


async def _measure() -> Table:
    rows: list[Row] = []
    for mode, ours, bare in (
        ("Manual", _sleepers, _bare_sleepers),
        ("HealthCheck", _servers, _bare_servers),
    ):
        for count in ROUNDS:
            rows += await _rows(mode, count, ours, bare)
    return Table(
        "Spawn to ready, and stop (milliseconds, medians)",
        (
            "daemons",
            "ready mode",
            "until ready",
            "stop",
            "total",
            "bare ready",
            "stop",
            "total",
            "ratio",
        ),
        rows,
        (
            "Manual: 'sleep', ready at once; bare: Popen, terminate, wait.",
            "HealthCheck: a Python program that serves HTTP; bare: Popen, round robin GETs, ...",
        ),
    )


async def _rows(mode: str, count: int, ours: Way, bare: Way) -> list[Row]:
    await ours(1)
    times = [(await ours(count), await bare(count)) for _ in range(ROUNDS[count])]
    sides = [[pair[side] for pair in times] for side in (0, 1)]
    ratio = middle([t.total_s for t in sides[0]]) / middle([t.total_s for t in sides[1]])
    cells = (str(count), mode, *_cells(sides[0]), *_cells(sides[1]), f"{ratio:.2f}")
    return [Row(cells, ratio, GOAL_RATIO if count == GOAL_COUNT else None)]


def _cells(times: list[Times]) -> tuple[str, ...]:
    parts = ([t.ready_s for t in times], [t.stop_s for t in times], [t.total_s for t in times])
    return tuple(f"{middle(part) * 1000:.1f}" for part in parts)


# --- with this package ----------------------------------------------------------------------------


async def _sleepers(count: int) -> Times:
    return await _by_lifecycle(
        LifecycleConfig(SLEEP[0], args=SLEEP[1:], ready_mode=Manual()), count
    )


async def _servers(count: int) -> Times:
    args = serving(FREE_PORT)
    mode = health_check()
    return await _by_lifecycle(
        LifecycleConfig(interpreter(), args=args, ready_mode=mode, name="daemon"), count
    )


async def _by_lifecycle(config: LifecycleConfig, count: int) -> Times:
    lifecycle = DaemonLifecycle(config)
    leave = trio.Event()
    waiting = count
    ready_at = 0.0

    async def use() -> None:
        nonlocal waiting, ready_at
        async with lifecycle.running():
            waiting -= 1
            if not waiting:
                ready_at = time.perf_counter()
                leave.set()
            await leave.wait()

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(use)
    return Times(ready_at - began, time.perf_counter() - ready_at)


# --- without --------------------------------------------------------------------------------------


async def _bare_sleepers(count: int) -> Times:
    await trio.lowlevel.checkpoint()
    return _by_subprocess([SLEEP] * count, [])


async def _bare_servers(count: int) -> Times:
    await trio.lowlevel.checkpoint()
    with ExitStack() as held:
        ports = [held.enter_context(reserve_port()).number for _ in range(count)]
        return _by_subprocess([[interpreter(), *serving(port)] for port in ports], ports)


def _by_subprocess(commands: list[list[str]], ports: list[int]) -> Times:
    daemons = BareDaemons()
    began = time.perf_counter()
    try:
        daemons.start(commands)
        wait_for_answers(ports)
        ready_at = time.perf_counter()
    finally:
        daemons.stop()
    return Times(ready_at - began, time.perf_counter() - ready_at)
