"""After each test: no process, descriptor, thread or listening port that was not there before.

Every test runs with a mark in the environment, TRIO_LIFECYCLE_TEST=<word of the whole run>/<word of
the test>, which all that it starts inherits. What bears the word of the run alone was started by
what is older than the test, such as an SSH server of its file, or with an environment that somebody
has kept; it is the test's if it was not there before. What is left after a short grace is killed,
so that the next test is not disturbed, and fails the test. After each file there is a look at what
its fixtures have left.
"""

import gc
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.plugins._processes import MARKER, Process, end, processes, reap
from trio_lifecycle.spawner._reapers import idle_reapers

# A killed process needs a moment until it is gone from /proc; on a loaded machine, a long one.
GRACE_SECONDS = "2.0"

# Trio keeps idle worker threads for 10 s, on purpose.
KEPT_THREADS = re.compile(r"Trio thread \d+")
# epoll and eventfd belong to event loops that the garbage collector closes; files below
# these names belong to pytest, Hypothesis and coverage.
KEPT_DESCRIPTORS = re.compile(
    r"anon_inode:\[(eventpoll|eventfd)\]|/dev/.*|.*/(\.hypothesis|\.pytest_cache)(/.*)?|.*coverage.*"
)
# multiprocessing starts it once and keeps it for the life of the program; and so do we a reaper,
# which is without daemons then, for those would bear the test's marker.
KEPT_PROCESSES = re.compile(
    rb"multiprocessing\.(resource_tracker|forkserver)|trio_lifecycle/spawner/_reaper\.py"
)


@dataclass(frozen=True)
class Descriptor:
    """An open descriptor, and what the kernel says it leads to."""

    number: int
    target: str

    def __str__(self) -> str:
        inode = self.target.removeprefix("socket:[").removesuffix("]")
        port = _listening_ports().get(inode)
        what = self.target if port is None else f"{self.target}, listening on TCP port {port}"
        return f"descriptor {self.number} ({what})"


@dataclass(frozen=True)
class Household:
    """The processes of the tests, and which of them were there before.

    Attributes:
        run: The word of all that these tests start.
        word: That of what is looked at: a test, or the run.
        before: What bore the word of the run, or was a child of this process.
    """

    run: str
    word: str
    before: frozenset[tuple[int, int]]

    @classmethod
    def now(cls, run: str, word: str) -> "Household":
        """Take note of what is there."""
        found = processes().values()
        return cls(run, word, frozenset(each.identity for each in found if _is_in(run, each)))

    def strays(self) -> list[Process]:
        """What came since, zombies of this process among them."""
        there = processes()
        return [
            process
            for process in there.values()
            if _is_in(self.run, process) and process.identity not in self.before
            if process.ours or self.word in process.mark or not self._has_a_home(process, there)
            if not _is_kept(process)
        ]

    def _has_a_home(self, process: Process, there: Mapping[int, Process]) -> bool:
        """Say whether it is the matter of one that was there before, as a server's worker is."""
        while (parent := there.get(process.parent)) is not None:
            if parent.identity in self.before and not _is_kept(parent):
                return True
            process = parent
        return False


def _is_in(run: str, process: Process) -> bool:
    return process.ours or run in process.mark


@dataclass(frozen=True)
class Surroundings:
    """What there was before a test."""

    household: Household
    descriptors: frozenset[Descriptor] = field(default_factory=lambda: frozenset(_descriptors()))
    threads: frozenset[threading.Thread] = field(
        default_factory=lambda: frozenset(threading.enumerate())
    )

    def new_descriptors(self) -> list[Descriptor]:
        """Descriptors that were not open before."""
        kept = {number for link in idle_reapers() for number in link.descriptors}
        return [
            descriptor
            for descriptor in _descriptors()
            if descriptor not in self.descriptors and descriptor.number not in kept
        ]

    def new_threads(self) -> list[threading.Thread]:
        """Threads that did not run before."""
        return [
            thread
            for thread in threading.enumerate()
            if thread not in self.threads and not KEPT_THREADS.match(thread.name)
        ]

    def left(self) -> list[str]:
        """All that is left of the test, each in words."""
        return [
            *map(str, self.household.strays()),
            *map(str, self.new_descriptors()),
            *(f"thread {thread.name!r}" for thread in self.new_threads()),
        ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `hygiene_grace`."""
    parser.addini(
        "hygiene_grace", "seconds in which what a test left may go", default=GRACE_SECONDS
    )


_run = pytest.StashKey[str]()
_outer = pytest.StashKey[str | None]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Mark all that is started from here on, by files that are collected, too."""
    config.stash[_outer] = os.environ.get(MARKER)
    config.stash[_run] = _enter_word()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Mark no more."""
    _set_mark(config.stash[_outer])


@pytest.fixture(scope="module", autouse=True)
def hygiene_of_file(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail the last test of a file if a process is left when all is over."""
    run = pytestconfig.stash[_run]
    household = Household.now(run, run)
    yield
    _insist(pytestconfig, household, lambda: [*map(str, household.strays())], "file")


@pytest.fixture(autouse=True)
def hygiene(pytestconfig: pytest.Config, hygiene_of_file: None) -> Iterator[None]:
    """Fail the test if something of it is left when it is over."""
    outer = os.environ.get(MARKER)
    word = _enter_word()
    before = Surroundings(Household.now(pytestconfig.stash[_run], word))
    try:
        yield
    finally:
        _set_mark(outer)
    _insist(pytestconfig, before.household, before.left, "test")


def _enter_word() -> str:
    """Have a word more in the mark; who runs pytest keeps his own, and so his claim on it all."""
    outer, word = os.environ.get(MARKER), f"{os.getpid()}-{uuid.uuid4().hex}"
    os.environ[MARKER] = f"{outer}/{word}" if outer else word
    return word


def _set_mark(mark: str | None) -> None:
    if mark is None:
        os.environ.pop(MARKER, None)
    else:
        os.environ[MARKER] = mark


def _insist(
    config: pytest.Config, household: Household, look: Callable[[], list[str]], whose: str
) -> None:
    grace = float(config.getini("hygiene_grace"))
    left = _wait_until_empty(look, grace)
    if left:
        _clear(household, grace)
        pytest.fail(f"left behind by the {whose}:\n  " + "\n  ".join(left), pytrace=False)


def _wait_until_empty(look: Callable[[], list[str]], grace: float) -> list[str]:
    deadline = time.monotonic() + grace
    left = look()
    while left and time.monotonic() < deadline:
        gc.collect()  # a cycle may hold the last reference to a socket
        time.sleep(0.02)
        left = look()
    return left


def _clear(household: Household, grace: float) -> None:
    def kill_and_look() -> list[str]:
        strays = household.strays()
        for process in strays:
            end(process)
            if process.ours:
                reap(process)
        return [str(process) for process in strays]

    _wait_until_empty(kill_and_look, grace)


def _is_kept(process: Process) -> bool:
    try:
        return bool(KEPT_PROCESSES.search(Path(f"/proc/{process.pid}/cmdline").read_bytes()))
    except OSError:
        return False


def _descriptors() -> Iterator[Descriptor]:
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - a Path would keep it open longer
        try:
            target = os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - targets are no paths
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if not KEPT_DESCRIPTORS.fullmatch(target):
            yield Descriptor(int(number), target)


def _listening_ports() -> dict[str, int]:
    """TCP port by socket inode, of all sockets that listen: proc_pid_net(5)."""
    ports = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for columns in map(str.split, lines):
            if columns[3] == "0A":
                ports[columns[9]] = int(columns[1].rpartition(":")[2], 16)
    return ports
