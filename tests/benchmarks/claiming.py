"""What it costs that there is one start: claim, record and gate; and many callers of one start."""

import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import trio

from tests.benchmarks._command import interpreter, serving
from tests.benchmarks._table import Row, Table, middle, percentile_90
from trio_lifecycle import (
    FREE_PORT,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    Output,
    SQLiteRegistry,
)
from trio_lifecycle.abc import SpawnRequest

ROUNDS: Final = 100
WARM_UPS: Final = 5
GOAL_COST_MS: Final = 5.0

CALLERS: Final = 200
SHARED_ROUNDS: Final = 15
GOAL_SHARED_RATIO: Final = 1.5

# Seconds for the end of a killed daemon: more than a loaded machine takes.
KILL_S: Final = 20.0


def tables() -> Iterator[Table]:
    """Measure."""
    with TemporaryDirectory(prefix="benchmark-") as place:
        yield trio.run(_measure_cost, Path(place))
        yield trio.run(_measure_callers, Path(place))


# --- claim, record, gate --------------------------------------------------------------------------


async def _measure_cost(place: Path) -> Table:
    registry = SQLiteRegistry(place / "registry.sqlite")
    config = LifecycleConfig(
        "sleep",
        args=["3600"],
        ready_mode=Manual(),
        detach=True,
        output=Output(to=place / "log"),
    )
    lifecycle = DaemonLifecycle(config, registry=registry)
    spawner = LocalSpawner()
    program = await spawner.find_binary("sleep", ())

    async def recorded() -> float:
        began = time.perf_counter()
        handle = await lifecycle.ensure_running()
        took_s = time.perf_counter() - began
        with trio.fail_after(KILL_S, shield=True):
            await handle.kill()
        return took_s

    async def bare() -> float:
        request = SpawnRequest(
            name="sleep",
            instance_id="0" * 32,
            program=program,
            args=("3600",),
            env={},
            working_dir=None,
            output=config.output,
            detached=True,
        )
        async with trio.open_nursery() as nursery:
            began = time.perf_counter()
            process = await spawner.spawn(request, nursery)
            took_s = time.perf_counter() - began
            await process.signal_tree(9)
            await process.wait_gone()
            process.close()
        return took_s

    seconds = await _alternately({"recorded": recorded, "bare": bare}, WARM_UPS, ROUNDS)
    registry.close()
    cost_ms = (middle(seconds["recorded"]) - middle(seconds["bare"])) * 1000
    return Table(
        "Starting a detached daemon (milliseconds)",
        ("what", "rounds", "median", "p90"),
        [
            _row("spawn alone", seconds["bare"]),
            _row("ensure_running()", seconds["recorded"]),
            Row(("claim, record, gate", "", f"{cost_ms:.2f}", ""), cost_ms, GOAL_COST_MS),
        ],
        ("'sleep', ready at once; a database in a temporary directory.",),
    )


def _row(name: str, values: list[float]) -> Row:
    times = (f"{middle(values) * 1000:.2f}", f"{percentile_90(values) * 1000:.2f}")
    return Row((name, str(len(values)), *times))


# --- many callers ---------------------------------------------------------------------------------


async def _measure_callers(place: Path) -> Table:
    registry = SQLiteRegistry(place / "callers.sqlite")
    config = LifecycleConfig(
        interpreter(),
        args=serving(FREE_PORT),
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
        detach=True,
        name="shared",
        output=Output(to=place / "log"),
    )

    async def start(callers: int) -> float:
        lifecycle = DaemonLifecycle(config, registry=registry)
        began = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(callers):
                nursery.start_soon(lifecycle.ensure_running)
        took_s = time.perf_counter() - began
        handle = await lifecycle.ensure_running()
        with trio.fail_after(KILL_S, shield=True):
            await handle.kill()
        return took_s

    async def one() -> float:
        return await start(1)

    async def many() -> float:
        return await start(CALLERS)

    seconds = await _alternately({"one": one, "many": many}, 2, SHARED_ROUNDS)
    registry.close()
    ratio = middle(seconds["many"]) / middle(seconds["one"])
    return Table(
        "One start for all who ask at once (milliseconds)",
        ("callers", "rounds", "median", "p90", "ratio"),
        [
            Row((*_row("1", seconds["one"]).cells, "1.00")),
            Row(
                (*_row(str(CALLERS), seconds["many"]).cells, f"{ratio:.2f}"),
                ratio,
                GOAL_SHARED_RATIO,
            ),
        ],
        ("A Python program that serves HTTP, until the last caller has its handle.",),
    )


async def _alternately(
    ways: dict[str, Callable[[], Awaitable[float]]], warm_ups: int, rounds: int
) -> dict[str, list[float]]:
    """Take turns, so that a busy moment hits all alike."""
    for _ in range(warm_ups):
        for way in ways.values():
            await way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(await way())
    return seconds
