"""Daemon nurseries with real processes: many in one owner, Ctrl-C, and servers that people use."""

import os
import signal
import uuid
from pathlib import Path

import pytest
import trio

from tests.plugins.needs import SYSTEM_DIRECTORIES
from tests.support import PATIENCE_S, app, bearing, lives, python_daemon, wait_until_gone
from trio_lifecycle import (
    FREE_PORT,
    DaemonHandle,
    DaemonLifecycle,
    Event,
    HealthCheck,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    SpawnError,
    StopLadder,
)
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])

SERVER = """
import http.server, sys
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
"""


def server(name: str) -> LifecycleConfig:
    """A web server on a port of its own."""
    mode = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/")
    return python_daemon(SERVER, FREE_PORT, name=name, ready_mode=mode)


@pytest.mark.fault(45)
@each_guarantee
async def test_several_are_up_and_go_in_reverse_order(guarantee: str) -> None:
    stopped = []

    def observe(event: Event) -> None:
        if event.kind == "stopped":
            stopped.append(event.name)

    spawner = LocalSpawner(guarantee)  # type: ignore[arg-type]
    names = ["queen", "hive", "worker"]
    async with open_daemon_nursery() as daemons:
        for name in names:
            await daemons.ensure_running(
                DaemonLifecycle(server(name), spawner=spawner, observer=observe)
            )
        pids = [daemon.pid for daemon in daemons]
        assert 3 == len(set(pids))
        assert all(pid is not None and lives(pid) for pid in pids)

    assert names[::-1] == stopped
    assert not any(pid is not None and lives(pid) for pid in pids)


@pytest.mark.fault(57)
async def test_two_hundred_tasks_get_one_process() -> None:
    got: set[DaemonHandle] = set()
    spawned = []

    def observe(event: Event) -> None:
        if event.kind == "spawned":
            spawned.append(event)

    lifecycle = DaemonLifecycle(server("queen"), observer=observe)

    async def ask(daemons: DaemonNursery) -> None:
        got.add(await daemons.ensure_running(lifecycle))

    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(ask, daemons)

    assert 1 == len(got)
    assert 1 == len(spawned)


@each_guarantee
async def test_one_that_is_killed_is_started_anew_and_its_tree_is_gone(guarantee: str) -> None:
    code = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(1000)"])
print("child", child.pid)
child.wait()
"""
    first_line = trio.Event()
    children: list[int] = []

    async def read(daemon: DaemonHandle) -> None:
        async for line in daemon.lines():
            children.append(int(line.split()[1]))
            first_line.set()

    spawner = LocalSpawner(guarantee)  # type: ignore[arg-type]
    lifecycle = DaemonLifecycle(python_daemon(code, name="queen"), spawner=spawner)
    async with open_daemon_nursery() as daemons, trio.open_nursery() as nursery:
        first = await daemons.ensure_running(lifecycle)
        nursery.start_soon(read, first)
        if "child" in first.output_tail:
            children.append(int(first.output_tail.split()[1]))
            first_line.set()
        with trio.fail_after(PATIENCE_S):
            await first_line.wait()
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        assert -9 == await first.wait_exit()
        second = await daemons.ensure_running(lifecycle)
        assert first.pid != second.pid
        await wait_until_gone(children[0])
        assert [second] == list(daemons)
        nursery.cancel_scope.cancel()


async def test_a_start_that_fails_touches_no_other(tmp_path: Path) -> None:
    missing = python_daemon("", name="broken", working_dir=tmp_path / "missing")

    async with open_daemon_nursery() as daemons:
        queen = await daemons.ensure_running(DaemonLifecycle(server("queen")))
        with pytest.raises(SpawnError, match="missing"):
            await daemons.ensure_running(DaemonLifecycle(missing))
        assert [queen] == list(daemons)


@pytest.mark.fault(45)
async def test_ten_stubborn_ones_are_killed_together() -> None:
    code = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf")
time.sleep(1000)
"""
    ladder = StopLadder((signal.SIGTERM, 0.2))
    began = trio.current_time()

    async with open_daemon_nursery() as daemons:
        for number in range(10):
            config = python_daemon(code, name=f"worker-{number}", stop_ladder=ladder)
            await daemons.ensure_running(DaemonLifecycle(config))
        pids = [daemon.pid for daemon in daemons]
        began = trio.current_time()

    assert trio.current_time() - began < PATIENCE_S
    assert not any(pid is not None and lives(pid) for pid in pids)


@pytest.mark.needs("redis-server")
async def test_redis_is_there_once_and_again_after_a_stop(tmp_path: Path) -> None:
    args = ["--port", FREE_PORT, "--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path)]
    redis = DaemonLifecycle(
        LifecycleConfig(
            "redis-server", args=args, ready_mode=Manual(), search_path=SYSTEM_DIRECTORIES
        )
    )

    async with open_daemon_nursery() as daemons:
        first = await daemons.ensure_running(redis)
        assert first is await daemons.ensure_running(redis)
        report = await daemons.stop("redis-server")
        assert report is not None
        second = await daemons.ensure_running(redis)
        assert first.pid != second.pid

    assert second.pid is not None
    assert not lives(second.pid)


INTERRUPTED = """
from trio_lifecycle._nursery import open_daemon_nursery

def tell(event):
    print(event.kind, event.name, flush=True)

def stubborn(name):
    code = (
        "import os, signal, time\\n"
        "os.fork() == 0 and 'guarded' in %r and os.setsid()\\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
        "time.sleep(1000)" % sys.argv[1]
    )
    config = python_daemon(
        code, name=name, env={"TEST_DAEMON_NURSERY": os.environ["WORD"]},
        ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/") if name == "silent" else Manual(),
        stop_ladder=StopLadder((signal.SIGTERM, 0.5)),
    )
    return DaemonLifecycle(config, spawner=LocalSpawner(sys.argv[1]), observer=tell)

async def main():
    async with open_daemon_nursery() as daemons:
        for name in ("queen", "hive", "worker"):
            await daemons.ensure_running(stubborn(name))
        print("in the block", flush=True)
        if "silent" in sys.argv:
            await daemons.ensure_running(stubborn("silent"))
        if "leave" not in sys.argv:
            await trio.sleep(1000)

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.fault(48)
@each_guarantee
@pytest.mark.parametrize(
    ("stage", "arg"),
    [
        ("spawned hive", ""),
        ("in the block", ""),
        ("spawned silent", "silent"),
        ("stopping worker", "leave"),
    ],
    ids=["in-a-start", "in-the-block", "in-a-wait", "in-a-stop"],
)
def test_ctrl_c_leaves_nothing_also_when_it_comes_twice(
    stage: str, arg: str, guarantee: str
) -> None:
    word = uuid.uuid4().hex
    with app(INTERRUPTED, guarantee, arg, env={"WORD": word}) as program:
        lines: list[str] = []
        while not lines or not lines[-1].startswith(stage):
            lines.append(program.say())
            assert lines[-1], lines
        program.signal(signal.SIGINT)
        while not lines[-1].startswith("stopping"):
            lines.append(program.say())
            assert lines[-1], lines
        program.signal(signal.SIGINT)
        status, rest = program.end()
    lines += rest.splitlines()
    assert (0, "interrupted") == (status, lines[-1]), "\n".join(lines)
    assert [] == bearing("TEST_DAEMON_NURSERY", word)
