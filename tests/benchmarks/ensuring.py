"""``ensure_running`` on a daemon that runs, against one GET by the same client."""

import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import trio

from tests.benchmarks._command import interpreter, serving
from tests.benchmarks._table import Row, Table, middle, percentile_90
from trio_lifecycle import DaemonLifecycle, LocalSpawner
from trio_lifecycle._ports import reserve_port
from trio_lifecycle.abc import Question

ROUNDS: Final = 500
GOAL_RATIO: Final = 1.75

# Imports, the first look at the daemon's process: done once.
WARM_UPS: Final = 20

# Seconds for the end of a killed daemon: more than a loaded machine takes.
KILL_S: Final = 20.0


def tables() -> Iterator[Table]:
    """Measure."""
    yield trio.run(_measure)


async def _measure() -> Table:
    with reserve_port() as port:
        starter = _lifecycle(port.number)
        handle = await starter.ensure_running()
        try:
            seconds = await _seconds(port.number, starter, _lifecycle(port.number))
        finally:
            # The daemon has no other owner.
            with trio.fail_after(KILL_S, shield=True):
                await handle.kill()
    base = middle(seconds["GET"])
    return Table(
        "ensure_running() on a running daemon (milliseconds)",
        ("what", "rounds", "median", "p90", "ratio"),
        [_row(name, values, base) for name, values in seconds.items()],
        ("GET: the package's own client, a fresh connection each, as ensure_running() sends it.",),
    )


def _lifecycle(port: int) -> DaemonLifecycle:
    url = f"http://127.0.0.1:{port}/"
    return DaemonLifecycle.with_health_check(interpreter(), url, serving(port))


async def _seconds(
    port: int, starter: DaemonLifecycle, other: DaemonLifecycle
) -> dict[str, list[float]]:
    client = LocalSpawner().open_prober()
    question = Question(f"http://127.0.0.1:{port}/")

    async def get() -> None:
        answer = await client.ask(question)
        assert 200 == answer.status

    async def remembered() -> None:
        assert "spawned" == (await starter.ensure_running()).origin

    async def adopted() -> None:
        assert "adopted" == (await other.ensure_running()).origin

    ways: dict[str, Callable[[], Awaitable[None]]] = {
        "GET": get,
        "started by this lifecycle": remembered,
        "adopted by another lifecycle": adopted,
    }
    for _ in range(WARM_UPS):
        for way in ways.values():
            await way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.perf_counter()
            await way()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def _row(name: str, values: list[float], base: float) -> Row:
    ratio = middle(values) / base
    times = (f"{middle(values) * 1000:.3f}", f"{percentile_90(values) * 1000:.3f}")
    cells = (name, str(len(values)), *times, f"{ratio:.2f}")
    return Row(cells, ratio, None if name == "GET" else GOAL_RATIO)
