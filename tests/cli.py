"""One real run of the command line, read line by line while it goes on."""

import json
import os
import pty
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import pytest
import trio
from attrs import evolve

from tests.support import UNMEASURED, nothing_ignored
from trio_lifecycle import DaemonNotRunningError, DaemonRecord, SQLiteRegistry, attach
from trio_lifecycle._cli._app import run_app
from trio_lifecycle._cli._codes import SIGNALS
from trio_lifecycle._state_dir import registry_path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/guides/command-line.md"
COMMAND = (sys.executable, "-m", "trio_lifecycle")

HEALTH = ("--health", "http://127.0.0.1:{port}/")
SERVER = (sys.executable, "-m", "http.server", "{port}", "--bind", "127.0.0.1")
# By its program it may be that server, but it is none.
LIKE_SERVER = ("--name", "again", "--", sys.executable, "-c", "raise SystemExit(66)")
# Says when SIGTERM can't end it any more.
DEAF = ("sh", "-c", "trap '' TERM; echo deaf; exec sleep 600")

# Bounds a wait for something that should come in well under a second.
PATIENCE_S = 40.0

T = TypeVar("T")


class Run:
    """A running ``trio-lifecycle``; what it writes is collected, and waited for."""

    def __init__(self, *words: str, command: tuple[str, ...] = COMMAND, **options: Any) -> None:
        streams = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
        }
        # For those that run in another directory, from a checkout that is not installed.
        env = {**options.pop("env", os.environ), "PYTHONPATH": str(ROOT)}
        with nothing_ignored():
            self.process = subprocess.Popen([*command, *words], env=env, **(streams | options))
        self._texts: dict[int, bytes] = {}
        self._names: dict[str, int] = {}
        self._pidfd = os.pidfd_open(self.process.pid)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._pidfd, selectors.EVENT_READ)
        for name in ("stdout", "stderr"):
            if (pipe := getattr(self.process, name)) is not None:
                self.watch(name, pipe.fileno())

    def watch(self, name: str, fd: int) -> None:
        """Collect what can be read from a descriptor, under this name."""
        os.set_blocking(fd, False)
        self._texts[fd], self._names[name] = b"", fd
        self._selector.register(fd, selectors.EVENT_READ)

    def deafen(self, name: str) -> None:
        """Read no more of it, but keep it open, as a pager does that waits for a key."""
        self._selector.unregister(self._names[name])

    def close(self, name: str) -> None:
        """Close it, as ``head`` does when it has enough."""
        self.deafen(name)
        getattr(self.process, name).close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self._selector.close()
        os.close(self._pidfd)
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def text(self, name: str) -> str:
        """What was read so far."""
        return self._texts[self._names[name]].decode()

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return self.text("stdout")

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return self.text("stderr")

    def _read(self, fd: int) -> bool:
        try:
            chunk = os.read(fd, 1 << 20)
        except BlockingIOError:
            return False
        except OSError:  # EIO: nobody has the other end of the terminal any more
            chunk = b""
        self._texts[fd] += chunk
        if not chunk and fd in self._selector.get_map():
            self._selector.unregister(fd)
        return bool(chunk)

    def wait_for(self, found: Callable[[], T | None], what: str) -> T:
        """Read until something is found."""
        while (value := found()) is None:
            ready = [key.fd for key, _ in self._selector.select(PATIENCE_S)]
            assert ready, f"no {what} in {PATIENCE_S} s: {self._texts}"
            grew = [self._read(fd) for fd in ready if fd in self._texts]
            assert any(grew) or found() or self._pidfd not in ready, f"no {what}: {self._texts}"
        return value

    def line(self, pattern: str, name: str = "stderr") -> re.Match[str]:
        """Wait for a line in which the pattern is found."""
        wanted = re.compile(rf"^.*?{pattern}.*\n", re.MULTILINE)
        return self.wait_for(lambda: wanted.search(self.text(name)), f"line {pattern!r}")

    def events(self) -> list[dict[str, Any]]:
        """The events on standard output so far."""
        return [json.loads(line) for line in self.out.splitlines(keepends=True) if line[-1] == "\n"]

    def event(self, kind: str) -> dict[str, Any]:
        """Wait for an event."""
        return self.wait_for(
            lambda: next((event for event in self.events() if event["event"] == kind), None), kind
        )

    def signal(self, signum: int) -> None:
        """Send it a signal."""
        self.process.send_signal(signum)

    def end(self) -> int:
        """Wait for its end, read what there is, and give its exit status."""
        while self._pidfd not in (ready := [k.fd for k, _ in self._selector.select(PATIENCE_S)]):
            assert ready, f"no end in {PATIENCE_S} s: {self._texts}"
            for fd in ready:
                self._read(fd)
        for fd in self._texts:
            # Never to the end: something that was left might hold it.
            while fd in self._selector.get_map() and self._read(fd):
                pass
        return self.process.wait()

    def interrupt(self) -> int:
        """Press Ctrl-C, and give the exit status."""
        self.signal(signal.SIGINT)
        return self.end()


