"""After each test: no process, descriptor, thread or listening port that was not there before.

Every test runs with TRIO_LIFECYCLE_TEST=<a word of its own> in the environment, which all that it
starts inherits. What is left after a short grace is killed, so that the next test is not disturbed,
and fails the test.
"""

import gc
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.plugins._processes import Process, children, end, processes, reap
from trio_lifecycle.spawner._reapers import idle_reapers

MARKER = "TRIO_LIFECYCLE_TEST"
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
class Surroundings:
    """What there was before a test."""

    token: bytes
    children: frozenset[tuple[int, int]]
    descriptors: frozenset[Descriptor] = field(default_factory=lambda: frozenset(_descriptors()))
    threads: frozenset[threading.Thread] = field(
        default_factory=lambda: frozenset(threading.enumerate())
    )

    def strays(self) -> list[Process]:
        """Marked processes that run, and new children of this one, zombies among them."""
        return [
            process
            for process in processes(self.token)
            if process.marked
            or (process.ours and (process.pid, process.started) not in self.children)
            if not _is_kept(process)
        ]

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
            *map(str, self.strays()),
            *map(str, self.new_descriptors()),
            *(f"thread {thread.name!r}" for thread in self.new_threads()),
        ]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting `hygiene_grace`."""
    parser.addini(
        "hygiene_grace", "seconds in which what a test left may go", default=GRACE_SECONDS
    )


@pytest.fixture(autouse=True)
def hygiene(pytestconfig: pytest.Config) -> Iterator[None]:
    """Fail the test if something of it is left when it is over."""
    grace = float(pytestconfig.getini("hygiene_grace"))
    outer = os.environ.get(MARKER)
    word = f"{os.getpid()}-{uuid.uuid4().hex}"
    # A test that runs pytest keeps its own word in front, and so its claim on everything below.
    os.environ[MARKER] = f"{outer}/{word}" if outer else word
    before = Surroundings(word.encode(), children())
    try:
        yield
    finally:
        if outer is None:
            os.environ.pop(MARKER, None)
        else:
            os.environ[MARKER] = outer
    left = _wait_until_empty(before.left, grace)
    if left:
        _clear(before, grace)
        pytest.fail("left behind by the test:\n  " + "\n  ".join(left), pytrace=False)


def _wait_until_empty(look: Callable[[], list[str]], grace: float) -> list[str]:
    deadline = time.monotonic() + grace
    left = look()
    while left and time.monotonic() < deadline:
        gc.collect()  # a cycle may hold the last reference to a socket
        time.sleep(0.02)
        left = look()
    return left


def _clear(before: Surroundings, grace: float) -> None:
    def kill_and_look() -> list[str]:
        strays = before.strays()
        for process in strays:
            end(process, before.token)
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
