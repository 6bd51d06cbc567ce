"""Processes to look at: living ones, zombies, those that are gone or only thought of."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol

import pytest

from trio_lifecycle import _proc, _procfs
from trio_lifecycle._proc import read_stat
from trio_lifecycle._stat import Stat

ME = os.getpid()

WAIT = "import sys; print(1, flush=True); sys.stdin.read()"


class Start(Protocol):
    """Starts a Python program; it is killed when the test is over."""

    def __call__(
        self, code: str, *arguments: str, start_new_session: bool = False
    ) -> "subprocess.Popen[str]": ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that are killed when the test is over."""
    with ExitStack() as stack:

        def start(
            code: str, *arguments: str, start_new_session: bool = False
        ) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=start_new_session,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def say(process: "subprocess.Popen[str]") -> list[int]:
    """The numbers on the next line that a program writes."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def stat_of(pid: int) -> Stat:
    """What the kernel says of a process that is there."""
    stat = read_stat(pid)
    assert stat is not None
    return stat


@contextmanager
def zombie() -> Iterator[int]:
    """A child that has ended and that nobody has waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield pid
    finally:
        os.waitpid(pid, 0)


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended and been waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | OSError]:
    """What /proc says, file by file; files that are not named here are not there."""
    contents: dict[str, bytes | OSError] = {}

    def read(path: str) -> bytes:
        content = contents.get(path, FileNotFoundError(errno.ENOENT, "not there", path))
        if isinstance(content, OSError):
            raise content
        return content

    monkeypatch.setattr(_proc, "read", read)
    monkeypatch.setattr(_procfs, "read", read)
    return contents


def process_of(
    pid: int, parent: int = 1, group: int = 1, session: int = 1, state: str = "S", started: int = 1
) -> Stat:
    """A process that is only thought of."""
    return Stat(pid, parent, group, session, state, started, "x")


def reborn(stat: Stat, start_time: int | None = None) -> Stat:
    """The same number, from another life."""
    other = stat.start_time - 1 if start_time is None else start_time
    return Stat(stat.pid, stat.ppid, stat.group, stat.session, "S", other, stat.command)
