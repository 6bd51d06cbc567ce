"""What the queen knows of each hive."""

from collections.abc import Iterable, Mapping
from typing import Any

import trio
from attrs import Factory, define

from trio_lifecycle import DaemonHandle
from trio_lifecycle.demo._hive_registry import HiveState
from trio_lifecycle.demo.queen_lifecycle import HERE


@define(eq=False)
class Hive:
    """A hive, as far as the queen knows.

    Attributes:
        host: Its machine.
        state: Whether it answers.
        handle: Its process, if it was seen.
        facts: What it said of itself last.
        heard_at: When that was: seconds since the epoch.
        refused: Models that it could not load when it was asked last.
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
    refused: set[str] = Factory(set)
    leaving: bool = False
    turn: trio.Lock = Factory(trio.Lock)
    look: trio.Lock = Factory(trio.Lock)
    told: trio.Event | None = None

    @property
    def models(self) -> set[str]:
        """What it has loaded, or is loading."""
        return {each["model"] for each in self.facts.get("workers", ()) if each["state"] != "gone"}

    @property
    def can_load(self) -> set[str]:
        """Which models are on its machine."""
        return set(self.facts.get("models", ()))

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


def choose(model: str, hives: Iterable[Hive], chosen: Mapping[str, str]) -> str:
    """Choose a machine for a request: that which has the model, or else one that can load it.

    Of several it is one that has not refused to, with the fewest models: those that it has, and
    those that were just asked of it. Where no hive is online, one is wanted here.

    Args:
        model: What is asked for.
        hives: All that are known.
        chosen: What was chosen last for each model; that stays, unless another is online in its
            place.
    """

    def load(hive: Hive) -> int:
        return len(hive.models | {each for each, host in chosen.items() if host == hive.host})

    online = [hive for hive in hives if hive.state == "online"]
    before = chosen.get(model)
    if before is not None and (not online or before in [hive.host for hive in online]):
        return before
    having = [hive for hive in online if model in hive.models]
    able = [hive for hive in online if model in hive.can_load]
    best = min(
        having or able or online,
        key=lambda hive: (model in hive.refused, load(hive)),
        default=Hive(HERE),
    )
    return best.host
