"""Ctrl-C, and daemons that nobody owns: programs of their own, as a user runs them."""

import os
import signal
import uuid
from pathlib import Path

import pytest
import trio

from tests.support import (
    App,
    app,
    bearing,
    free_port,
    lives,
    wait_until_gone,
    wait_until_none_bears,
)

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])

# The daemons of one test have a word of their own, which all that they start inherits.
WORD = "TEST_REAL_INTERRUPTS"

# Says each event on a line, so that the test can interrupt at any of them.
INTERRUPTED = """
async def slow_check():
    print("checking", flush=True)
    await trio.sleep(float(os.environ.get("CHECK_S", "0")))

DAEMON = '''
import http.server, os, signal, sys, time
if os.fork() == 0:
    if "guarded" in sys.argv:
        os.setsid()
    time.sleep(1000)
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "silent" in sys.argv:
    time.sleep(1000)
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(sys.argv[1]), bind="127.0.0.1")
'''
config = python_daemon(
    DAEMON, FREE_PORT, *sys.argv[1:],
    ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/"),
    env={"TEST_REAL_INTERRUPTS": os.environ.get("WORD")},
    stop_ladder=StopLadder((signal.SIGTERM, 1.0)),
)

def tell(event):
    print(event.kind, event.as_dict().get("pid", ""), flush=True)

async def main():
    lifecycle = DaemonLifecycle(
        config, spawner=LocalSpawner(sys.argv[1]), observer=tell, preflight=[slow_check])
    async with lifecycle.running() as daemon:
        try:
            print("in the block", flush=True)
            await trio.sleep(1000 if "leave" not in sys.argv else 0)
        finally:
            print("left the block", flush=True)

try:
    trio.run(main)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def follow(program: App, until: str) -> list[str]:
    """The lines that a program writes, up to one that begins like this."""
    lines: list[str] = []
    while not (line := program.say()).startswith(until):
        assert line, f"{until!r} was never said, only {lines}"
        lines.append(line)
    return [*lines, line]


STAGES = {
    "before the spawn": ("checking", [], {"CHECK_S": "1000"}),
    "at the spawn": ("spawned", ["silent"], {}),
    "while it is awaited": ("spawned", ["silent", "stubborn"], {}),
    "when it is ready": ("ready", [], {}),
    "in the block": ("in the block", [], {}),
    "while it is stopped": ("stopping", ["leave", "stubborn"], {}),
}


def group_of(leader: int) -> list[int]:
    """The processes that are left in a process group."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and os.getpgid(int(entry.name)) == leader:
                found.append(int(entry.name))
        except ProcessLookupError:
            continue
    return [pid for pid in found if lives(pid)]


@pytest.mark.fault(48)
@each_guarantee
@pytest.mark.parametrize(
    ("stage", "args", "env"), STAGES.values(), ids=[name.replace(" ", "-") for name in STAGES]
)
def test_ctrl_c_leaves_nothing(
    stage: str, args: list[str], env: dict[str, str], guarantee: str
) -> None:
    word = uuid.uuid4().hex
    with app(INTERRUPTED, guarantee, *args, env={**env, "WORD": word}) as program:
        lines = follow(program, stage)
        program.signal(signal.SIGINT)
        status, rest = program.end()
    lines += rest.splitlines()
    assert (0, "interrupted") == (status, lines[-1]), "\n".join(lines)
    pids = [int(line.split()[1]) for line in lines if line.startswith("spawned")]
    assert [] == [left for pid in pids for left in group_of(pid)]
    # One of them has left the group, where that is followed.
    assert [] == bearing(WORD, word)
    if "in the block" in lines:
        assert lines.index("left the block") < lines.index(f"stopping {pids[0]}")


@pytest.mark.fault(48)
@each_guarantee
def test_a_second_ctrl_c_does_not_break_off_the_stop(guarantee: str) -> None:
    word = uuid.uuid4().hex
    with app(INTERRUPTED, guarantee, "stubborn", env={"WORD": word}) as program:
        follow(program, "in the block")
        program.signal(signal.SIGINT)
        lines = follow(program, "stopping")
        program.signal(signal.SIGINT)
        status, rest = program.end()
    lines += rest.splitlines()
    pid = int(next(line for line in lines if line.startswith("stopping")).split()[1])
    assert (0, "interrupted") == (status, lines[-1]), "\n".join(lines)
    assert f"stopped {pid}" in lines
    assert [] == group_of(pid)
    assert [] == bearing(WORD, word)


# Ctrl-C strikes wherever Python code runs. Here: in a system call that one of our own tasks makes.
STRUCK = """
import select

def strike(name, after):
    module, _, function = name.partition(".")
    real = getattr(sys.modules[module], function)

    def struck(*args):
        if after in told and not done:
            done.append(name)
            os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    setattr(sys.modules[module], function, struck)

told, done = [], []
strike(*sys.argv[2:])
DAEMON = "import time\\nwhile True: print('line', flush=True); time.sleep(0.01)"
config = python_daemon(DAEMON, FREE_PORT, ready_timeout=5, ready_mode=(
    Manual() if "ready" in sys.argv else HealthCheck(f"http://127.0.0.1:{FREE_PORT}/")))

def tell(event):
    told.append(event.kind)
    print(event.kind, event.as_dict().get("pid", ""), flush=True)

async def main():
    spawner = LocalSpawner(sys.argv[1])
    async with DaemonLifecycle(config, spawner=spawner, observer=tell).running():
        await trio.sleep(5)

try:
    trio.run(main)
except KeyboardInterrupt:
    print("struck in", *done, flush=True)
"""


