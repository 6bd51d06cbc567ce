"""What the queen knows of each hive."""

from typing import Any

import trio
from attrs import Factory, define

from trio_lifecycle import DaemonHandle
from trio_lifecycle.demo._hive_registry import HiveState


@define(eq=False)
class Hive:
    """A hive, as far as the queen knows.

    Attributes:
        host: Its machine.
        state: Whether it answers.
        handle: Its process, if it was seen.
        facts: What it said of itself last.
        heard_at: When that was: seconds since the epoch.
        leaving: Whether it was asked to go.
        turn: Held while it is started or stopped, so that none is stopped half started.
        look: Held while it is asked how it is, so that the last answer is the newest.
        told: Set when all that it has told of its workers was heard; None if nobody listens.
    """

    host: str
    state: HiveState = "unknown"
    handle: DaemonHandle | None = None
    facts: dict[str, Any] = Factory(dict)
    heard_at: float = 0.0
    leaving: bool = False
    turn: trio.Lock = Factory(trio.Lock)
    look: trio.Lock = Factory(trio.Lock)
    told: trio.Event | None = None

    @property
    def models(self) -> set[str]:
        """What it has loaded, or is loading."""
        return {each["model"] for each in self.facts.get("workers", ()) if each["state"] != "gone"}

    def as_dict(self) -> dict[str, Any]:
        """Give what others may know of it."""
        return {
            "host": self.host,
            "state": self.state,
            "heard_at": self.heard_at,
            "pid": None if self.handle is None else self.handle.pid,
            "url": None if self.handle is None else self.handle.url,
            **{key: self.facts.get(key) for key in ("memory_mib", "workers", "models")},
        }
