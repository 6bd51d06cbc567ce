"""The contract of a ready mode: what says when a daemon is ready."""

from abc import ABC, abstractmethod
from typing import Final

from attrs import field, frozen

from trio_lifecycle._armed_contract import ArmedHeld, ArmedReady, ArmedStable
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import Marker
from trio_lifecycle._prober_contract import Prober
from trio_lifecycle._reports import Sighting
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
    async def arm(self, start: Start) -> ArmedReady:
        """Get ready to hear from the daemon, before it is spawned: bind a socket, make a token."""

    async def arm_again(self, start: Start) -> ArmedReady | None:
        """Get ready to ask a daemon that was spawned earlier, perhaps by another program.

        Only ``ask`` is called, so nothing may be held that would have to be let go of, and nothing
        is put into the daemon's arguments or environment any more. None where a daemon gives its
        word only once: then being alive must do.

        Args:
            start: As it was for its spawn; the port is the one that was recorded.
        """
        return None

    async def arm_unfinished(self, start: Start) -> ArmedReady | None:
        """Get ready to ask a daemon whose starter was killed before it was seen to be ready.

        As ``arm_again``, but what is asked must tell that it has become ready, and not only that it
        is up still. None where nobody can know that any more: it is started anew then.
        """
        return await self.arm_again(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Look once whether the daemon runs already.

        None when nothing is there, or it can't be asked before a spawn.
        """
        return None


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

    async def arm_unfinished(self, start: Start) -> ArmedReady | None:
        """Arm the other."""
        return await self.mode.arm_unfinished(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Let the other look."""
        return await self.mode.find_running(prober)


# --- one that must hold ---------------------------------------------------------------------------

# Between two looks at a mode whose daemon speaks by itself, such as a line of output.
_LOOK_INTERVAL_S: Final = 0.1


def check_mode(mode: ReadyMode) -> ReadyMode:
    """Return what is a ready mode.

    Raises:
        ConfigError: It is none.
    """
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

    mode: ReadyMode = field(converter=check_mode)
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

    async def arm_unfinished(self, start: Start) -> ArmedReady | None:
        """Arm the mode: it must hold from now on."""
        armed = await self.mode.arm_unfinished(start)
        return None if armed is None else ArmedHeld(armed, self.seconds)
