"""A ready mode that lets others look on: at what is waited for, what was seen, and the process."""

from trio_lifecycle._armed_contract import ArmedThrough
from trio_lifecycle._ready_contract import ModeThrough
from trio_lifecycle.abc import (
    ArmedReady,
    Prober,
    Process,
    ReadyMode,
    Sighting,
    Start,
)


class Watched(ModeThrough):
    """Does all that another mode does, for one daemon that is started once.

    Attributes:
        armed: The other mode at work, once the spawn is near.
        process: The daemon's process, once there is one.
        sighted: What answered where the daemon should be, before anything was spawned; empty if it
            was nothing.
    """

    def __init__(self, mode: ReadyMode) -> None:
        self._mode = mode
        self.armed: ArmedReady | None = None
        self.process: Process | None = None
        self.sighted = ""
        self._place = ""

    def __repr__(self) -> str:
        return repr(self._mode)

    @property
    def mode(self) -> ReadyMode:
        """The other."""
        return self._mode

    async def arm(self, start: Start) -> ArmedReady:
        """Note what will be waited for."""
        self.armed = await self._mode.arm(start)
        return _WatchedReady(self, self.armed)

    async def arm_again(self, start: Start) -> ArmedReady | None:
        """Note what will be asked."""
        self.armed = await self._mode.arm_again(start)
        return self.armed

    async def arm_unfinished(self, start: Start) -> ArmedReady | None:
        """Note what will be asked."""
        self.armed = await self._mode.arm_unfinished(start)
        return self.armed

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Let the other look, and note what it sees."""
        sighting = await self._mode.find_running(prober)
        self.sighted = "" if sighting is None else sighting.detail
        self._place = "" if sighting is None else sighting.place
        return sighting

    @property
    def target(self) -> str:
        """What is waited for, in words; empty where that is not known yet, or nothing."""
        return self._place if self.armed is None else self.armed.awaited

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


class _WatchedReady(ArmedThrough):
    def __init__(self, watched: Watched, armed: ArmedReady) -> None:
        super().__init__(armed)
        self._watched = watched

    def begin(self, process: Process) -> None:
        self._watched.process = process
        super().begin(process)
