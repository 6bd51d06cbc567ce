"""How fast daemons start on another machine, beside ssh(1) that sends as many commands."""

import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

import trio

from tests.benchmarks._table import Row, Table, middle
from tests.plugins.needs import find_program
from tests.sshd import Server, running_sshd
from trio_lifecycle import (
    DaemonLifecycle,
    LifecycleConfig,
    LogLine,
    Output,
    SQLiteRegistry,
    SSHSpawner,
    StopLadder,
    open_daemon_nursery,
)
from trio_lifecycle._ssh._connections import connection

ROUNDS: Final = 15
MANY: Final = 30

GOAL_RATIO: Final = 1.5

SCRIPT: Final = "echo up; exec sleep 3600"


def tables() -> Iterator[Table]:
    """Measure, where OpenSSH is installed."""
    if find_program("sshd") is None:
        return
    with running_sshd() as server, ExitStack() as stack:
        ssh = _Ssh(server)
        stack.callback(ssh.close)
        yield trio.run(_measure_starts, server, ssh)
        yield trio.run(_measure_many, server)


class _Ssh:
    """The client of OpenSSH with a connection that it keeps (ControlMaster)."""

    def __init__(self, server: Server) -> None:
        known = server.directory / "known_hosts"
        known.write_text(f"[127.0.0.1]:{server.port} {server.host_key}")
        self._command = [
            *("ssh", "-F", "none", "-S", str(server.directory / "control"), "-i", str(server.key)),
            *("-o", f"UserKnownHostsFile={known}", "-o", "BatchMode=yes"),
            *("-p", str(server.port), f"{server.user}@127.0.0.1"),
        ]
        subprocess.run([*self._command[:1], "-fNM", *self._command[1:]], check=True)

    def run(self, command: str) -> bytes:
        return subprocess.run([*self._command, command], check=True, capture_output=True).stdout

    def close(self) -> None:
        stop = [*self._command[:1], "-O", "exit", *self._command[1:]]
        subprocess.run(stop, check=False, capture_output=True)


# --- one start ------------------------------------------------------------------------------------


async def _measure_starts(server: Server, ssh: _Ssh) -> Table:
    spawner = server.spawner()
    transport = await connection(server.target())
    ways: dict[str, Callable[[], Awaitable[float]]] = {
        "with an owner": partial(_owned, spawner),
        "detached, recorded": partial(_detached, spawner),
    }
    rows = []
    for name, way in ways.items():
        await way()
        before = transport.channels_opened
        await way()
        channels = transport.channels_opened - before
        ours, theirs = [], []
        for _ in range(ROUNDS):
            ours.append(await way())
            theirs.append(_by_ssh(ssh, max(1, channels)))
        ratio = middle(ours) / middle(theirs)
        cells = (name, str(channels), _ms(middle(ours)), _ms(middle(theirs)), f"{ratio:.2f}")
        rows.append(Row(cells, ratio, GOAL_RATIO))
    return Table(
        "Start to ready over a kept connection, ms",
        ("how", "channels", "here", "ssh", "ratio"),
        rows,
        ["ssh: OpenSSH's client with ControlMaster, sending as many commands, one at least."],
    )


def _config(name: str, **options: object) -> LifecycleConfig:
    return LifecycleConfig(
        "sh",
        args=["-c", SCRIPT],
        name=name,
        ready_mode=LogLine("up"),
        stop_ladder=StopLadder(),
        **options,  # type: ignore[arg-type]
    )


async def _owned(spawner: SSHSpawner) -> float:
    began = time.perf_counter()
    async with DaemonLifecycle(_config("owned"), spawner=spawner).running():
        return time.perf_counter() - began


async def _detached(spawner: SSHSpawner) -> float:
    with tempfile.TemporaryDirectory() as directory:
        registry = SQLiteRegistry(Path(directory) / "registry.sqlite")
        config = _config("detached", detach=True, output=Output(to=Path(directory) / "log"))
        lifecycle = DaemonLifecycle(config, spawner=spawner, registry=registry)
        began = time.perf_counter()
        daemon = await lifecycle.ensure_running()
        took = time.perf_counter() - began
        await daemon.kill()
        registry.close()
    return took


def _by_ssh(ssh: _Ssh, commands: int) -> float:
    """Start the same by a command, after as many that do nothing as there are others."""
    began = time.perf_counter()
    for _ in range(commands - 1):
        ssh.run("true")
    pid = ssh.run(f"setsid sh -c '{SCRIPT}' </dev/null >/dev/null 2>&1 & echo $!")
    took = time.perf_counter() - began
    ssh.run(f"kill -KILL {int(pid)}")
    return took


# --- many -----------------------------------------------------------------------------------------


async def _measure_many(server: Server) -> Table:
    spawner = server.spawner()
    began = time.perf_counter()
    async with open_daemon_nursery() as daemons:
        async with trio.open_nursery() as nursery:
            for number in range(MANY):
                lifecycle = DaemonLifecycle(_config(f"many-{number}"), spawner=spawner)
                nursery.start_soon(daemons.ensure_running, lifecycle)
        up = time.perf_counter()
    gone = time.perf_counter()
    rows = [
        Row(("until all are ready, connecting included", _ms(up - began))),
        Row(("until all are gone", _ms(gone - up))),
    ]
    return Table(f"{MANY} daemons at once on one machine, ms", ("what", "took"), rows)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f}"
