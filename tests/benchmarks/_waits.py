"""The ways to wait for a daemon that are compared: each starts it, waits, and stops it again.

Each takes the start-up time and gives by how many milliseconds the news of readiness came after
the moment that the daemon noted itself.
"""

import time
from pathlib import Path
from typing import Final

import httpx
import trio
from mirakuru import HTTPExecutor
from mirakuru.exceptions import TimeoutExpired

from tests.benchmarks._command import (
    NEVER_MS,
    calling,
    interpreter,
    note_file,
    read_moment,
    serving,
)
from trio_lifecycle import (
    FREE_PORT,
    Callback,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    Manual,
    ReadyTimeoutError,
)
from trio_lifecycle._ports import reserve_port
from trio_lifecycle.abc import ReadyMode

# The interval of the original design, and of mirakuru.
POLL_S: Final = 0.1

# No benchmark's daemon needs as long.
READY_TIMEOUT_S: Final = 30.0


def health_check() -> HealthCheck:
    """Give the ready mode for a daemon on a port of its own."""
    return HealthCheck(f"http://127.0.0.1:{FREE_PORT}/")


async def by_health_check(start_up_ms: int) -> float:
    """This package, asking."""
    with note_file() as note:
        return await _by_lifecycle(serving(FREE_PORT, start_up_ms, note), health_check(), note)


async def by_callback(start_up_ms: int) -> float:
    """This package, being called."""
    with note_file() as note:
        return await _by_lifecycle(calling(start_up_ms, note), Callback(), note)


async def _by_lifecycle(args: list[str], mode: ReadyMode, note: Path) -> float:
    config = LifecycleConfig(interpreter(), args=args, ready_mode=mode, name="daemon")
    async with DaemonLifecycle(config).running():
        return _lateness_ms(note)


async def by_poll(start_up_ms: int) -> float:
    """The original design: a GET by httpx every 100 ms, on a process spawned in the same way."""
    with note_file() as note, reserve_port() as port:
        args = serving(port.number, start_up_ms, note)
        config = LifecycleConfig(interpreter(), args=args, ready_mode=Manual(), name="daemon")
        lifecycle = DaemonLifecycle(config)
        async with httpx.AsyncClient(trust_env=False) as client, lifecycle.running():
            await poll(client, f"http://127.0.0.1:{port.number}/")
            return _lateness_ms(note)


async def poll(client: httpx.AsyncClient, url: str) -> None:
    """Wait until a GET succeeds."""
    while True:
        try:
            response = await client.get(url)
        except httpx.TransportError:
            pass
        else:
            if response.is_success:
                return
        await trio.sleep(POLL_S)


async def by_mirakuru(start_up_ms: int) -> float:
    """The best known library for tests; it blocks, which is no matter here."""
    await trio.lowlevel.checkpoint()
    with note_file() as note, reserve_port() as port:
        executor = _executor(port.number, serving(port.number, start_up_ms, note), READY_TIMEOUT_S)
        try:
            executor.start()
            return _lateness_ms(note)
        finally:
            executor.stop()


def _executor(port: int, args: list[str], timeout_s: float) -> HTTPExecutor:
    return HTTPExecutor(
        [interpreter(), *args], f"http://127.0.0.1:{port}/", timeout=timeout_s, sleep=POLL_S
    )


def _lateness_ms(note: Path) -> float:
    now = time.monotonic_ns()
    return (now - read_moment(note)) / 1e6


# --- waiting in vain ------------------------------------------------------------------------------


async def vainly_by_health_check(seconds: float) -> None:
    """Wait for a daemon that does not listen."""
    await _vainly_by_lifecycle(serving(FREE_PORT, NEVER_MS), health_check(), seconds)


async def vainly_by_callback(seconds: float) -> None:
    """Wait for a daemon that does not call."""
    await _vainly_by_lifecycle(calling(NEVER_MS), Callback(), seconds)


async def vainly_by_mode(mode: ReadyMode, seconds: float) -> None:
    """Wait for a daemon that does nothing of what a mode waits for."""
    await _vainly_by_lifecycle(serving(FREE_PORT, NEVER_MS), mode, seconds)


async def _vainly_by_lifecycle(args: list[str], mode: ReadyMode, seconds: float) -> None:
    config = LifecycleConfig(
        interpreter(), args=args, ready_mode=mode, ready_timeout=seconds, name="daemon"
    )
    try:
        async with DaemonLifecycle(config).running():
            raise AssertionError("it can't be ready")
    except ReadyTimeoutError:
        pass


async def vainly_by_poll(seconds: float) -> None:
    """Poll a port on which nothing listens."""
    with reserve_port() as port:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            with trio.move_on_after(seconds):
                await poll(client, f"http://127.0.0.1:{port.number}/")


async def vainly_by_mirakuru(seconds: float) -> None:
    """Wait for a daemon that does not listen."""
    await trio.lowlevel.checkpoint()
    with reserve_port() as port:
        executor = _executor(port.number, serving(port.number, NEVER_MS), seconds)
        try:
            executor.start()
        except TimeoutExpired:
            pass
        finally:
            executor.stop()