@pytest.mark.fault(48)
@pytest.mark.parametrize("stage", ["spawned", "ready"])
@pytest.mark.parametrize(
    ("guarantee", "call"),
    [
        # To look for the end of a daemon, and to take in its output.
        ("guarded", "select.poll"),
        ("guarded", "os.read"),
        ("scoped", "os.waitid"),
        ("scoped", "os.read"),
    ],
)
def test_ctrl_c_leaves_nothing_when_it_strikes_a_task_of_ours(
    guarantee: str, call: str, stage: str
) -> None:
    with app(STRUCK, guarantee, call, stage) as program:
        status, output = program.end()
    lines = output.splitlines()
    (pid,) = [int(line.split()[1]) for line in lines if line.startswith("spawned")]
    left = group_of(pid)
    for stray in left:
        os.kill(stray, signal.SIGKILL)
    assert (0, f"struck in {call}", []) == (status, lines[-1], left), output


@pytest.mark.fault(48)
def test_ctrl_c_at_the_terminal_does_not_reach_the_daemon_itself() -> None:
    with app(INTERRUPTED, "guarded") as program:
        lines = follow(program, "in the block")
        pid = next(int(line.split()[1]) for line in lines if line.startswith("spawned"))
        assert pid == os.getsid(pid) != os.getsid(program.pid)
        program.signal(signal.SIGINT)
        program.end()


# --- killed ---------------------------------------------------------------------------------------


def kill_at(stage: str, args: list[str], env: dict[str, str], guarantee: str) -> tuple[str, int]:
    """Kill a program at a stage; give the word of its daemon, and that one's number."""
    word = uuid.uuid4().hex
    with app(INTERRUPTED, guarantee, *args, env={**env, "WORD": word}) as program:
        lines = follow(program, stage)
        program.signal(signal.SIGKILL)
        status, rest = program.end()
    assert -signal.SIGKILL == status
    spawned = [line for line in [*lines, *rest.splitlines()] if line.startswith("spawned")]
    return word, int(spawned[0].split()[1]) if spawned else 0


@pytest.mark.fault(47)
@pytest.mark.parametrize(
    ("stage", "args", "env"), STAGES.values(), ids=[name.replace(" ", "-") for name in STAGES]
)
def test_sigkill_of_the_program_leaves_nothing(
    stage: str, args: list[str], env: dict[str, str]
) -> None:
    word, pid = kill_at(stage, args, env, "guarded")
    wait_until_none_bears(WORD, word)
    # One that is about to end has lost its environment already. 0: killed before the spawn.
    if pid:
        trio.run(wait_until_gone, pid)


@pytest.mark.fault(100)
def test_sigkill_of_the_program_leaves_a_scoped_daemon_behind() -> None:
    word, pid = kill_at("in the block", [], {}, "scoped")
    left = bearing(WORD, word)
    for stray in left:
        os.kill(stray, signal.SIGKILL)
    assert 2 == len(left)
    assert pid in left


# --- left running, and found again ----------------------------------------------------------------

ENSURES = """
config = LifecycleConfig(
    sys.executable,
    args=["-m", "http.server", "--bind", "127.0.0.1", sys.argv[1]],
    name="server", detach=True, output=Output(to=sys.argv[2]),
    ready_mode=HealthCheck(f"http://127.0.0.1:{sys.argv[1]}/"),
)
lifecycle = DaemonLifecycle(config)

async def main():
    if sys.argv[3] == "ensure":
        daemon = await lifecycle.ensure_running()
        again = await lifecycle.ensure_running()
        print(daemon.origin, daemon.pid, again.pid == daemon.pid, daemon.port)
    elif sys.argv[3] == "use":
        async with lifecycle.running() as daemon:
            print(daemon.origin, daemon.pid)
            assert daemon.output_tail == ""
        print(lives(daemon.pid))
    else:
        daemon = await lifecycle.ensure_running()
        report = await daemon.stop()
        print(daemon.origin, daemon.pid, report.rung, report.status, lives(daemon.pid))

trio.run(main)
"""


def test_a_second_program_adopts_uses_and_stops_what_the_first_left_running(tmp_path: Path) -> None:
    port, log = free_port(), tmp_path / "log"

    def ask(what: str) -> list[str]:
        with app(ENSURES, str(port), str(log), what) as program:
            status, output = program.end()
        assert 0 == status, output
        return output.split()

    origin, pid, same, its_port = ask("ensure")
    try:
        assert ("spawned", "True", str(port)) == (origin, same, its_port)
        assert ["adopted", pid, "True", str(port)] == ask("ensure")
        assert ["adopted", pid, "True"] == ask("use")
        assert lives(int(pid))
        assert ["adopted", pid, "SIGTERM", "None", "False"] == ask("stop")
    finally:
        if lives(int(pid)):
            os.kill(int(pid), signal.SIGKILL)
    assert "GET / HTTP/1.1" in log.read_text()
