"""Ready when several ready modes say so at the same moment."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Final

import trio
from attrs import frozen

from trio_lifecycle._polling import next_interval
from trio_lifecycle.abc import ArmedReady, Prober, Process, Report, Sighting
from trio_lifecycle.ready._compose import ArmedComposition, Composition, at_once, merge_reports

# The longest pause before those are waited for again that have failed after their success, where no
# mode has an interval.
_LONGEST_PAUSE_S: Final = 0.1

# How late it may be noticed that a daemon takes back what it said to one of several modes.
_LOOK_INTERVAL_S: Final = 0.1


@frozen(init=False, repr=False)
class AllOf(Composition):
    """Ready when all modes say so at the same moment: ``AllOf(TCPPort(80), LogLine("listening"))``.

    All wait at once. When the last of them is ready the others are asked once more, and one that is
    not ready any more is waited for again; a mode whose daemon gives its word only once remembers
    it. The first mode that fails for good ends the wait, with its own error.

    The handle's ``url`` and ``port`` are those of the first mode that knows one. ``report`` has
    what all were told; where two were told something of the same name, what the first of them was.

    Two modes that need the same of the daemon, such as two ``Callback()``, can't be composed.

    Attributes:
        modes: The modes, one or more; compositions may be among them.
    """

    @property
    def shortest_wait_s(self) -> float:
        """The longest of all modes."""
        return max(mode.shortest_wait_s for mode in self.modes)

    def _together(self, name: str, armed: Sequence[ArmedReady]) -> "ArmedAllOf":
        # Where only some can be asked again, nobody waits.
        heard = [n for n, mode in enumerate(self.modes) if mode.longest_interval_s == 0]
        return ArmedAllOf(armed, heard, self.longest_interval_s or _LONGEST_PAUSE_S)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Look by all modes that can look; it is up only if all of them see it so."""
        sightings = await self.look(prober)
        seen = [sighting for sighting in sightings if sighting is not None]
        refused = [sighting for sighting in seen if sighting.refused]
        if not seen or refused:
            return refused[0] if refused else None
        reports = [sighting.report for sighting in seen if sighting.report is not None]
        is_up = len(reports) == len(sightings)
        places = [sighting for sighting in seen if sighting.address is not None]
        first, *others = places or seen
        details = [sighting.detail for sighting in seen]
        if len(seen) < len(sightings):
            details.append(f"{len(sightings) - len(seen)} of its ready modes found nothing")
        return Sighting(
            report=merge_reports(reports) if is_up else None,
            detail=" and ".join(details),
            address=first.address,
            accepted=_first_opinion(seen),
            place=first.place,
            others=tuple(place for other in (first, *others) for place in _places_of(other, first)),
        )


def _first_opinion(seen: Sequence[Sighting]) -> bool | None:
    return next((sighting.accepted for sighting in seen if sighting.accepted is not False), False)


def _places_of(sighting: Sighting, first: Sighting) -> tuple[Sighting, ...]:
    itself = () if sighting is first else (sighting._replace(others=()),)
    return (*itself, *sighting.others)


class ArmedAllOf(ArmedComposition):
    """Several modes of one spawn, of which each must be ready.

    Args:
        armed: The modes at work.
        heard: The numbers of those whose daemon speaks by itself: it may say at any moment that it
            has failed, also to one that was ready already.
        longest_pause_s: The longest pause before one is waited for again.
    """

    def __init__(
        self, armed: Sequence[ArmedReady], heard: Collection[int], longest_pause_s: float
    ) -> None:
        super().__init__(armed)
        self._heard = heard
        self._longest_pause_s = longest_pause_s
        self._reports: dict[int, Report] = {}

    @property
    def last_seen(self) -> str:
        """What those saw that are not ready."""
        missing = [self.armed[number].last_seen for number in self._missing]
        return " and ".join(missing or [one.last_seen for one in self.armed])

    @property
    def awaited(self) -> str:
        """What all of them wait for."""
        return " and ".join(filter(None, (one.awaited for one in self.armed)))

    @property
    def _missing(self) -> list[int]:
        return [number for number in range(len(self.armed)) if number not in self._reports]

    async def wait(self, process: Process) -> Report:
        """Wait for those that are not ready, until no other has failed meanwhile."""
        began = trio.current_time()
        while True:
            last = await self._wait_for(self._missing or range(len(self.armed)), process)
            await self._look_at([n for n in range(len(self.armed)) if n != last], process)
            if not self._missing:
                return self._report()
            # A mode that is ready and then not, over and over, must not keep the loop busy.
            waited = trio.current_time() - began
            await trio.sleep(next_interval(waited, self._longest_pause_s))

    async def _wait_for(self, numbers: Collection[int], process: Process) -> int:
        """Wait for some of them; say which was the last."""
        last = 0
        left = set(numbers)

        async def wait(number: int) -> bool:
            nonlocal last
            self._reports[number] = await self.armed[number].wait(process)
            last = number
            left.discard(number)
            return not left

        waits = [partial(wait, number) for number in numbers]
        await at_once([*waits, partial(self._listen, process, left)])
        return last

    async def _listen(self, process: Process, awaited: Collection[int]) -> None:
        """Hear of failures from those that were ready before the others."""
        while True:
            await trio.sleep(_LOOK_INTERVAL_S)
            for number in self._heard:
                # One that is waited for can't be asked at the same time.
                if number not in awaited:
                    await self.armed[number].ask(process)

    async def _look_at(self, numbers: Collection[int], process: Process) -> None:
        async def ask(number: int) -> None:
            report = await self.armed[number].ask(process)
            if report is not None:
                self._reports[number] = report
            else:
                self._reports.pop(number, None)

        await at_once([partial(ask, number) for number in numbers])

    async def ask(self, process: Process) -> Report | None:
        """Ask all at once: their limits must not add up."""
        await self._look_at(range(len(self.armed)), process)
        return None if self._missing else self._report()

    def _report(self) -> Report:
        return merge_reports(self._reports[number] for number in range(len(self.armed)))
