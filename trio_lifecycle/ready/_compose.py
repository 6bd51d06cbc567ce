"""Several ready modes as one: what holds whether all of them are wanted, or any."""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import combinations
from typing import Any, Final, TypeVar

import trio
from attrs import frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import Marker, markers_in
from trio_lifecycle._ready_contract import ModeThrough
from trio_lifecycle.abc import (
    ArmedReady,
    Prober,
    Process,
    ReadyMode,
    Report,
    Sighting,
    Start,
)

_log: Final = logging.getLogger("trio_lifecycle")

# How long letting go may take when arming was given up; it never needs the network.
_DISARM_PATIENCE_S: Final = 1.0

KeyT = TypeVar("KeyT")
ValueT = TypeVar("ValueT")


@frozen(init=False, repr=False)
class Composition(ReadyMode):
    """A ready mode that is made of others.

    Attributes:
        modes: The others, in the order in which they were given.
    """

    modes: tuple[ReadyMode, ...]

    def __init__(self, *modes: ReadyMode) -> None:
        # A frozen value is filled like this; the __init__ that is generated takes no *modes.
        object.__setattr__(self, "modes", _check(type(self).__name__, modes))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.modes))})"

    @property
    def markers(self) -> frozenset[Marker]:
        """Those of all modes."""
        return frozenset[Marker]().union(*(mode.markers for mode in self.modes))

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of all modes."""
        return tuple(text for mode in self.modes for text in mode.texts)

    @property
    def kind(self) -> str:
        """Its own kind, and those of all modes."""
        return f"{super().kind}({', '.join(mode.kind for mode in self.modes)})"

    @property
    def channels(self) -> frozenset[str]:
        """Those of all modes."""
        return frozenset[str]().union(*(mode.channels for mode in self.modes))

    @property
    def longest_interval_s(self) -> float:
        """The longest of all modes."""
        return max(mode.longest_interval_s for mode in self.modes)

    async def arm(self, start: Start) -> "ArmedComposition":
        """Get all modes ready; if one can't be, let go of the others.

        Raises:
            ConfigError: Two modes give different values to the same thing of the daemon.
        """
        armed: list[ArmedReady] = []
        try:
            for mode in self.modes:
                armed.append(await self._arm_one(mode, start))  # noqa: PERF401  # those so far are held
            return self._together(start.name, armed)
        except BaseException:
            # Shielded: a socket that stays open after a cancelled start is a leak. Bounded, because
            # it may be somebody's plug-in.
            with trio.move_on_after(_DISARM_PATIENCE_S, shield=True):
                await _give_up(armed)
            raise

    async def _arm_one(self, mode: ReadyMode, start: Start) -> ArmedReady:
        """Get one of the modes ready."""
        return await mode.arm(start)

    async def arm_again(self, start: Start) -> "ArmedComposition | None":
        """Ask by those that can be asked again; None where there is none."""
        return self._those_of(start, [await mode.arm_again(start) for mode in self.modes])

    async def arm_unfinished(self, start: Start) -> "ArmedComposition | None":
        """Ask all; None where one can't be asked: its word may be lost."""
        again = [await mode.arm_unfinished(start) for mode in self.modes]
        return None if None in again else self._those_of(start, again)

    def _those_of(
        self, start: Start, again: Sequence[ArmedReady | None]
    ) -> "ArmedComposition | None":
        armed = [one for one in again if one is not None]
        return self._together(start.name, armed) if armed else None

    @abstractmethod
    def _together(self, name: str, armed: Sequence[ArmedReady]) -> "ArmedComposition":
        """Make one of several."""

    async def look(self, prober: Prober) -> list[Sighting | None]:
        """Look by all modes that can look, at once: their limits must not add up."""
        modes = [mode for mode in self.modes if can_look(mode)]
        seen: dict[int, Sighting | None] = {}

        async def look_by(number: int) -> None:
            seen[number] = await modes[number].find_running(prober)

        await at_once(partial(look_by, number) for number in range(len(modes)))
        return [seen[number] for number in range(len(modes))]


