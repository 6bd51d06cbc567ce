"""The rows of the demo's table: who started whom, and how each is, from their events."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from trio_lifecycle.demo.queen_lifecycle import HERE
from trio_lifecycle.observe._phases import Life, lives

# What a life is about, in a word for people.
_STATES: Final = {
    "find": "looking",
    "claim": "waiting",
    "preflight": "checked",
    "spawn": "starting",
    "wait": "loading",
    "ready": "ready",
    "unseen": "unseen",
    "stop": "stopping",
}
_OVER: Final = {
    "stopped": "gone",
    "died": "died",
    "reaper_lost": "died",
    "failed": "failed",
    "given_up": "gone",
    "left": "left",
}

# Who is named by nobody as its starter is at the root.
_ROOT: Final = "rbee-keeper"

# Until when a daemon is waited for.
_WAITS: Final = frozenset({"looking", "waiting", "checked", "starting", "loading", "stopping"})

# Who said it, and of whom: a number of a process means another one on another machine.
Who = tuple[str, str]


@frozen
class Row:
    """A daemon in the table.

    Attributes:
        by: Which program has told of it.
        name: What it is called.
        depth: How many there are above it.
        state: How it is, in a word.
        pid: Its process.
        host: Its machine, if that is another one.
        ready_after_s: How long it took until it was ready; None if it never was, or was adopted.
        memory_mib: How much memory it used at most, if it has said so.
        since: Since when it is in this state: seconds since the epoch.
        goes_on: Whether it was not seen to be gone.
    """

    by: str
    name: str
    depth: int
    state: str
    pid: int | None
    host: str
    ready_after_s: float | None
    memory_mib: int | None
    since: float
    goes_on: bool

    @property
    def is_awaited(self) -> bool:
        """Whether something is yet to become of it."""
        return self.state in _WAITS


def rows(events: Iterable[Mapping[str, Any]], memory: Mapping[Who, int]) -> list[Row]:
    """Make the rows, each starter before what it has started; of several lives the newest.

    Args:
        events: With ``by``, and ``host`` for those of another machine.
        memory: What daemons have said of themselves, in MiB.
    """
    newest: dict[tuple[str, str], Life] = {}
    for life in lives(events):
        newest[life.by, life.name] = life
    return [_row(life, depth, memory) for life, depth in _in_order(list(newest.values()), _ROOT, 0)]


def _in_order(every: Sequence[Life], by: str, depth: int) -> list[tuple[Life, int]]:
    found = []
    for life in every:
        if life.by == by:
            found.append((life, depth))
            found += _in_order(every, life.name, depth + 1)
    return found


def _row(life: Life, depth: int, memory: Mapping[Who, int]) -> Row:
    last = life.phases[-1]
    # What has died is being cleaned up after, which is nobody's to wait for.
    goes_on = life.goes_on and life.outcome not in _OVER
    return Row(
        by=life.by,
        name=life.name,
        depth=depth,
        state=_STATES[last.name] if goes_on else _over(life),
        pid=life.pid,
        host=life.host or _host_in(life.name),
        ready_after_s=_ready_after_s(life),
        memory_mib=memory.get((life.by, life.name)),
        since=last.begin,
        goes_on=goes_on,
    )


def _over(life: Life) -> str:
    if (life.outcome, life.rung) == ("stopped", "SIGKILL"):
        return "killed"
    return _OVER.get(life.outcome, "gone")


def _host_in(name: str) -> str:
    """Read a hive's machine out of its name; nothing for this one."""
    program, _, host = name.partition("@")
    return host if program == "rbee-hive" and host != HERE else ""


def _ready_after_s(life: Life) -> float | None:
    if life.adopted or life.seconds_of("ready") is None:
        return None
    return sum(life.seconds_of(name) or 0.0 for name in ("spawn", "wait"))
