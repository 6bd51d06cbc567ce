"""What /proc says about processes, for the hygiene of the tests."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """One process; its start time tells it from a later one with the same number."""

    pid: int
    started: int
    parent: int
    zombie: bool
    marked: bool

    def __str__(self) -> str:
        words = _read(self.pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        what = "zombie child" if self.zombie else "process"
        return f"{what} {self.pid} ({words or 'no command line'})"

    @property
    def ours(self) -> bool:
        """Whether the process that runs the tests is its parent."""
        return self.parent == os.getpid()


def processes(token: bytes) -> Iterator[Process]:
    """All processes but this one; those with the token in their environment are marked."""
    for entry in PROC.iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            process = _look(int(entry.name), token)
            if process is not None:
                yield process


def end(process: Process, token: bytes) -> None:
    """Kill a process that is a test's own: marked by it, or a child of this one."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Asked again behind the pidfd: from here on the number can't mean another process.
        now = _look(process.pid, token)
        if now is not None and now.started == process.started and (now.marked or now.ours):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def reap(process: Process) -> None:
    """Take the exit status of a child that nobody waited for."""
    try:
        os.waitpid(process.pid, os.WNOHANG)
    except ChildProcessError:
        pass


def _look(pid: int, token: bytes) -> Process | None:
    # The name in parentheses may hold spaces and parentheses itself: proc_pid_stat(5).
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return None
    # A zombie's environment reads as empty, so a zombie is never marked.
    marked = token in _read(pid, "environ")
    return Process(
        pid=pid,
        started=int(fields[19]),
        parent=int(fields[1]),
        zombie=fields[0] in (b"Z", b"X"),
        marked=marked,
    )


def _read(pid: int, name: str) -> bytes:
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:  # gone meanwhile, or another user's
        return b""
