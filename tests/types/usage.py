"""How users write it. Never run: mypy and pyright say whether the types hold."""

import re
import signal
from pathlib import Path
from typing import assert_type

import trio

from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    TLS,
    Callback,
    DaemonHandle,
    DaemonLifecycle,
    Event,
    Exec,
    FileAppears,
    FileExists,
    FreePort,
    FreeVRAM,
    GRPCHealth,
    HealthCheck,
    LifecycleConfig,
    StopLadder,
    StopReport,
    TCPPort,
    UnixSocket,
)
from trio_lifecycle.abc import ReadyMode


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


def ask_it_in_other_ways() -> list[ReadyMode]:
    """Every mode that asks, with what it may be given."""
    return [
        TCPPort(FREE_PORT),
        TCPPort(8080, "localhost", interval=1),
        UnixSocket(Path("/run/it.sock")),
        Exec(["redis-cli", "-p", FREE_PORT, "ping"], fatal_statuses=range(2, 256)),
        FileAppears("/run/it.pid", min_bytes=1),
        GRPCHealth(f"127.0.0.1:{FREE_PORT}", "a.B", tls=TLS(ca_file=Path("ca.pem"))),
        HealthCheck(
            "https://127.0.0.1:8080/",
            method="HEAD",
            headers={"Authorization": "Bearer x"},
            statuses=(range(200, 300), 401),
            fatal_statuses=500,
            tls=TLS(verify=False),
            success_threshold=3,
        ),
        HealthCheck("http://it/", unix_socket="/run/it.sock", body=re.compile("up")),
        HealthCheck("http://it/", body=lambda answer: answer.body == b"up"),
    ]


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
