"""The clocks of one wait for readiness: how long it may last, and how long in silence."""

from math import inf
from typing import Final, Literal

Clock = Literal["ready_timeout", "stall_timeout"]

# How far a daemon can put off its own deadline where nothing else is configured: a minute of
# patience becomes ten, so one that hangs in a loop of asking is still found.
MOST_EXTENSIONS: Final = 10.0

# The silence of a daemon is looked at this often in the time that it may last.
LOOKS_AT_SILENCE: Final = 10


class ReadyClocks:
    """When a wait for readiness ends, given what was heard so far; all times are of one clock.

    Args:
        began: When the daemon was spawned.
        ready_timeout: Seconds that it may take in all.
        stall_timeout: Seconds that it may show no sign of life; None is any time.
        max_ready_timeout: Seconds that it may take in all if it asks for more time.
    """

    def __init__(
        self,
        began: float,
        ready_timeout: float,
        stall_timeout: float | None,
        max_ready_timeout: float,
    ) -> None:
        self._latest = began + max(ready_timeout, max_ready_timeout)
        self._total = began + ready_timeout
        self._silence_s = inf if stall_timeout is None else stall_timeout
        self._heard_at = began
        self._patient_until = began

    def note_life(self, now: float) -> None:
        """Take notice of a sign of life."""
        self._heard_at = max(self._heard_at, now)

    def extend(self, now: float, seconds: float) -> None:
        """Give it some seconds from now, silent ones too, as far as the limit goes.

        It never shortens the time that it has (EXTEND_TIMEOUT_USEC, sd_notify(3)).
        """
        self.note_life(now)
        self._patient_until = max(self._patient_until, min(now + seconds, self._latest))
        self._total = max(self._total, self._patient_until)

    @property
    def silent_since(self) -> float:
        """When the last sign of life came; the spawn, if none did."""
        return self._heard_at

    @property
    def is_at_its_limit(self) -> bool:
        """True when no more time can be given."""
        return self._total >= self._latest

    @property
    def total_ends(self) -> float:
        """When the wait ends however much is heard."""
        return self._total

    @property
    def due(self) -> float:
        """When the wait ends if nothing more is heard."""
        return min(self._total, self._silence_ends)

    @property
    def first_to_end(self) -> Clock:
        """Which clock that is."""
        return "stall_timeout" if self._silence_ends < self._total else "ready_timeout"

    @property
    def _silence_ends(self) -> float:
        return max(self._heard_at + self._silence_s, self._patient_until)
