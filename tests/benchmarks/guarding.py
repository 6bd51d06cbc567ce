"""What the reaper costs, and how fast it is: spawning, memory, the sweep, the stop of a hundred."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import trio

from tests.benchmarks._table import Row, Table, middle
from trio_lifecycle import (
    DaemonLifecycle,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    Output,
    StopLadder,
)
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._reapers import reaper

SPAWNS: Final = 300
SWEEPS: Final = 15
STOPS: Final = 9

GOAL_SPAWN_RATIO: Final = 1.25
GOAL_GROWTH: Final = 1.25
GOAL_SWEEP_MS: Final = 100.0
GOAL_PROPORTIONAL_MB: Final = 8.0
GOAL_PRIVATE_MB: Final = 3.0

# 15 plain ones, and 5 whose process has left for a session of its own.
OWNER_OF_TWENTY: Final = """
import sys, trio
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, Manual, StopLadder

async def main():
    async with trio.open_nursery() as nursery:
        for number in range(20):
            script = "exec sleep 3600" if number < 15 else "setsid sleep 3600 & wait"
            config = LifecycleConfig(
                "sh", args=["-c", script], ready_mode=Manual(), stop_ladder=StopLadder())
            await nursery.start(DaemonLifecycle(config).run)
        print("up", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


# The 15, and 5 shells, each with its child.
PROCESSES_OF_TWENTY: Final = 25


def tables() -> Iterator[Table]:
    """Measure."""
    small = trio.run(_measure_spawns)
    ballast = bytearray(os.urandom(1 << 20) * 1024)
    large = trio.run(_measure_spawns)
    del ballast
    yield _spawn_table(small, large)
    yield trio.run(_measure_memory)
    yield _measure_sweep()
    yield trio.run(_measure_stop)


# --- spawning -------------------------------------------------------------------------------------

Medians = dict[str, float]


async def _measure_spawns() -> Medians:
    """Give the median of each way, in milliseconds; the ways take turns."""
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "reaper": _by_reaper,
        "open_process": _by_open_process,
        "posix_spawn": _by_posix_spawn,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(SPAWNS):
        for name, way in ways.items():
            times[name].append(await way())
    return {name: middle(some) * 1000 for name, some in times.items()}


async def _by_reaper() -> float:
    async with trio.open_nursery() as nursery:
        request = SpawnRequest(
            name="true",
            instance_id=os.urandom(16).hex(),
            program="/bin/true",
            args=(),
            env={},
            working_dir=None,
            output=Output(),
            detached=False,
        )
        began = time.perf_counter()
        process = await LocalSpawner().spawn(request, nursery)
        took = time.perf_counter() - began
        await process.wait_gone()
        process.close()
    return took


async def _by_open_process() -> float:
    began = time.perf_counter()
    process = await trio.lowlevel.open_process(
        ["/bin/true"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    took = time.perf_counter() - began
    await process.wait()
    assert process.stdout is not None
    await process.stdout.aclose()
    return took


async def _by_posix_spawn() -> float:
    await trio.lowlevel.checkpoint()
    return _posix_spawn()


def _posix_spawn() -> float:
    began = time.perf_counter()
    pid = os.posix_spawn("/bin/true", ["/bin/true"], os.environ, setsid=True)
    took = time.perf_counter() - began
    os.waitpid(pid, 0)
    return took


def _spawn_table(small: Medians, large: Medians) -> Table:
    rows = []
    for name in small:
        ratio = small[name] / small["open_process"]
        growth = large[name] / small[name]
        cells = (name, f"{small[name]:.2f}", f"{large[name]:.2f}", f"{growth:.2f}", f"{ratio:.2f}")
        rows.append(Row(cells, ratio, GOAL_SPAWN_RATIO if name == "reaper" else None))
    growth = large["reaper"] / small["reaper"]
    rows.append(Row(("reaper's growth", "", "", "", f"{growth:.2f}"), growth, GOAL_GROWTH))
    return Table(
        "Spawning /bin/true, with a pipe for its output (milliseconds, medians)",
        ("way", "small program", "with 1 GiB", "growth", "to open_process"),
        rows,
        ("os.posix_spawn blocks its thread, and makes no pipe.",),
    )


# --- memory ---------------------------------------------------------------------------------------


async def _measure_memory() -> Table:
    link = await reaper()
    rows = []
    sums = {"Pss": 0.0, "Private_Dirty": 0.0, "Private_Clean": 0.0, "Rss": 0.0}
    for name, pid in (("outer", link.outer), ("inner", link.inner)):
        figures = _rollup(pid)
        for key in sums:
            sums[key] += figures[key]
        private = figures["Private_Dirty"] + figures["Private_Clean"]
        rows.append(Row((name, *(f"{x:.1f}" for x in (figures["Rss"], figures["Pss"], private)))))
    private = sums["Private_Dirty"] + sums["Private_Clean"]
    both = (f"{sums['Rss']:.1f}", f"{sums['Pss']:.1f}", f"{private:.1f}")
    rows.append(Row(("both", *both), sums["Pss"], GOAL_PROPORTIONAL_MB))
    rows.append(Row(("both, private", *both), private, GOAL_PRIVATE_MB))
    return Table(
        "Memory of the reaper (MB)", ("process", "resident", "proportional", "private"), rows
    )


def _rollup(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1000 for line in lines}


# --- the sweep ------------------------------------------------------------------------------------


def _measure_sweep() -> Table:
    times = sorted(_sweep() for _ in range(SWEEPS))
    worst = times[-1]
    cells = (f"{middle(times):.1f}", f"{worst:.1f}")
    return Table(
        "From SIGKILL of a program to the end of the last of its 20 daemons (milliseconds)",
        ("median", "worst"),
        [Row(cells, worst, GOAL_SWEEP_MS)],
        ("5 of them have left for a session of their own; StopLadder() without rungs.",),
    )


def _sweep() -> float:
    name, value = "BENCHMARK_MARK", os.urandom(8).hex()
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER_OF_TWENTY],
        stdout=subprocess.PIPE,
        env={**os.environ, name: value},
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        daemons: list[int] = []
        while len(daemons) < PROCESSES_OF_TWENTY:
            marked = _marked(f"{name}={value}".encode())
            daemons = [pid for pid in marked if pid != owner.pid]
        pidfds = [os.pidfd_open(pid) for pid in daemons]
        began = time.perf_counter()
        owner.send_signal(signal.SIGKILL)
        for pidfd in pidfds:
            _wait_for(pidfd)
        took = (time.perf_counter() - began) * 1000
        for pidfd in pidfds:
            os.close(pidfd)
    return took


def _wait_for(pidfd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(30_000)


def _marked(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


# --- stopping a hundred ---------------------------------------------------------------------------


async def _measure_stop() -> Table:
    one = [await _stop(1) for _ in range(STOPS)]
    hundred = [await _stop(100) for _ in range(STOPS)]
    ratio = middle(hundred) / middle(one)
    return Table(
        "Stop of 'sleep', from the request until all are seen to be gone (milliseconds, medians)",
        ("one", "a hundred at once", "ratio"),
        [Row((f"{middle(one) * 1000:.1f}", f"{middle(hundred) * 1000:.1f}", f"{ratio:.1f}"))],
    )


async def _stop(count: int) -> float:
    config = LifecycleConfig(
        "sleep", args=["3600"], ready_mode=Manual(), stop_ladder=StopLadder((signal.SIGTERM, 10.0))
    )
    async with trio.open_nursery() as nursery:
        daemons = [await nursery.start(DaemonLifecycle(config).run) for _ in range(count)]
        began = time.perf_counter()
        async with trio.open_nursery() as stopping:
            for daemon in daemons:
                stopping.start_soon(daemon.stop)
        ended = time.perf_counter()
    return ended - began
