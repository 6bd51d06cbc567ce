"""What the reaper asks of the kernel: processes, their children, control groups.

A part of the program in ``_reaper.py``, so it imports nothing of the package. It is sent to other
machines, too (``_ssh/guard.py``), so what Python 3.7 does not know is not used.
"""

from __future__ import annotations

import os
import select
import time

# The module ``typing`` would be a tenth of the memory.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The modules ``signal`` and ``ctypes`` cost more to import than all the rest.
_signal: Any = __import__("_signal")
_ctypes: Any = __import__("_ctypes")

PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>
# What the reaper calls itself, in lists of processes and for its like.
REAPER = b"trio-reaper"
# poll(2) takes at most 24.8 days.
LONGEST_POLL_S = 86_400.0
TICKS = os.sysconf("SC_CLK_TCK")
# What the processor raises is not to be ignored, nor can two be.
HEEDED = {
    *(_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCONT, _signal.SIGCHLD, _signal.SIGSEGV),
    *(_signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP, _signal.SIGSYS),
}


class Seen:
    """A process as it was when it was looked at: proc_pid_stat(5)."""

    __slots__ = ("dead", "group", "is_reaper", "pid", "session", "start")

    def __init__(self, pid: int, line: bytes) -> None:
        name, fields = line[: line.rindex(b")")], line[line.rindex(b")") + 2 :].split()
        self.pid = pid
        self.is_reaper = name.endswith(REAPER)
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start = int(fields[19])
        self.dead = fields[0] in (b"Z", b"X", b"x") and int(fields[17]) <= 1


def read(path: str) -> bytes:
    """Read a file of /proc; nothing when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        text = part = os.read(fd, 65536)
        while part:
            part = os.read(fd, 65536)
            text += part
        return text
    except OSError:  # it ended meanwhile
        return b""
    finally:
        os.close(fd)


def look(pid: int) -> Seen | None:
    """Look at a process; None when there is none, or only a zombie."""
    line = read(f"/proc/{pid}/stat")
    seen = Seen(pid, line) if line else None
    return None if seen is None or seen.dead else seen


def children(pid: int) -> list[int]:
    """List the children of a process, those of each of its threads."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - no pathlib here
    except OSError:
        return []
    lists = [read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    return [int(child) for some in lists for child in some.split()]


def own_children() -> list[int]:
    """List the children of this process, which has one thread."""
    return [*map(int, read(OWN_CHILDREN).split())]


def children_by_scan(pid: int) -> list[int]:
    """Do the same where the kernel keeps no such list (CONFIG_PROC_CHILDREN)."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib here
        line = read(f"/proc/{name}/stat") if name.isdecimal() else b""
        if line and int(line[line.rindex(b")") + 2 :].split()[1]) == pid:
            found.append(int(name))
    return found


OWN_CHILDREN = "/proc/thread-self/children"
if not os.path.exists(OWN_CHILDREN):  # noqa: PTH110 - no pathlib here
    children = children_by_scan

    def own_children() -> list[int]:
        """List the children of this process."""
        return children_by_scan(os.getpid())


def ticks_now() -> int:
    """Give the time in which start times are counted."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


def wait_for(poll: select.poll, wake: int, seconds: float) -> None:
    """Wait until a child has ended, at most so long."""
    if poll.poll(min(max(0.0, seconds), LONGEST_POLL_S) * 1000):
        os.read(wake, 4096)


def write(path: str, text: bytes) -> None:
    """Write to a control file, if it is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, text)
    except OSError:
        pass
    finally:
        os.close(fd)


def members(cgroup: str | None) -> list[int]:
    """List the processes of a control group and of those below it."""
    if cgroup is None:
        return []
    found = [int(pid) for pid in read(f"{cgroup}/cgroup.procs").split()]
    for path in below(cgroup):
        found += members(path)
    return found


def below(cgroup: str) -> list[str]:
    """List the control groups that a daemon made in its own."""
    try:
        return [entry.path for entry in os.scandir(cgroup) if entry.is_dir()]
    except OSError:
        return []


def is_populated(cgroup: str | None) -> bool:
    """Say whether a control group has processes: cgroup.events of cgroup v2."""
    return cgroup is not None and b"populated 1" in read(f"{cgroup}/cgroup.events")


def remove(cgroup: str) -> None:
    """Remove an empty control group with those that the daemon made below it."""
    for path in below(cgroup):
        remove(path)
    try:
        os.rmdir(cgroup)  # noqa: PTH106 - no pathlib here
    except OSError:
        pass


def ignore_signals() -> None:
    """Ignore what would end this process; what it starts has to be given the defaults."""
    for signum in set(range(1, _signal.NSIG)) - HEEDED:
        try:
            _signal.signal(signum, _signal.SIG_IGN)
        except (OSError, ValueError):  # what the C library keeps for itself
            pass


def be_subreaper() -> None:
    """Become the parent of all orphans below."""
    function = _ctypes.dlsym(_ctypes.dlopen(None, os.RTLD_NOW), "prctl")
    if _ctypes.call_cdeclfunction(function, (PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)):
        raise OSError("this kernel knows no child subreapers")


def hear_of_children() -> int:
    """Have a descriptor become readable whenever a child has ended."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    _signal.signal(_signal.SIGCHLD, lambda signum, frame: None)
    _signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    return read_end
