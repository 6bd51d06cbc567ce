"""What is left below a process: found in /proc, counted by waitpid(2), ended by SIGKILL."""

import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.chaos.daemons import kind_of

PROC: Final = Path("/proc")
PR_SET_CHILD_SUBREAPER: Final = 36  # <linux/prctl.h>

# What the command line of the reaper's two processes holds.
REAPER: Final = "spawner/_reaper.py"

_SHOWN_CHARS: Final = 100
_LOOK_EVERY_S: Final = 0.002
_LOOK_FOR_HOPPERS_S: Final = 1.0


@frozen
class Seen:
    """A process, as it was seen.

    Attributes:
        pid: Its number.
        started: When it started, in ticks; tells it from a later one with that number.
        parent: Its parent's number.
        state: R, S, T and so on: proc_pid_stat(5).
        words: Its command line.
    """

    pid: int
    started: int
    parent: int
    state: str
    words: tuple[str, ...]

    @property
    def dead(self) -> bool:
        """Whether it is a zombie."""
        return self.state in "ZX"

    def __str__(self) -> str:
        kind = kind_of(self.words)
        what = f"{kind}: " if kind else ""
        line = " ".join(" ".join(self.words).split()) or "no command line"
        return f"{self.pid} of {self.parent} ({what}{line[:_SHOWN_CHARS]}), {self.state}"


def become_subreaper() -> None:
    """Make this process the parent of whatever loses its own below it."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def look(pid: int) -> Seen | None:
    """Look at one process; None when it is gone."""
    try:
        # The name in parentheses may hold spaces, parentheses and any byte itself.
        text = (PROC / str(pid) / "stat").read_text(errors="replace")
        fields = text.rpartition(")")[2].split()
        words = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return None
    return Seen(pid, int(fields[19]), int(fields[1]), fields[0], tuple(words.split("\0")[:-1]))


def everything() -> Iterator[Seen]:
    """Look at all processes."""
    for name in os.listdir(PROC):  # noqa: PTH208 - quicker, and there may be many
        if name.isdecimal() and (seen := look(int(name))) is not None:
            yield seen


def descendants(pid: int) -> list[Seen]:
    """List all below a process, itself left out; zombies are not among them."""
    seen = list(everything())
    below = {pid}
    # A parent may have a higher number than its child, so once is not enough.
    while more := {one.pid for one in seen if one.parent in below} - below:
        below |= more
    return [one for one in seen if one.pid in below - {pid} and not one.dead]


def reapers(application: int) -> tuple[int, int] | None:
    """Find the outer and the inner process of an application's reaper."""
    outer = _reaper_below(application)
    inner = _reaper_below(outer) if outer else None
    return (outer, inner) if outer and inner else None


def _reaper_below(pid: int) -> int | None:
    for child in children(pid):
        seen = look(child)
        if seen and not seen.dead and any(REAPER in word for word in seen.words):
            return child
    return None


def children(pid: int) -> list[int]:
    """List the children of a process that has one thread, or whose first one started them."""
    try:
        text = (PROC / str(pid) / "task" / str(pid) / "children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look again and again whether something is so; False when it was not in that time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True


class Offspring:
    """All that a subreaper has below it. That waitpid(2) says ECHILD is the proof of its end.

    Attributes:
        statuses: How those ended that were reaped here, as ``subprocess`` counts.
    """

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}

    def gone(self) -> bool:
        """Reap what has ended, and say whether nothing else is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if not pid:
                return False
            self.statuses[pid] = os.waitstatus_to_exitcode(status)

    def ended(self, pid: int) -> bool:
        """Say whether a child has ended."""
        self.gone()
        return pid in self.statuses

    def end(self, seconds: float) -> bool:
        """Kill all; what loses its parent by that comes here, and is next."""
        deadline = time.monotonic() + seconds
        while not self.gone():
            if time.monotonic() > deadline:
                return False
            # At once and without a pause: what hops has its number for a millisecond only. The
            # number of an unreaped child is nobody else's.
            for pid in children(os.getpid()):
                os.kill(pid, signal.SIGKILL)
        return True

    def left(self) -> list[Seen]:
        """List what lives; what hops is seen rarely, so it is looked for longer."""
        deadline = time.monotonic() + _LOOK_FOR_HOPPERS_S
        while time.monotonic() < deadline:
            found = descendants(os.getpid())
            if found := found or [s for pid in children(os.getpid()) if (s := look(pid))]:
                return found
        return []
