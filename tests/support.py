"""What several tests need: daemons in a few lines, lines to wait for, programs to watch."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import trio

from trio_lifecycle import DaemonHandle, LifecycleConfig, LocalSpawner, Manual, Output
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._ports import reserve_port
from trio_lifecycle._proc import ephemeral_ports, has_variable, read_stat
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._spawned_process import SpawnedProcess, is_readable

# Longer than anything here takes on a loaded machine; a test that gets there has failed.
PATIENCE_S = 40.0

# Isolated and without site-packages an interpreter is up in 15 ms.
QUICK_PYTHON = ("-I", "-S", "-u", "-c")


def name_of(value: object) -> str:
    """A value as part of a test's name, the same in every process: without an address."""
    return re.sub(" at 0x[0-9a-f]+", "", ascii(value))


class Heard:
    """Takes the lines of a daemon or server, and lets a test wait for one."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = trio.Event()

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        self._news.set()

    async def line(self, beginning: str) -> str:
        """Wait for a line that begins like this; give the rest of it."""
        with trio.fail_after(PATIENCE_S):
            while True:
                for line in self.lines:
                    if line.startswith(beginning):
                        return line.removeprefix(beginning).strip()
                await self.news()

    async def news(self) -> None:
        """Wait for the next line."""
        self._news = trio.Event()
        await self._news.wait()

    async def pid(self, beginning: str) -> int:
        """Wait for a line that begins like this and goes on with a process's number."""
        return int(await self.line(beginning))


def python_daemon(code: str, *args: str, **changes: Any) -> LifecycleConfig:
    """A daemon that is a few lines of Python; ready at once unless said otherwise."""
    changes = {"name": "daemon", "ready_mode": Manual(), **changes}
    return LifecycleConfig(sys.executable, args=[*QUICK_PYTHON, code, *args], **changes)


def shell_daemon(script: str, **changes: Any) -> LifecycleConfig:
    """A daemon that is a shell script; ready at once unless said otherwise."""
    changes = {"name": "daemon", "ready_mode": Manual(), **changes}
    return LifecycleConfig("/bin/sh", args=["-c", script], **changes)


def request(program: str, *args: str, **changes: Any) -> SpawnRequest:
    """What a spawner is asked for."""
    usual: dict[str, Any] = {
        "name": "daemon",
        "instance_id": "instance",
        "env": {},
        "working_dir": None,
        "output": Output(),
        "detached": False,
    }
    return SpawnRequest(program=program, args=args, **(usual | changes))


async def spawn(
    nursery: trio.Nursery,
    program: str,
    *args: str,
    guarantee: Guarantee = "guarded",
    **changes: Any,
) -> SpawnedProcess:
    """Start a program as a lifecycle would, without waiting for anything."""
    process = await LocalSpawner(guarantee).spawn(request(program, *args, **changes), nursery)
    assert isinstance(process, SpawnedProcess)
    return process


async def spawn_python(
    nursery: trio.Nursery, code: str, *args: str, **changes: Any
) -> SpawnedProcess:
    """Start a few lines of Python as a lifecycle would."""
    return await spawn(nursery, sys.executable, *QUICK_PYTHON, code, *args, **changes)


async def end(*processes: SpawnedProcess) -> None:
    """Kill processes with their trees, and wait until they are gone."""
    for process in processes:
        await process.signal_tree(signal.SIGKILL)
        with trio.fail_after(PATIENCE_S):
            await process.wait_gone()
        process.close()


async def die(daemon: DaemonHandle) -> NoReturn:
    """Kill a daemon's main process, and wait for the cancellation of the block that this is."""
    assert daemon.pid is not None
    os.kill(daemon.pid, signal.SIGKILL)
    with trio.fail_after(PATIENCE_S):
        await trio.sleep_forever()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on, outside the range that the kernel serves itself from."""
    with reserve_port(host, ephemeral=ephemeral_ports()) as port:
        return port.number


def lives(pid: int) -> bool:
    """Whether a process is there; a zombie is not."""
    stat = read_stat(pid)
    return stat is not None and not stat.dead


async def wait_until_gone(pid: int) -> None:
    """Wait until a process that is nobody's child here has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with trio.fail_after(PATIENCE_S):
            await trio.lowlevel.wait_readable(pidfd)
    finally:
        os.close(pidfd)


def bearing(variable: str, value: str) -> list[int]:
    """The living processes that have this in their environment."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal())
    return [pid for pid in pids if has_variable(pid, variable, value)]


def wait_until_none_bears(variable: str, value: str) -> None:
    """Wait until no process that is nobody's child here has this in its environment."""
    while pids := bearing(variable, value):
        try:
            pidfd = os.pidfd_open(pids[0])
        except ProcessLookupError:
            continue
        try:
            assert is_readable(pidfd, PATIENCE_S), f"{pids} are still there"
        finally:
            os.close(pidfd)


def permitted(*command: str) -> bool:
    """Whether a command succeeds here, such as one that needs rights."""
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S).returncode == 0
    except OSError:
        return False


@contextmanager
def bystander(*command: str) -> Iterator[int]:
    """A process that belongs to nobody, and lives until the end of the block."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process.pid
            assert process.poll() is None, "the bystander was ended"
        finally:
            process.kill()


class App:
    """A program that runs beside the test: what it says, line by line, and signals for it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.pid = process.pid

    def say(self) -> str:
        """Wait for the next line that it writes."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def hear(self, line: str) -> None:
        """Write it a line."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, signum: int) -> None:
        """Send it a signal."""
        self._process.send_signal(signum)

    def end(self) -> tuple[int, str]:
        """Wait for its end; give its status and the rest of what it wrote."""
        rest, _ = self._process.communicate(timeout=PATIENCE_S)
        return self._process.returncode, rest


@contextmanager
def app(
    code: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> Iterator[App]:
    """A program that uses this package, killed at the end of the block if it still runs."""
    with nothing_ignored():
        process = subprocess.Popen(
            [*within, sys.executable, "-u", "-c", PROLOGUE + code, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
            text=True,
        )
    with process:
        try:
            yield App(process)
        finally:
            process.kill()


def run_app(
    code: str,
    *args: str,
    env: Mapping[str, str] | None = None,
    within: Sequence[str] = (),
) -> list[str]:
    """Run a program that uses this package to its end; give the lines that it wrote."""
    with app(code, *args, env=env, within=within) as program:
        status, output = program.end()
    assert status == 0, output
    return output.splitlines()


ROOT = Path(__file__).resolve().parents[1]

# For a program that gives up the rights to write what coverage has measured; and for those of which
# many are started, whose every line others have covered: measured, each takes twice as long.
UNMEASURED = {"COVERAGE_PROCESS_CONFIG": "", "COVERAGE_PROCESS_START": ""}

PROLOGUE = """
import os, signal, sys, time
import trio
from trio_lifecycle import *
from tests.plugins import covered
from tests.support import *
"""


@contextmanager
def nothing_ignored() -> Iterator[None]:
    """Undo what nohup, or a shell that starts the tests with ``&``, would have us hand on."""
    signums = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    ignored = [signum for signum in signums if signal.getsignal(signum) is signal.SIG_IGN]
    for signum in ignored:
        signal.signal(signum, signal.SIG_DFL)
    try:
        yield
    finally:
        for signum in ignored:
            signal.signal(signum, signal.SIG_IGN)
