"""The daemons in a guard's care, and its way to signal where there are no pidfds.

A part of the program in ``guard.py``: for Python from 3.7 on, with nothing of the package but other
parts.
"""

from __future__ import annotations

import os

from trio_lifecycle._ssh.guard_child import encode
from trio_lifecycle.spawner._family import Daemon, Family
from trio_lifecycle.spawner._kernel import look

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Python has it from 3.9 on, Linux from 5.3 on.
HAS_PIDFD = False
if hasattr(os, "pidfd_open"):
    try:
        os.close(os.pidfd_open(os.getpid()))
        HAS_PIDFD = True
    except OSError:
        pass


class Kin(Family):
    """The family of a guard, also where there are no pidfds."""

    def send(self, seen: Any, signum: int) -> None:
        """Signal exactly this process; its number may be another's only within a moment."""
        if HAS_PIDFD:
            super().send(seen, signum)
            return
        now = look(seen.pid)
        if now is not None and now.start == seen.start:
            try:
                os.kill(seen.pid, signum)
            except OSError:
                pass


class Charge(Daemon):
    """A daemon with what the guard holds of it: its pipes, and how far its start has come."""

    __slots__ = (
        "forwards",
        "gate",
        "id",
        "is_exited",
        "is_going",
        "is_refused",
        "is_told",
        "out",
        "report",
    )

    def __init__(self, pid: int, start: int, order: dict[str, Any]) -> None:
        rungs = tuple((int(signum), float(seconds)) for signum, seconds in order["rungs"])
        super().__init__(pid, start, rungs, encode(order["mark"]), None)
        self.id = order["id"]
        # Descriptors, -1 once they are closed: its output, what it says of its start, its gate.
        self.out = self.report = self.gate = -1
        self.forwards: dict[int, int] = {}
        self.is_told = self.is_refused = self.is_exited = False
        # Nothing but exec itself comes any more before the end of its report.
        self.is_going = not order["gated"]

    @property
    def pipes(self) -> list[int]:
        """What it writes to us, as long as it is open."""
        return [fd for fd in (self.out, *self.forwards.values()) if fd >= 0]