class ArmedComposition(ArmedReady):
    """Several ready modes at work for one spawn."""

    def __init__(self, armed: Sequence[ArmedReady]) -> None:
        self.armed: Final = tuple(armed)
        # Now, for this is where it can still be said.
        _check_merge("environment variable", [one.env for one in armed])
        _check_merge("descriptor", [one.descriptors for one in armed])

    @property
    def env(self) -> Mapping[str, str]:
        """Those of all modes."""
        return _merge(one.env for one in self.armed)

    @property
    def descriptors(self) -> Mapping[int, int]:
        """Those of all modes."""
        return _merge(one.descriptors for one in self.armed)

    @property
    def values(self) -> Mapping[Marker, str]:
        """Those of all modes."""
        return _merge(one.values for one in self.armed)

    @property
    def secrets(self) -> tuple[str, ...]:
        """Those of all modes."""
        return tuple(secret for one in self.armed for secret in one.secrets)

    @property
    def follows(self) -> bool:
        """True if a mode does."""
        return any(one.follows for one in self.armed)

    def begin(self, process: Process) -> None:
        """Let all modes begin."""
        for one in self.armed:
            one.begin(process)

    def note_ready(self) -> None:
        """Let all modes take notice."""
        for one in self.armed:
            one.note_ready()

    async def follow(self, process: Process) -> None:
        """Let those follow that do."""
        await at_once(partial(one.follow, process) for one in self.armed if one.follows)

    async def disarm(self) -> None:
        """Let go of everything that any mode took, also if one of them fails at that."""
        await _disarm_all(self.armed)


async def at_once(tasks: Iterable[Callable[[], Awaitable[bool | None]]]) -> None:
    """Run all at once, until each has ended or one returns true: that is enough then.

    What one raises ends the others, and leaves as it entered: in no group.
    """
    failure: BaseException | None = None

    @trio.lowlevel.enable_ki_protection
    async def run(task: Callable[[], Awaitable[bool | None]]) -> None:
        nonlocal failure
        try:
            is_enough = await task()
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            failure, is_enough = failure or error, True
        if is_enough:
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for task in tasks:
            nursery.start_soon(run, task)
    if failure is not None:
        raise failure


def can_look(mode: ReadyMode) -> bool:
    """Say whether a mode can look for the daemon before it is spawned.

    What it says then counts: that nothing is there, too.
    """
    if isinstance(mode, ModeThrough):
        return can_look(mode.mode)
    if isinstance(mode, Composition):
        return any(map(can_look, mode.modes))
    looks = type(mode).find_running is not ReadyMode.find_running
    return looks and not markers_in(mode.texts)


def merge_reports(reports: Iterable[Report]) -> Report:
    """Make one of several: what the first says of a thing counts."""
    url: str | None = None
    port: int | None = None
    facts: Mapping[str, Any] = {}
    for report in reports:
        url = report.url if url is None else url
        port = report.port if port is None else port
        facts = {**report.facts, **facts}
    return Report(url, port, facts)


# --- what is no composition -----------------------------------------------------------------------


def _check(name: str, values: Sequence[object]) -> tuple[ReadyMode, ...]:
    if not values:
        raise ConfigError("modes", f"{name}() needs at least one ready mode")
    modes = tuple(_ready_mode(name, number, value) for number, value in enumerate(values))
    for one, other in combinations(modes, 2):
        same = _taken(one) & _taken(other)
        if same:
            raise ConfigError(
                "modes",
                f"{one.kind} and {other.kind} both take {', '.join(sorted(same))} of the daemon "
                "for themselves; leave one of them out",
            )
    return modes


def _ready_mode(name: str, number: int, value: object) -> ReadyMode:
    if isinstance(value, ReadyMode):
        return value
    many = isinstance(value, (list, tuple, set, frozenset))
    cure = f"; give them one by one: {name}(*modes)" if many else ""
    problem = f"must be a ready mode such as TCPPort(8080), not {value!r}{cure}"
    raise ConfigError(f"modes[{number}]", problem)


def _taken(mode: ReadyMode) -> frozenset[str]:
    return mode.channels | {marker.name for marker in mode.markers}


def _merge(mappings: Iterable[Mapping[KeyT, ValueT]]) -> Mapping[KeyT, ValueT]:
    return {key: value for mapping in mappings for key, value in mapping.items()}


def _check_merge(what: str, mappings: Iterable[Iterable[object]]) -> None:
    """Find two modes that say something of the same.

    Raises:
        ConfigError: There are two: one of them would never hear the daemon, and nobody know why.
    """
    for key, number in Counter(key for mapping in mappings for key in mapping).items():
        if number > 1:
            raise ConfigError("modes", f"{number} of them set the {what} {key!r}; leave one")


async def _disarm_all(armed: Sequence[ArmedReady]) -> None:
    failures: list[Exception] = []

    async def disarm(one: ArmedReady) -> None:
        try:
            await one.disarm()
        except Exception as error:
            failures.append(error)

    # At once: there is one limit for all, and none may use it up before another's turn.
    await at_once(partial(disarm, one) for one in armed)
    if failures:
        raise failures[0]


async def _give_up(armed: Sequence[ArmedReady]) -> None:
    try:
        await _disarm_all(armed)
    except Exception:
        _log.exception("a ready mode could not let go of what it had taken")
