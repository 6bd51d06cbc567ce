"""How users write it. Never run: mypy and pyright say whether the types hold."""

import signal
from typing import assert_type

import trio

from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    Callback,
    DaemonHandle,
    DaemonLifecycle,
    Event,
    FileExists,
    FreePort,
    FreeVRAM,
    HealthCheck,
    LifecycleConfig,
    StopLadder,
    StopReport,
)


async def own_it_for_a_block() -> None:
    """A daemon for the length of a block, stopped in three ways."""
    queen = DaemonLifecycle.with_health_check(
        "queen-rbee", "http://127.0.0.1:8080/health", args=["--port", "8080"]
    )
    async with queen.running() as daemon:
        assert_type(daemon, DaemonHandle)
        assert_type(await daemon.stop(), StopReport)
        await daemon.stop(StopLadder((signal.SIGINT, 2.0), (signal.SIGTERM, 30.0)))
        await daemon.kill()
        assert_type(await daemon.wait_exit(), int | None)
        async for line in daemon.lines():
            assert_type(line, str)


async def leave_it_running() -> None:
    """A daemon that outlives its starter."""
    queen = DaemonLifecycle(
        LifecycleConfig(
            binary_name="queen-rbee",
            args=["--port", FREE_PORT],
            detach=True,
            ready_mode=HealthCheck(url=f"http://127.0.0.1:{FREE_PORT}/health"),
        )
    )
    assert_type(await queen.ensure_running(), DaemonHandle)


async def give_it_to_a_nursery() -> None:
    """A daemon that a nursery owns, and an observer that is any callable."""
    events: list[Event] = []
    worker = DaemonLifecycle(
        LifecycleConfig(
            binary_name="llm-worker-rbee",
            args=["--port", FREE_PORT, "--callback-url", CALLBACK_URL],
            ready_mode=Callback(),
            ready_timeout=300,
        ),
        observer=events.append,
    )
    async with trio.open_nursery() as nursery:
        daemon: DaemonHandle = await nursery.start(worker.run)
        await worker.stop(daemon)
        await worker.force_kill(daemon)


async def checked() -> None:
    """What must be there before the start, and a check that is a plain function."""
    worker = DaemonLifecycle(
        LifecycleConfig("llm-worker-rbee", ready_mode=Callback()),
        preflight=[FileExists("/m"), FreeVRAM(gib=24), FreePort(80), leave_it_running],
    )
    assert_type(await worker.ensure_running(), DaemonHandle)
