"""Ready when one of several ready modes says so."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import trio
from attrs import frozen

from trio_lifecycle._errors import ForeignDaemonError, ReadyError
from trio_lifecycle.abc import ArmedReady, Prober, Process, ReadyMode, Report, Sighting, Start
from trio_lifecycle.ready._compose import ArmedComposition, Composition, at_once

# What a mode says that can't become ready any more.
Failure = ReadyError | ForeignDaemonError


@frozen(init=False, repr=False)
class AnyOf(Composition):
    """Ready when one of the modes says so: ``AnyOf(Notify(), LogLine("listening"))``.

    All wait at once, and the report is that of the first to be ready. One that fails for good, or
    that this system does not have, is survived by the others; when all have failed so, the error
    has each one's reason.

    For a daemon that says it in one way or another, by its version or configuration. Whether it is
    up is asked of all from then on, and one that says so will do; where one of them can't be asked
    again, being alive must do, for its word may be what counts.

    Two modes that need the same of the daemon, such as two ``Callback()``, can't be composed.

    Attributes:
        modes: The modes, one or more; compositions may be among them.
    """

    @property
    def shortest_wait_s(self) -> float:
        """The shortest of all modes."""
        return min(mode.shortest_wait_s for mode in self.modes)

    async def arm(self, start: Start) -> ArmedComposition:
        """Get all modes ready; one that can't be has failed, and is survived.

        Raises:
            ConfigError: Two modes give different values to the same thing of the daemon.
            ReadyError: No mode can be got ready.
        """
        together = await super().arm(start)
        failed = [one.error for one in together.armed if isinstance(one, _Unarmed)]
        if len(failed) == len(together.armed):
            raise _summary(start.name, dict(enumerate(failed)))
        return together

    async def _arm_one(self, mode: ReadyMode, start: Start) -> ArmedReady:
        try:
            return await super()._arm_one(mode, start)
        except ReadyError as error:
            return _Unarmed(error)

    def _together(self, name: str, armed: Sequence[ArmedReady]) -> "ArmedAnyOf":
        return ArmedAnyOf(name, armed)

    async def arm_again(self, start: Start) -> ArmedComposition | None:
        """Ask all; None where one can't be asked: the word that it has given once may be its."""
        again = [await mode.arm_again(start) for mode in self.modes]
        return None if None in again else self._those_of(start, again)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Look by all modes that can look; the first that sees it up counts, if any does."""
        seen = [sighting for sighting in await self.look(prober) if sighting is not None]
        return min(seen, key=_promise, default=None)


def _promise(sighting: Sighting) -> int:
    if sighting.report is None:
        return 2
    # Who was said not to be the daemon is in nobody's way where another one answers, too.
    return 1 if sighting.refused else 0


class ArmedAnyOf(ArmedComposition):
    """Several modes of one spawn, of which one must be ready."""

    def __init__(self, name: str, armed: Sequence[ArmedReady]) -> None:
        super().__init__(armed)
        self._name: Final = name
        self._failures: dict[int, Failure] = {}

    @property
    def last_seen(self) -> str:
        """What each of them saw."""
        seen = [self._seen_by(number) for number in range(len(self.armed))]
        return seen[0] if len(seen) == 1 else f"none of {len(seen)} was ready: {'; '.join(seen)}"

    @property
    def awaited(self) -> str:
        """What any of them waits for."""
        return " or ".join(filter(None, (one.awaited for one in self.armed)))

    def _seen_by(self, number: int) -> str:
        failure = self._failures.get(number)
        return self.armed[number].last_seen if failure is None else _reason(failure)

    async def wait(self, process: Process) -> Report:
        """Wait for the first."""
        reports: dict[int, Report] = {}

        async def wait(number: int) -> bool:
            try:
                reports[number] = await self.armed[number].wait(process)
            except (ReadyError, ForeignDaemonError) as error:
                self._failures[number] = error
            return number in reports

        await at_once([partial(wait, number) for number in self._hopeful])
        if not reports:
            raise _summary(self._name, self._failures)
        return reports[min(reports)]

    @property
    def _hopeful(self) -> list[int]:
        return [number for number in range(len(self.armed)) if number not in self._failures]

    async def ask(self, process: Process) -> Report | None:
        """Ask all at once: their limits must not add up."""
        reports: dict[int, Report] = {}
        failures = dict(self._failures)

        async def ask(number: int) -> bool:
            try:
                report = await self.armed[number].ask(process)
            except (ReadyError, ForeignDaemonError) as error:
                failures[number] = error
                return False
            if report is not None:
                reports[number] = report
            return report is not None

        await at_once([partial(ask, number) for number in self._hopeful])
        if len(failures) == len(self.armed):
            raise _summary(self._name, failures)
        return reports[min(reports)] if reports else None


class _Unarmed(ArmedReady):
    """A mode that could not be got ready, as Notify where there is no Linux."""

    def __init__(self, error: ReadyError) -> None:
        self.error: Final = error

    @property
    def last_seen(self) -> str:
        """Why not."""
        return self.error.problem

    async def wait(self, process: Process) -> Report:
        """Fail."""
        await trio.lowlevel.checkpoint()
        raise ReadyError(self.error.daemon, self.error.problem)

    async def ask(self, process: Process) -> Report | None:
        """Fail."""
        return await self.wait(process)


def _summary(name: str, by_number: Mapping[int, Failure]) -> Failure:
    """Make one error of all, in the order of the modes."""
    failures = [by_number[number] for number in sorted(by_number)]
    if len(failures) == 1:
        return failures[0]
    foreign = [failure for failure in failures if isinstance(failure, ForeignDaemonError)]
    if len(foreign) == len(failures):
        addresses = _and([failure.address for failure in foreign])
        return ForeignDaemonError(name, addresses, _and([failure.owner for failure in foreign]))
    tails = [failure.output_tail for failure in failures if isinstance(failure, ReadyError)]
    problem = f"all of {len(failures)} have failed: {'; '.join(map(_reason, failures))}"
    return ReadyError(name, problem, next(filter(None, tails), ""))


def _reason(failure: Failure) -> str:
    if isinstance(failure, ReadyError):
        return failure.problem
    return f"{failure.address} is answered by {failure.owner}"


def _and(texts: Sequence[str]) -> str:
    return " and ".join(dict.fromkeys(texts))
