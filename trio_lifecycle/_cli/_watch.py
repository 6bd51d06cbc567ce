"""A ready mode that lets others look on: at what is waited for, what was seen, and the process."""

from collections.abc import Mapping

from trio_lifecycle._markers import CALLBACK_URL, FREE_PORT, Marker, fill
from trio_lifecycle.abc import (
    ArmedReady,
    Prober,
    Process,
    ReadyMode,
    Report,
    Sighting,
    Start,
)


class Watched(ReadyMode):
    """Does all that another mode does, for one daemon that is started once.

    Attributes:
        armed: The other mode at work, once the spawn is near.
        process: The daemon's process, once there is one.
        target: What is waited for, in words; empty where that is not known yet, or nothing.
        sighted: What answered where the daemon should be, before anything was spawned; empty if it
            was nothing.
    """

    def __init__(self, mode: ReadyMode) -> None:
        self._mode = mode
        self.armed: ArmedReady | None = None
        self.process: Process | None = None
        self.target = "" if mode.markers else " ".join(mode.texts)
        self.sighted = ""

    def __repr__(self) -> str:
        return repr(self._mode)

    @property
    def markers(self) -> frozenset[Marker]:
        """The other's."""
        return self._mode.markers

    @property
    def texts(self) -> tuple[str, ...]:
        """The other's."""
        return self._mode.texts

    @property
    def kind(self) -> str:
        """The other's."""
        return self._mode.kind

    @property
    def longest_interval_s(self) -> float:
        """The other's."""
        return self._mode.longest_interval_s

    async def arm(self, start: Start) -> ArmedReady:
        """Note what will be waited for."""
        self.armed = await self._mode.arm(start)
        port = {} if start.port is None else {FREE_PORT: str(start.port)}
        callback = "its callback" if CALLBACK_URL in self._mode.markers else ""
        self.target = fill(" ".join(self._mode.texts), port) or callback
        return _WatchedReady(self, self.armed)

    async def arm_again(self, start: Start) -> ArmedReady | None:
        """Note what will be asked."""
        self.armed = await self._mode.arm_again(start)
        port = {} if start.port is None else {FREE_PORT: str(start.port)}
        self.target = fill(" ".join(self._mode.texts), port)
        return self.armed

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Let the other look, and note what it sees."""
        sighting = await self._mode.find_running(prober)
        self.sighted = "" if sighting is None else sighting.detail
        return sighting

    @property
    def awaited(self) -> str:
        """What is waited for at this moment, in words; empty where there is no wait."""
        return f"what is already at {self.target}" if self.sighted else self.target

    @property
    def last_seen(self) -> str:
        """What was seen last, without repeating what is waited for."""
        seen = self.armed.last_seen if self.armed else self.sighted
        return seen.removeprefix(self.target).strip()

    def blot_out(self, text: str) -> str:
        """Take the spawn's secrets out of a text."""
        for secret in self.armed.secrets if self.armed else ():
            text = text.replace(secret, "***")
        return text


class _WatchedReady(ArmedReady):
    def __init__(self, watched: Watched, armed: ArmedReady) -> None:
        self._watched = watched
        self._armed = armed

    @property
    def env(self) -> Mapping[str, str]:
        return self._armed.env

    @property
    def values(self) -> Mapping[Marker, str]:
        return self._armed.values

    @property
    def secrets(self) -> tuple[str, ...]:
        return self._armed.secrets

    @property
    def last_seen(self) -> str:
        return self._armed.last_seen

    async def wait(self, process: Process) -> Report:
        self._watched.process = process
        return await self._armed.wait(process)

    async def ask(self, process: Process) -> Report | None:
        return await self._armed.ask(process)

    async def disarm(self) -> None:
        await self._armed.disarm()
