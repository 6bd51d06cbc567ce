"""Applications with a reaper: their daemons of every manner, and what is left of them."""

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
import logging, subprocess, threading
from pathlib import Path
from tests.reapers import DAEMONS, children_of
from trio_lifecycle.spawner._reaper_link import ReaperLink

# Another program on this machine may have left something, of which each program says so once.
logging.getLogger("trio_lifecycle").setLevel(logging.ERROR)

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
BEGINNING = """
import os, signal, sys, time

def live():
    print("ready")
    while True:
        time.sleep(1000)

def note(word):
    with open(os.environ["NOTES"], "a") as file:
        file.write(word + "\\n")

def note_sigterm():
    signal.signal(signal.SIGTERM, lambda *_: note("SIGTERM"))
"""

SETSID = """
if os.fork() == 0:
    os.setsid()
    live()
time.sleep(1000)
"""

DOUBLE_FORK = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        live()
    os._exit(0)
time.sleep(1000)
"""

# Its mark of the test stays, so that it can be found; the package's goes.
NO_ENVIRONMENT = f"""
if os.fork() == 0:
    os.setsid()
    kept = {{"{MARKER}": os.environ["{MARKER}"]}}
    os.execve("/bin/sh", ["sh", "-c", "echo ready; sleep 1000 & wait"], kept)
time.sleep(1000)
"""

STOPPED = """
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
os.waitpid(pid, os.WUNTRACED)
live()
"""

TIDY = """
def tidy(*_):
    note("asked")
    os._exit(0)
signal.signal(signal.SIGINT, tidy)
note_sigterm()
live()
"""

UNASKED = """
for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
    signal.signal(signum, lambda *_: note("asked"))
live()
"""

Rungs = tuple[tuple[int, float], ...]
QUICK: Rungs = ((signal.SIGTERM, 0.3),)

# Manners of daemons: what they do, and their ladders.
DAEMONS: dict[str, tuple[str, Rungs]] = {
    "plain": (BEGINNING + "live()", QUICK),
    "setsid": (BEGINNING + SETSID, QUICK),
    "double fork": (BEGINNING + DOUBLE_FORK, QUICK),
    "no environment": (BEGINNING + NO_ENVIRONMENT, QUICK),
    "deaf": (BEGINNING + "signal.signal(signal.SIGTERM, signal.SIG_IGN); live()", QUICK),
    "stopped": (BEGINNING + STOPPED, QUICK),
    "tidy": (BEGINNING + TIDY, ((signal.SIGINT, 5.0),)),
    "unasked": (BEGINNING + UNASKED, ()),
    "counting": (BEGINNING + "note_sigterm(); live()", ((signal.SIGTERM, 0.5),)),
    "patient": (BEGINNING + "note_sigterm(); live()", ((signal.SIGTERM, 3e6),)),
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
                fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
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
