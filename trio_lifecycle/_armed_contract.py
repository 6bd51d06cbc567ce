"""The contract of a ready mode at work: armed for one spawn, then awaited or asked."""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import trio

from trio_lifecycle._markers import Marker
from trio_lifecycle._process_contract import Process
from trio_lifecycle._reports import Report


class ArmedReady(ABC):
    """A ready mode at work for one spawn: armed before it, then awaited, always disarmed."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables for the daemon's environment."""
        return {}

    @property
    def descriptors(self) -> Mapping[int, int]:
        """What the daemon gets beside its streams, by number there.

        The descriptors stay the mode's own.
        """
        return {}

    @property
    def values(self) -> Mapping[Marker, str]:
        """The values of the mode's markers."""
        return {}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stand in no message; they are blotted out of output tails."""
        return ()

    @property
    @abstractmethod
    def last_seen(self) -> str:
        """What was seen last, as a part of a sentence such as ``no callback came``."""

    @property
    def awaited(self) -> str:
        """What is waited for, in words such as ``its callback``; empty where there is no wait."""
        return ""

    @property
    def follows(self) -> bool:
        """True when the daemon goes on to be heard once it is ready; ``follow`` does it."""
        return False

    def begin(self, process: Process) -> None:  # noqa: B027  # most modes miss nothing
        """Take notice of the process, at the very moment of its spawn.

        Called before anything else can happen, and before ``wait``: who starts to read the lines of
        its output here misses none.
        """

    @abstractmethod
    async def wait(self, process: Process) -> Report:
        """Wait until the daemon is ready.

        It is cancelled at the deadline, or when the process ends. It may be called again, also
        after it was cancelled: one of several modes that fails again is waited for again.

        Raises:
            ForeignDaemonError: Somebody else answers in the daemon's place.
            ReadyError: It can't become ready any more.
        """

    async def ask(self, process: Process) -> Report | None:
        """Look once more, bounded by the mode's own limit for one look; None is not ready.

        Asked at the deadline, and where several modes must hold at once. A daemon that has given
        its word, and has not taken it back, is ready.

        Raises:
            ForeignDaemonError: Somebody else answers in the daemon's place.
            ReadyError: It can't become ready any more.
        """
        return None

    def note_ready(self) -> None:  # noqa: B027  # most modes say the same from then on
        """Take notice that the wait has ended well: what would have ended it otherwise is over."""

    async def follow(self, process: Process) -> None:  # noqa: B027  # most daemons say no more
        """Hear what the daemon says once it is ready, and pass it on to ``Start.hear``.

        Only where it ``follows``, and has an owner. It is cancelled when the process ends, and then
        disarmed.
        """

    async def disarm(self) -> None:  # noqa: B027  # most modes hold nothing
        """Let go of everything that ``arm`` took."""


class ArmedThrough(ArmedReady):
    """Does all that another armed mode does, to do one thing otherwise."""

    def __init__(self, armed: ArmedReady) -> None:
        self._armed = armed

    @property
    def env(self) -> Mapping[str, str]:
        """The other's."""
        return self._armed.env

    @property
    def descriptors(self) -> Mapping[int, int]:
        """The other's."""
        return self._armed.descriptors

    @property
    def values(self) -> Mapping[Marker, str]:
        """The other's."""
        return self._armed.values

    @property
    def secrets(self) -> tuple[str, ...]:
        """The other's."""
        return self._armed.secrets

    @property
    def last_seen(self) -> str:
        """The other's."""
        return self._armed.last_seen

    @property
    def awaited(self) -> str:
        """The other's."""
        return self._armed.awaited

    @property
    def follows(self) -> bool:
        """As the other does."""
        return self._armed.follows

    def begin(self, process: Process) -> None:
        """Let the other begin."""
        self._armed.begin(process)

    async def wait(self, process: Process) -> Report:
        """Let the other wait."""
        return await self._armed.wait(process)

    async def ask(self, process: Process) -> Report | None:
        """Let the other ask."""
        return await self._armed.ask(process)

    def note_ready(self) -> None:
        """Let the other take notice."""
        self._armed.note_ready()

    async def follow(self, process: Process) -> None:
        """Let the other follow."""
        await self._armed.follow(process)

    async def disarm(self) -> None:
        """Disarm the other."""
        await self._armed.disarm()


class ArmedStable(ArmedThrough):
    """A mode that must hold, of one spawn."""

    def __init__(self, armed: ArmedReady, seconds: float, interval_s: float) -> None:
        super().__init__(armed)
        self._seconds = seconds
        self._interval_s = interval_s
        self._broken = False
        self._is_stable = False

    @property
    def last_seen(self) -> str:
        """What the mode saw, and whether it was ready for a while."""
        return _not_for_long(self._armed.last_seen, self._seconds, self._broken)

    async def wait(self, process: Process) -> Report:
        """Wait for the mode, then see whether it holds."""
        # Waited for again, it has to hold anew.
        self._is_stable = False
        while True:
            await self._armed.wait(process)
            self._broken = True
            report = await self._hold(process)
            if report is not None:
                self._is_stable = True
                return report
            await trio.sleep(self._interval_s)

    async def _hold(self, process: Process) -> Report | None:
        until = trio.current_time() + self._seconds
        while True:
            await trio.sleep(max(0.0, min(self._interval_s, until - trio.current_time())))
            report = await self._armed.ask(process)
            if report is None or trio.current_time() >= until:
                return report

    async def ask(self, process: Process) -> Report | None:
        """Ask the mode, if it has held."""
        return await self._armed.ask(process) if self._is_stable else None


class ArmedHeld(ArmedThrough):
    """A mode that must hold, asked by who has not spawned the daemon.

    It has held once all looks for some seconds have found it ready.
    """

    def __init__(self, armed: ArmedReady, seconds: float) -> None:
        super().__init__(armed)
        self._seconds = seconds
        self._ready_since: float | None = None
        self._broken = False

    @property
    def last_seen(self) -> str:
        """What the mode saw, and whether it was ready for a while."""
        return _not_for_long(self._armed.last_seen, self._seconds, self._broken)

    async def ask(self, process: Process) -> Report | None:
        """Ask the mode, and see how long it holds."""
        report = await self._armed.ask(process)
        now = trio.current_time()
        if report is None:
            self._ready_since = None
            return None
        if self._ready_since is None:
            self._ready_since, self._broken = now, True
        return report if now - self._ready_since >= self._seconds else None


def _not_for_long(seen: str, seconds: float, broken: bool) -> str:
    return f"it was ready, but not for {seconds} s on end; {seen}" if broken else seen
