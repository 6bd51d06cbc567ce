"""From events to phases: what a daemon was about, from when to when, for pictures and tables."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import define, evolve, field, frozen

# Which phase begins with an event of a kind. The program is found before the checks and spawned
# behind them; only "checked" tells that there were any, see `_behind_found`.
_BEGINS: Final = {
    "starting": "find",
    "claim_awaited": "claim",
    "found": "spawn",
    "checked": "spawn",
    "spawned": "wait",
    "ready": "ready",
    "adopted": "ready",
    "stopping": "stop",
    "died": "stop",
    "reaper_lost": "stop",
    "unseen": "unseen",
}
_ENDS: Final = frozenset({"stopped", "failed", "left"})

# What each phase is, in the order in which they come.
PHASES: Final = {
    "find": "looking whether it runs, and for its program",
    "claim": "waiting for another program that starts or stops it",
    "preflight": "the checks before the start",
    "spawn": "choosing a port, starting the process",
    "wait": "waiting until it is ready",
    "ready": "up",
    "unseen": "out of sight",
    "stop": "being stopped, or cleaned up after its death",
}


@frozen
class Phase:
    """What a daemon was about for a while.

    Attributes:
        name: One of ``PHASES``.
        begin: When it began: seconds since the epoch.
        end: When it ended; when the last of all events came, if it goes on.
    """

    name: str
    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


@define
class Life:
    """One attempt to have a daemon, and what became of it.

    Attributes:
        name: The daemon's name.
        by: Which program told of it; empty where the events do not say so.
        host: On which machine it runs; empty where the events do not say so.
        pid: Its process, once there was one.
        url: Where it was reached, if that was known.
        adopted: Whether it ran before.
        phases: What it was about, without gaps.
        outcome: The kind of its last event that decides: "died" stays when it was stopped later. A
            start that nobody waited for any more is "given_up", and no failure.
        reason: What was said of a failure.
        rung: The last step that was taken to stop it, such as "SIGTERM"; empty if there was none.
        goes_on: Whether its end was not told.
    """

    name: str
    by: str = ""
    host: str = ""
    pid: int | None = None
    url: str = ""
    adopted: bool = False
    phases: list[Phase] = field(factory=list)
    outcome: str = ""
    reason: str = ""
    rung: str = ""
    goes_on: bool = True

    @property
    def begin(self) -> float:
        """When it began: seconds since the epoch."""
        return self.phases[0].begin

    @property
    def end(self) -> float:
        """When it ended, or the events did."""
        return self.phases[-1].end

    def seconds_of(self, phase: str) -> float | None:
        """How long a phase took, all parts of it together; None where there was none."""
        parts = [each.seconds for each in self.phases if each.name == phase]
        return sum(parts) if parts else None


def lives(events: Iterable[Mapping[str, Any]]) -> list[Life]:
    """Read what became of each daemon from events, as ``Event.as_dict()`` gives them.

    The keys ``by`` and ``host``, which no event has by itself, tell streams of several programs
    apart. Events may come in any order. Facts and kinds that are unknown are passed over.

    Returns:
        A life for each attempt, in order of their beginning.
    """
    told = sorted(filter(is_event, events), key=lambda event: event["time"])
    found: dict[tuple[str, str, str], Life] = {}
    every: list[Life] = []
    for event in told:
        life = _life_of(event, found, every)
        if life is not None:
            _live_on(life, event)
    if told:
        _close(every, told[-1]["time"])
    return every


def is_event(event: Mapping[str, Any]) -> bool:
    """Whether something is an event of a daemon at all."""
    time = event.get("time")
    return (
        isinstance(event.get("event"), str)
        and isinstance(event.get("name"), str)
        and isinstance(event.get("instance_id"), str)
        and isinstance(time, (int, float))
        and math.isfinite(time)
    )


def _life_of(
    event: Mapping[str, Any], found: dict[tuple[str, str, str], Life], every: list[Life]
) -> Life | None:
    """Give the life that an event belongs to; None if it can't begin one."""
    by, name, kind = _text(event, "by"), event["name"], event["event"]
    key = (by, name, event["instance_id"])
    life = found.get(key)
    if kind == "adopted":
        # It has the id of the instance that was found; the search for it had one of its own.
        life = _searching(every, by, name) or life
    if kind == "starting" or life is None:
        if kind not in _BEGINS:
            return None
        life = Life(name, by)
        every.append(life)
    found[key] = life
    return life


def _searching(every: list[Life], by: str, name: str) -> Life | None:
    same = [life for life in every if (life.by, life.name) == (by, name) and life.goes_on]
    return same[-1] if same and same[-1].phases[-1].name in ("find", "claim") else None


def _live_on(life: Life, event: Mapping[str, Any]) -> None:
    kind, time = event["event"], event["time"]
    _note_facts(life, event)
    if kind in _ENDS:
        _end_phase(life, time)
        life.goes_on = False
    elif (phase := _BEGINS.get(kind)) is not None:
        _end_phase(life, time)
        if not life.phases or life.phases[-1].name != phase:
            life.phases.append(Phase(phase, time, time))
    if kind == "checked" or event.get("error") == "PreflightError":
        _behind_found(life, time)


def _behind_found(life: Life, time: float) -> None:
    """Say that what went on since the program was found were the checks."""
    last = life.phases[-1]
    if last.name == "spawn":
        life.phases[-1] = Phase("preflight", last.begin, time)
        if life.goes_on:
            life.phases.append(Phase("spawn", time, time))


def _end_phase(life: Life, time: float) -> None:
    if life.phases:
        life.phases[-1] = evolve(life.phases[-1], end=time)


def _note_facts(life: Life, event: Mapping[str, Any]) -> None:
    kind, pid = event["event"], event.get("pid")
    if isinstance(pid, int) and kind != "stray":
        life.pid = pid
    life.url = _text(event, "url") or life.url
    life.host = _text(event, "host") or life.host
    life.rung = _text(event, "rung") or life.rung
    life.adopted = life.adopted or kind == "adopted"
    if (kind, event.get("error")) == ("failed", "Cancelled"):
        life.outcome = "given_up"
        return
    life.reason = _text(event, "reason") or life.reason
    if kind in _ENDS | _BEGINS.keys() and (life.outcome, kind) != ("died", "stopped"):
        life.outcome = "died" if (life.outcome, kind) == ("died", "stopping") else kind


def _text(event: Mapping[str, Any], key: str) -> str:
    value = event.get(key)
    return value if isinstance(value, str) else ""


def _close(every: list[Life], last: float) -> None:
    for life in every:
        if life.goes_on:
            _end_phase(life, last)
