"""A ready mode of tests: when it is ready, when it fails, and what it holds stand in its plan."""

from collections.abc import Mapping
from math import inf
from typing import Any

import trio
from attrs import field, frozen

from trio_lifecycle._markers import Marker
from trio_lifecycle.abc import (
    ArmedReady,
    Prober,
    Process,
    Progress,
    ReadyMode,
    Report,
    Sighting,
    Start,
)

ALWAYS = ((0.0, inf),)
NEVER: tuple[tuple[float, float], ...] = ()


@frozen
class Planned(ReadyMode):
    """Ready in some spans of time, counted from the spawn.

    Attributes:
        name: What it is called in ``heard`` and in what it saw.
        spans: When it is ready: pairs (from, until).
        fails: What it raises for good, and when.
        takes: How long each question takes.
        is_asked_again: Whether a daemon of another program can be asked by it.
        gives: What the armed mode has: ``env``, ``descriptors``, ``values``, ``secrets``.
        takes_channels: Its channels.
        ready: Its report.
        sees: What it finds before the spawn.
        follows_with: What it hears once it is ready.
        breaks: In what it fails as no mode should: ``"arm"``, ``"disarm"``, ``"follow"``.
        heard: What was done with it.
    """

    name: str = "it"
    spans: tuple[tuple[float, float], ...] = ALWAYS
    fails: tuple[float, BaseException] | None = None
    takes: float = 0.0
    is_asked_again: bool = True
    gives: Mapping[str, Any] = field(factory=dict, eq=False)
    takes_channels: frozenset[str] = frozenset()
    ready: Report = field(factory=Report, eq=False)
    sees: Sighting | None = None
    follows_with: Progress | None = None
    breaks: str = ""
    heard: list[str] = field(factory=list, eq=False)

    @property
    def markers(self) -> frozenset[Marker]:
        """Those that it gives values to."""
        return frozenset(self.gives.get("values", {}))

    @property
    def texts(self) -> tuple[str, ...]:
        """Its name."""
        return (self.name,)

    @property
    def channels(self) -> frozenset[str]:
        """As planned."""
        return self.takes_channels

    async def arm(self, start: Start) -> "ArmedPlan":
        """Note it."""
        if self.breaks == "arm":
            raise RuntimeError(self.name)
        if self.breaks == "long arm":
            await trio.sleep_forever()
        self.heard.append(f"armed {self.name}")
        return ArmedPlan(self, start)

    async def arm_again(self, start: Start) -> "ArmedPlan | None":
        """As planned."""
        return ArmedPlan(self, start) if self.is_asked_again else None

    async def find_running(self, prober: Prober) -> Sighting | None:
        """As planned."""
        await trio.sleep(self.takes)
        return self.sees


class ArmedPlan(ArmedReady):
    """Such a plan, of one spawn."""

    def __init__(self, plan: Planned, start: Start) -> None:
        self._plan = plan
        self._start = start
        self._born = trio.current_time()

    @property
    def env(self) -> Mapping[str, str]:
        """As planned."""
        return dict(self._plan.gives.get("env", {}))

    @property
    def descriptors(self) -> Mapping[int, int]:
        """As planned."""
        return dict(self._plan.gives.get("descriptors", {}))

    @property
    def values(self) -> Mapping[Marker, str]:
        """As planned."""
        return dict(self._plan.gives.get("values", {}))

    @property
    def secrets(self) -> tuple[str, ...]:
        """As planned."""
        return tuple(self._plan.gives.get("secrets", ()))

    @property
    def last_seen(self) -> str:
        """Its name."""
        return f"{self._plan.name} was not so"

    @property
    def awaited(self) -> str:
        """Its name, or nothing if it has none."""
        return self._plan.name

    @property
    def follows(self) -> bool:
        """As planned."""
        return self._plan.follows_with is not None

    def begin(self, process: Process) -> None:
        """The times are counted from now on."""
        self._plan.heard.append(f"began {self._plan.name}")
        self._born = trio.current_time()

    async def wait(self, process: Process) -> Report:
        """Sleep until it is so, or has failed."""
        self._plan.heard.append(f"waited for {self._plan.name}")
        while True:
            report = await self.ask(process)
            if report is not None:
                return report
            await trio.sleep_until(self._next_moment())

    def _next_moment(self) -> float:
        age = trio.current_time() - self._born
        moments = [since for since, _ in self._plan.spans]
        if self._plan.fails is not None:
            moments.append(self._plan.fails[0])
        return self._born + min((moment for moment in moments if moment > age), default=inf)

    async def ask(self, process: Process) -> Report | None:
        """Look into the plan."""
        await trio.sleep(self._plan.takes)
        age = trio.current_time() - self._born
        if self._plan.fails is not None and age >= self._plan.fails[0]:
            raise self._plan.fails[1]
        is_so = any(since <= age < until for since, until in self._plan.spans)
        return self._plan.ready if is_so else None

    async def follow(self, process: Process) -> None:
        """Say what is planned, and go on."""
        if self._plan.breaks == "follow":
            raise RuntimeError(self._plan.name)
        assert self._plan.follows_with is not None
        self._start.hear(self._plan.follows_with)
        await trio.sleep_forever()

    async def disarm(self) -> None:
        """Note it."""
        self._plan.heard.append(f"disarmed {self._plan.name}")
        if self._plan.breaks == "disarm":
            raise RuntimeError(self._plan.name)
        if self._plan.breaks == "long disarm":
            await trio.sleep_forever()
