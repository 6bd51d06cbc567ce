"""The contract of a ready mode: what says when a daemon is ready."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import Marker
from trio_lifecycle._prober_contract import Prober
from trio_lifecycle._process_contract import Process
from trio_lifecycle._reports import Report, Sighting
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle._start import Start


class ReadyMode(ABC):
    """Says when a daemon is ready.

    A frozen value: it compares, prints well, and serves any number of spawns.
    """

    @property
    def markers(self) -> frozenset[Marker]:
        """The markers that this mode gives a value to.

        Using one under another mode is a ConfigError.
        """
        return frozenset()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the mode in which markers may stand."""
        return ()

    @property
    def kind(self) -> str:
        """Which mode it is; another one is another configuration of the daemon."""
        return type(self).__qualname__

    @property
    def channels(self) -> frozenset[str]:
        """What of the daemon this mode takes for itself alone, such as ``"NOTIFY_SOCKET"``.

        Two modes that take the same can't be composed.
        """
        return frozenset()

    @property
    def longest_interval_s(self) -> float:
        """The longest pause between two looks; 0 where the daemon's word comes by itself."""
        return 0.0

    @property
    def shortest_wait_s(self) -> float:
        """Seconds that even the fastest daemon waits under this mode until it is ready."""
        return 0.0

    def stable_for(self, seconds: float) -> "StableFor":
        """Give the mode that is ready once this one has been so for some seconds on end.

        For a daemon that is up for a moment before it fails. Each start takes as much longer.

        Raises:
            ConfigError: That is no number of seconds.
        """
        return StableFor(self, seconds)

    @abstractmethod
    async def arm(self, start: Start) -> "ArmedReady":
        """Get ready to hear from the daemon, before it is spawned: bind a socket, make a token."""

    async def arm_again(self, start: Start) -> "ArmedReady | None":
        """Get ready to ask a daemon that was spawned earlier, perhaps by another program.

        Only ``ask`` is called, so nothing may be held that would have to be let go of, and nothing
        is put into the daemon's arguments or environment any more. None where a daemon gives its
        word only once: then being alive must do.

        Args:
            start: As it was for its spawn; the port is the one that was recorded.
        """
        return None

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Look once whether the daemon runs already.

        None when nothing is there, or it can't be asked before a spawn.
        """
        return None


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


# --- one that lets another do it ------------------------------------------------------------------


class ModeThrough(ReadyMode):
    """Does all that another mode does, to do one thing otherwise."""

    @property
    @abstractmethod
    def mode(self) -> ReadyMode:
        """The other mode."""

    @property
    def markers(self) -> frozenset[Marker]:
        """The other's."""
        return self.mode.markers

    @property
    def texts(self) -> tuple[str, ...]:
        """The other's."""
        return self.mode.texts

    @property
    def kind(self) -> str:
        """The other's."""
        return self.mode.kind

    @property
    def channels(self) -> frozenset[str]:
        """The other's."""
        return self.mode.channels

    @property
    def longest_interval_s(self) -> float:
        """The other's."""
        return self.mode.longest_interval_s

    @property
    def shortest_wait_s(self) -> float:
        """The other's."""
        return self.mode.shortest_wait_s

    async def arm(self, start: Start) -> ArmedReady:
        """Arm the other."""
        return await self.mode.arm(start)

    async def arm_again(self, start: Start) -> ArmedReady | None:
        """Arm the other."""
        return await self.mode.arm_again(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Let the other look."""
        return await self.mode.find_running(prober)


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


# --- one that must hold ---------------------------------------------------------------------------

# Between two looks at a mode whose daemon speaks by itself, such as a line of output.
_LOOK_INTERVAL_S: Final = 0.1


def _is_ready_mode(mode: object) -> ReadyMode:
    if not isinstance(mode, ReadyMode):
        raise ConfigError("mode", f"must be a ready mode such as TCPPort(8080), not {mode!r}")
    return mode


def _stable_seconds(seconds: float) -> float:
    return check_seconds("seconds", seconds)


@frozen
class StableFor(ModeThrough):
    """Ready once another mode has been so for some seconds on end; ``mode.stable_for(seconds)``.

    The mode is asked again and again in that time; when it is not ready any more, the seconds begin
    anew with its next success. What runs already has been stable. For how long a mode must hold
    makes no other daemon.

    Attributes:
        mode: The mode.
        seconds: How long it must hold.
    """

    mode: ReadyMode = field(converter=_is_ready_mode)
    seconds: float = field(converter=_stable_seconds)

    def __repr__(self) -> str:
        return f"{self.mode!r}.stable_for({self.seconds})"

    @property
    def shortest_wait_s(self) -> float:
        """The seconds, and what the mode takes."""
        return self.mode.shortest_wait_s + self.seconds

    async def arm(self, start: Start) -> ArmedReady:
        """Get the mode ready."""
        interval = self.longest_interval_s or _LOOK_INTERVAL_S
        return ArmedStable(await self.mode.arm(start), self.seconds, interval)


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
        seen = self._armed.last_seen
        if not self._broken:
            return seen
        return f"it was ready, but not for {self._seconds} s on end; {seen}"

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