def run(*words: str, **options: Any) -> Run:
    """Run ``trio-lifecycle run`` with these words."""
    return Run("run", *words, **options)


def finish(*words: str, **options: Any) -> Run:
    """Run ``trio-lifecycle run`` with these words to its end."""
    with run(*words, **options) as running:
        running.end()
    return running


def call(*words: str, **options: Any) -> Run:
    """Run ``trio-lifecycle`` with these words, the command's among them, to its end."""
    with Run(*words, **options) as running:
        running.end()
    return running


class Answer(NamedTuple):
    """What became of words: the exit status, and what was written."""

    status: int
    out: str
    err: str


Ask = Callable[..., Answer]


@pytest.fixture
def handlers() -> Iterator[None]:
    """Heed signals as before: from the end of a command on they are ignored."""
    signums = {signal.SIGINT, *SIGNALS}
    before = {signum: signal.getsignal(signum) for signum in signums}
    yield
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def ask(handlers: None, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Say words to the command line in this process: such as start nothing, and only are answered.

    A process would need half a second for each.
    """

    def ask(*words: str) -> Answer:
        status = run_app(words)
        return Answer(status, *capfd.readouterr())

    return ask


def ensured(*words: str, **options: Any) -> dict[str, Any]:
    """Have a daemon running that is not owned; give what is said of it.

    Not measured: tests begin with it that are about something else.
    """
    env = {**options.pop("env", os.environ), **UNMEASURED}
    done = call("ensure", "--json", *words, env=env, **options)
    assert 0 == done.process.returncode, done.err
    facts = done.events()[-1]
    assert "ensured" == facts["event"]
    return facts


@pytest.fixture
def all_stopped() -> Iterator[None]:
    """Kill what the test has left running, of the registry that is its own."""
    yield
    path = registry_path(os.environ)
    if path.exists():
        with closing(SQLiteRegistry(path)) as registry:
            trio.run(_kill_all, registry)


async def _kill_all(registry: SQLiteRegistry) -> None:
    for record in await registry.daemons():
        with suppress(DaemonNotRunningError):
            daemon = await attach(record.name, registry)
            await daemon.kill()


def record_elsewhere(name: str, **changes: Any) -> None:
    """Record a daemon of another machine, of which nothing can be told from here."""
    facts: dict[str, Any] = {
        "name": name,
        "instance_id": "0" * 32,
        "host": "elsewhere",
        "boot_id": "another",
        "pid": 4711,
        "start_time": 1,
        "started_at": time.time(),
        "heartbeat_at": time.time(),
    }

    async def put(registry: SQLiteRegistry) -> None:
        await registry.put(DaemonRecord(**facts | changes))

    with closing(SQLiteRegistry(registry_path(os.environ))) as registry:
        trio.run(put, registry)


def change_record(name: str, **changes: Any) -> None:
    """Write something else into a record."""

    async def change(registry: SQLiteRegistry) -> None:
        record = await registry.get(name)
        assert record is not None
        await registry.put(evolve(record, **changes))

    with closing(SQLiteRegistry(registry_path(os.environ))) as registry:
        trio.run(change, registry)


def forget(name: str) -> None:
    """Remove a record."""

    async def remove(registry: SQLiteRegistry) -> None:
        record = await registry.get(name)
        assert record is not None
        await registry.remove(record)

    with closing(SQLiteRegistry(registry_path(os.environ))) as registry:
        trio.run(remove, registry)


# The terminal becomes that of the new session, so that Ctrl-C is a signal there.
_AT_HOME = """
import fcntl, sys, termios
from trio_lifecycle.__main__ import main
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.exit(main())
"""


@contextmanager
def on_terminal(*words: str, **env: str) -> Iterator[Run]:
    """Run on a terminal of 80 columns that is the program's own; its text is "terminal"."""
    ours, theirs = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
    usual = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLUMNS": "80"}
    try:
        with Run(
            *words,
            command=(sys.executable, "-c", _AT_HOME),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            env={**clean, **usual, **env},
        ) as running:
            running.watch("terminal", ours)
            yield running
    finally:
        os.close(ours)
        os.close(theirs)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
            return file.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False
