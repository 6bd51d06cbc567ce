"""Applications with a reaper: daemons of every manner, what is left of them, who their reaper is."""

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support import PATIENCE_S, App, app, lives

# Looked for in the environment of processes, and at the end of the names of daemons' own files.
MARKER = "TRIO_LIFECYCLE_REAPER_TEST"

# What applications begin with; ``reaper()`` gives the reaper of the present Trio run.
HOUSE = """
import ctypes, subprocess, threading
from pathlib import Path
from tests.reapers import DAEMONS, children_of
from trio_lifecycle.spawner._reaper_link import ReaperLink

def reaper():
    return [link for link in ReaperLink.all() if link.lost is None][-1]

def halves():
    return reaper().outer, reaper().inner

def mine():
    print("reaper", *halves())

async def main():
    async with trio.open_nursery() as nursery:
        for manner in sys.argv[1:]:
            await nursery.start(hold, manner)
        mine()
        await trio.sleep_forever()

async def hold(manner, observer=None, task_status=trio.TASK_STATUS_IGNORED):
    code, ladder = DAEMONS[manner]
    heard = Heard()
    config = python_daemon(
        code, name=manner, stop_ladder=StopLadder(*ladder), output=Output(to=heard)
    )
    async with DaemonLifecycle(config, observer=observer).running() as daemon:
        await heard.line("ready")
        task_status.started(daemon)
        await trio.sleep_forever()
"""

# What daemons begin with.
MARK = """
import os, signal, sys, time
def live():
    while True:
        time.sleep(1000)
def note(word):
    with open(os.environ["NOTES"], "a") as file:
        file.write(word + "\\n")
"""
TERM = ((signal.SIGTERM, 0.3),)

# Manners of daemons: what they do, and their ladders.
DAEMONS: dict[str, tuple[str, tuple[tuple[int, float], ...]]] = {
    "plain": (f"{MARK}\nprint('ready'); live()", TERM),
    "setsid": (
        f"{MARK}\nif os.fork() == 0:\n    os.setsid()\n    print('ready')\nlive()",
        TERM,
    ),
    "double fork": (
        f"{MARK}\nif os.fork() == 0:\n"
        "    os.setsid()\n    if os.fork() == 0:\n        print('ready'); live()\n    os._exit(0)\n"
        "live()",
        TERM,
    ),
    # Its mark of the test stays, so that it can be found; the package's goes.
    "no environment": (
        f"{MARK}\nif os.fork() == 0:\n    os.setsid()\n"
        f"    kept = {{'{MARKER}': os.environ['{MARKER}']}}\n"
        "    os.execve('/bin/sh', ['sh', '-c', 'echo ready; sleep 1000 & wait'], kept)\n"
        "live()",
        TERM,
    ),
    "deaf": (
        f"{MARK}\nsignal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready'); live()",
        TERM,
    ),
    "stopped": (
        f"{MARK}\npid = os.fork()\nif pid:\n    os.waitpid(pid, os.WUNTRACED); print('ready')\n"
        "else:\n    os.kill(os.getpid(), signal.SIGSTOP)\nlive()",
        TERM,
    ),
    "tidy": (
        f"{MARK}\ndef tidy(*_):\n    note('asked'); os._exit(0)\n"
        "signal.signal(signal.SIGINT, tidy)\n"
        "signal.signal(signal.SIGTERM, lambda *_: note('SIGTERM'))\nprint('ready'); live()",
        ((signal.SIGINT, 5.0),),
    ),
    "unasked": (
        f"{MARK}\nfor s in (1, 2, 3, 15):\n    signal.signal(s, lambda n, _: note('asked'))\n"
        "print('ready'); live()",
        (),
    ),
    "counting": (
        f"{MARK}\nsignal.signal(signal.SIGTERM, lambda *_: note('SIGTERM'))\nprint('ready'); live()",
        ((signal.SIGTERM, 0.5),),
    ),
    "patient": (
        f"{MARK}\nsignal.signal(signal.SIGTERM, lambda *_: note('SIGTERM'))\nprint('ready'); live()",
        ((signal.SIGTERM, 3e6),),
    ),
}


class Mark:
    """A word in the environment of all processes of one test, and a file that they write to."""

    def __init__(self, notes: Path) -> None:
        self.word = uuid.uuid4().hex
        self.notes = notes
        self.env = {MARKER: self.word, "NOTES": str(notes)}

    def pids(self) -> list[int]:
        """The living processes that bear it."""
        return marked(self.word)

    def wait_until_alone(self, *spared: int) -> None:
        """Wait until only these bear it."""
        wait_until(
            lambda: set(self.pids()) <= set(spared),
            lambda: f"left: {[(pid, command_of(pid)) for pid in self.pids()]}",
        )

    def noted(self) -> list[str]:
        """What daemons have written down."""
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def end_all(self) -> None:
        """Kill all that bear it."""
        for pid in self.pids():
            if pid != os.getpid():
                kill(pid)


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[Mark]:
    """A mark of this test; what still bears it afterwards is killed."""
    mark = Mark(tmp_path / "notes")
    try:
        yield mark
    finally:
        mark.end_all()


@contextmanager
def house(code: str, mark: Mark, *args: str) -> Iterator[App]:
    """Run an application that begins with ``HOUSE``, all marked."""
    with app(HOUSE + code, *args, env=mark.env) as program:
        yield program


class Reaper:
    """The two processes of an application's reaper, held so that their numbers stay theirs."""

    def __init__(self, outer: int, inner: int) -> None:
        self.outer, self.inner = outer, inner

    @property
    def pids(self) -> tuple[int, int]:
        """Both."""
        return self.outer, self.inner

    def wait_gone(self) -> None:
        """Wait until neither lives."""
        wait_until(lambda: not any(map(lives, self.pids)), lambda: f"{self.pids} live")


@contextmanager
def held(reaper: Reaper) -> Iterator[Reaper]:
    """End both processes when the block is over, whatever they wait for."""
    with ExitStack() as stack:
        for pid in reaper.pids:
            pidfd = os.pidfd_open(pid)
            stack.callback(os.close, pidfd)
            stack.callback(_kill_behind, pidfd)
        yield reaper


def _kill_behind(pidfd: int) -> None:
    for signum in (signal.SIGKILL, signal.SIGCONT):
        try:
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            return


def reaper_of(program: App) -> Reaper:
    """Hear from an application which processes its reaper has."""
    words = program.say().split()
    assert ["reaper"] == words[:1], words
    return Reaper(int(words[1]), int(words[2]))


def children_of(pid: int) -> list[int]:
    """The children of a process, those that have ended and were not waited for included."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def marked(word: str) -> list[int]:
    """The living processes that have the marker with this word in their environment."""
    wanted = f"{MARKER}={word}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in variables and lives(int(entry.name)):
                found.append(int(entry.name))
    return found


def command_of(pid: int) -> str:
    """The end of a process's command line."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[-60:]
    except OSError:
        return "gone"


def descriptors_of(pid: int) -> dict[int, str]:
    """The descriptors of a process, and what they lead to."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = str(entry.readlink())
        except OSError:
            continue
    return found


def status_of(pid: int) -> dict[str, str]:
    """What the kernel says in a process's ``status``."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def kill(pid: int, signum: int = signal.SIGKILL) -> None:
    """Send a signal to a process that may be gone."""
    try:
        os.kill(pid, signum)
    except ProcessLookupError:
        pass


def wait_until(true: Callable[[], bool], say: Callable[[], str] = lambda: "it never was") -> None:
    """Look until something is so that no process tells."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, say()
        time.sleep(0.01)
