"""How late the news is from a daemon that says itself that it is ready."""

import os
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tests.benchmarks._command import interpreter, note_file, notifying, read_moment, writing
from tests.benchmarks._table import Row, Table, middle, percentile_90
from trio_lifecycle import (
    DaemonLifecycle,
    Event,
    LifecycleConfig,
    LogLine,
    MemoryRegistry,
    NewlineOnFD,
    Notify,
    Ready,
)
from trio_lifecycle.abc import ReadyMode

# Start-up times in milliseconds, and how often each is measured.
ROUNDS: Final = {0: 60, 200: 30}

GOAL_MS: Final = 0.5
BARE: Final = "a bare pipe"

STDOUT: Final = 1
READY_FD: Final = 3


def tables() -> Iterator[Table]:
    """Measure."""
    yield trio.run(_measure)


async def by_mode(
    mode: ReadyMode, args: Callable[[int, Path], list[str]], start_up_ms: int
) -> float:
    """Own a daemon for a moment."""
    with note_file() as note:
        config = LifecycleConfig(
            interpreter(), args=args(start_up_ms, note), ready_mode=mode, name="daemon"
        )
        async with DaemonLifecycle(config).running():
            return _lateness_ms(note)


async def by_log_file(start_up_ms: int) -> float:
    """Leave it running, so that it writes a file itself; then stop it.

    Until the event that says that it is ready: letting go of the claim that was needed for its
    start takes much longer, and is measured elsewhere.
    """
    late_ms = 0.0

    def hear(event: Event) -> None:
        nonlocal late_ms
        if isinstance(event, Ready):
            late_ms = _lateness_ms(note)

    with note_file() as note:
        config = LifecycleConfig(
            interpreter(),
            args=writing(STDOUT, start_up_ms, note),
            ready_mode=LogLine("^ready$"),
            name="daemon",
            detach=True,
        )
        # In memory: a record on disk, too, takes longer than all that is measured here.
        lifecycle = DaemonLifecycle(config, registry=MemoryRegistry(), observer=hear)
        daemon = await lifecycle.ensure_running()
        await daemon.stop()
        return late_ms


async def by_bare_pipe(start_up_ms: int) -> float:
    """Do nothing but read a pipe: so long the kernel and this machine need."""
    await trio.lowlevel.checkpoint()
    with note_file() as note:
        read_end, write_end = os.pipe()
        command = [interpreter(), *writing(write_end, start_up_ms, note)]
        with subprocess.Popen(command, pass_fds=[write_end]) as process:  # noqa: ASYNC220
            try:
                os.read(read_end, 1)
                return _lateness_ms(note)
            finally:
                process.terminate()
                os.close(read_end)
                os.close(write_end)


async def by_bare_trio(start_up_ms: int) -> float:
    """Do nothing but wait for a pipe in Trio: so long its loop needs besides."""
    with note_file() as note:
        read_end, write_end = os.pipe()
        command = [interpreter(), *writing(write_end, start_up_ms, note)]
        process = await trio.lowlevel.open_process(command, pass_fds=[write_end])
        try:
            await trio.lowlevel.wait_readable(read_end)
            os.read(read_end, 1)
            return _lateness_ms(note)
        finally:
            process.kill()
            with trio.CancelScope(shield=True):
                await process.wait()  # it was killed
            os.close(read_end)
            os.close(write_end)


def _lateness_ms(note: Path) -> float:
    now = time.monotonic_ns()
    return (now - read_moment(note)) / 1e6


def _write_newline(start_up_ms: int, note: Path) -> list[str]:
    return writing(READY_FD, start_up_ms, note)


def _write_line(start_up_ms: int, note: Path) -> list[str]:
    return writing(STDOUT, start_up_ms, note)


WAITS: Final[dict[str, Callable[[int], Awaitable[float]]]] = {
    "Notify": partial(by_mode, Notify(), notifying),
    "NewlineOnFD": partial(by_mode, NewlineOnFD(READY_FD), _write_newline),
    "LogLine": partial(by_mode, LogLine("^ready$"), _write_line),
    "LogLine, a log file": by_log_file,
    "a bare pipe in Trio": by_bare_trio,
    BARE: by_bare_pipe,
}


async def _measure() -> Table:
    for wait in WAITS.values():  # imports, and whatever else is done once
        await wait(0)
    rows = [row for start_up_ms in ROUNDS for row in await _rows(start_up_ms)]
    return Table(
        "How late is the news of a daemon that says itself that it is ready? (milliseconds)",
        ("start-up", "wait", "rounds", "median", "p90", "ratio to a bare pipe"),
        rows,
        (
            "The daemon notes the moment itself, just before it says so.",
            "A bare pipe is read by a thread that does nothing else.",
            "A log file: the daemon is left running, and the kernel tells that it has written.",
        ),
    )


async def _rows(start_up_ms: int) -> list[Row]:
    late: dict[str, list[float]] = {name: [] for name in WAITS}
    for _ in range(ROUNDS[start_up_ms]):
        for name, wait in WAITS.items():
            late[name].append(await wait(start_up_ms))
    bare = middle(late[BARE])
    return [_row(start_up_ms, name, values, bare) for name, values in late.items()]


def _row(start_up_ms: int, name: str, values: list[float], bare: float) -> Row:
    value = middle(values)
    figures = (f"{value:.2f}", f"{percentile_90(values):.2f}", f"{value / bare:.1f}")
    cells = (f"{start_up_ms} ms", name, str(len(values)), *figures)
    return Row(cells, value, None if BARE in name else GOAL_MS)
