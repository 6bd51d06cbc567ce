"""Asking again and again, at one or two places, until the daemon's own answer is the right one."""

from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import Final, NamedTuple, Protocol

import trio

from trio_lifecycle._errors import ForeignDaemonError, ReadyError
from trio_lifecycle._polling import FRACTION_OF_ELAPSED, next_interval
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle.abc import Answer, ArmedReady, Process, Report, Sighting, Start, Verdict

# The longest pause between two probes, as in the design that this grew from. It is reached after 10
# s of waiting.
DEFAULT_INTERVAL_S: Final = 0.1

# How long one probe may take, as Kubernetes has it. A daemon that needs longer never counts as up.
DEFAULT_PROBE_TIMEOUT_S: Final = 1.0

# What is seen of a daemon as long as connections wait in its sockets.
NOT_ACCEPTED: Final = "is passed to it, and it has accepted no connection yet"


def check_interval(value: float) -> float:
    """Return a mode's ``interval``."""
    return check_seconds("interval", value)


def check_probe_timeout(value: float) -> float:
    """Return a mode's ``probe_timeout``."""
    return check_seconds("probe_timeout", value)


class Outcome(Enum):
    """What a reply says: up, not yet, or never."""

    UP = "up"
    NOT_YET = "not yet"
    NEVER = "never"


class Reply(NamedTuple):
    """What came of one probe.

    Attributes:
        outcome: What it says.
        text: What was seen, as a part of a sentence.
        absent: True when nothing is there at all.
        answer: The answer, if it was asked over HTTP.
    """

    outcome: Outcome
    text: str
    absent: bool = False
    answer: Answer | None = None


class Place(Protocol):
    """Where a daemon is asked, and how."""

    @property
    def address(self) -> tuple[str, int] | None:
        """Where to look for who answers; None where everybody is believed."""
        ...

    async def ask(self, *, patient: bool = False) -> Reply:
        """Ask once, within the mode's limit.

        Args:
            patient: Lets that count from when the daemon has accepted the connection, where it
                comes through a socket that is passed to it.
        """
        ...

    async def whose(self, process: Process) -> Verdict:
        """Say whose the last reply was; UNKNOWN: ask again later.

        Raises:
            OSError: It can't be looked at.
        """
        ...


async def whose_listener(
    process: Process, address: tuple[str, int] | None, is_up: Callable[[], Awaitable[bool]]
) -> Verdict:
    """Say whether who answers at an address is of the daemon.

    Args:
        process: The daemon's.
        address: The address; None where that can't be told.
        is_up: Asks there once more.
    """
    if address is None:
        return Verdict.OURS
    verdict = await process.listener_at(*address)
    if verdict is Verdict.UNKNOWN and process.pid is not None:
        # Nobody is seen to listen. A stranger may have left, and then there is no more success; or
        # the connection is brought to where the daemon listens.
        still = await is_up()
        verdict = await process.listener_at(*address)
        if verdict is Verdict.UNKNOWN and still:
            return Verdict.OURS
    # A daemon that has ended meanwhile owns nothing; the race with its end then says what happened.
    return Verdict.OURS if process.ended or process.pid is None else verdict


class ArmedPolled(ArmedReady):
    """A mode of one spawn that asks.

    Args:
        start: The spawn.
        shown: What is asked, for people.
        places: Where; the first one's replies are shown, and those of others that are there.
        report: What is known once it is ready.
        interval: The longest pause, in seconds.
        threshold: How many successes in a row it takes.
        secrets: Texts that must stand in no message.
        fraction: The pause as a part of the time waited.
    """

    def __init__(
        self,
        start: Start,
        shown: str,
        places: Sequence[Place],
        report: Report,
        interval: float,
        *,
        threshold: int = 1,
        secrets: tuple[str, ...] = (),
        fraction: float = FRACTION_OF_ELAPSED,
    ) -> None:
        self._fraction = fraction
        self._name = start.name
        self._prober = start.prober
        self._shown = shown
        self._places = places
        self._report = report
        self._interval = interval
        self._threshold = threshold
        self._secrets = secrets
        self._successes = 0
        self._seen = "was not asked yet"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What the mode was given."""
        return self._secrets

    @property
    def awaited(self) -> str:
        """What is asked."""
        return self._shown

    @property
    def last_seen(self) -> str:
        """The last reply."""
        return f"{self._shown} {self._seen}"

    async def wait(self, process: Process) -> Report:
        """Ask until it is up; after a first success of several, with the longest pause."""
        began = trio.current_time()
        while (report := self._count(await self._look(process, patient=True))) is None:
            waited = trio.current_time() - began
            grown = next_interval(waited, self._interval, self._fraction)
            await trio.sleep(self._interval if self._successes else grown)
        return report

    async def ask(self, process: Process) -> Report | None:
        """Ask once, and look who replied."""
        return self._count(await self._look(process, patient=False))

    def _count(self, is_up: bool) -> Report | None:
        self._successes = self._successes + 1 if is_up else 0
        return self._report if self._successes >= self._threshold else None

    async def _look(self, process: Process, *, patient: bool) -> bool:
        foreign: tuple[str, int] | None = None
        for place in self._places:
            reply = await place.ask(patient=patient)
            if place is self._places[0] or not reply.absent:
                self._seen = reply.text
            if reply.outcome is Outcome.NOT_YET:
                continue
            verdict = await self._whose(process, place)
            if verdict is Verdict.OURS and reply.outcome is Outcome.UP:
                return True
            if verdict is Verdict.OURS:
                raise ReadyError(self._name, self.last_seen)
            if verdict is Verdict.FOREIGN and reply.outcome is Outcome.UP:
                foreign = foreign or place.address
        if foreign:
            owner = await self._prober.describe_owner(*foreign)
            raise ForeignDaemonError(self._name, self._shown, owner)
        return False

    async def _whose(self, process: Process, place: Place) -> Verdict:
        try:
            return await place.whose(process)
        except OSError as error:
            self._seen = f"answered, but by whom can't be seen: {error.strerror}"
            return Verdict.UNKNOWN


async def find_there(places: Sequence[Place], shown: str, report: Report) -> Sighting | None:
    """Look once whether something is there before the spawn."""
    for place in places:
        reply = await place.ask()
        if not reply.absent:
            is_up = reply.outcome is Outcome.UP
            return Sighting(
                report=report if is_up else None,
                detail=f"{shown} {reply.text}",
                address=place.address,
                place=shown,
            )
    return None
