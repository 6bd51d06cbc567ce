"""What /proc says about processes, for the hygiene of the tests."""

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass

MARKER = "TRIO_LIFECYCLE_TEST"
PROC = "/proc"

_MARK = re.compile(rb"(?:\A|\0)%s=([^\0]*)" % MARKER.encode())


@dataclass(frozen=True)
class Process:
    """One process; its start time tells it from a later one with the same number."""

    pid: int
    started: int
    parent: int
    zombie: bool
    mark: str

    def __str__(self) -> str:
        words = _read(self.pid, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        what = "zombie child" if self.zombie else "process"
        return f"{what} {self.pid} ({words or 'no command line'})"

    @property
    def ours(self) -> bool:
        """Whether the process that runs the tests is its parent."""
        return self.parent == os.getpid()

    @property
    def identity(self) -> tuple[int, int]:
        """What no other process has, ever."""
        return self.pid, self.started


def processes() -> dict[int, Process]:
    """All processes but this one, by their numbers."""
    found = map(_look, _pids())
    return {process.pid: process for process in found if process is not None}


def end(process: Process) -> None:
    """Kill a process that the tests have started: marked, or a child of this one."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # Asked again behind the pidfd: from here on the number can't mean another process.
        now = _look(process.pid)
        if now is not None and now.identity == process.identity and (now.mark or now.ours):
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


def _pids() -> Iterator[int]:
    # Before and after every test: by way of Path this and _read() would take twice as long.
    for name in os.listdir(PROC):  # noqa: PTH208
        if name.isdecimal() and int(name) != os.getpid():
            yield int(name)


def _look(pid: int) -> Process | None:
    # The name in parentheses may hold spaces and parentheses itself: proc_pid_stat(5).
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    if not fields:
        return None
    # A zombie's environment reads as empty, so a zombie is never marked.
    found = _MARK.search(_read(pid, "environ"))
    return Process(
        pid=pid,
        started=int(fields[19]),
        parent=int(fields[1]),
        zombie=fields[0] in (b"Z", b"X"),
        mark=found[1].decode(errors="replace") if found else "",
    )


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"{PROC}/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123
            return file.readall()
    except OSError:  # gone meanwhile, or another user's
        return b""
