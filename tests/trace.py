"""A trace of what happened to a daemon, by Trio's clock."""

from typing import Any

import trio

from trio_lifecycle import Event
from trio_lifecycle._states import State, next_state


class Trace:
    """An observer that notes when each event came."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self._times: dict[str, float] = {}

    def observe(self, event: Event) -> None:
        """Note an event."""
        self.events.append(event)
        self.note(event.kind)

    def note(self, kind: str) -> None:
        """Note the moment at which something happened first."""
        self._times.setdefault(kind, trio.current_time())

    @property
    def kinds(self) -> list[str]:
        """The kinds of all events, in order."""
        return [event.kind for event in self.events]

    def after_spawn(self, kind: str) -> float:
        """Seconds from the spawn to the first event of this kind."""
        return self._times[kind] - self._times["spawned"]

    @property
    def follows_the_table(self) -> bool:
        """Whether each attempt walks through the table and ends where one may end."""
        attempts: dict[str, State] = {}
        for event in self.events:
            state = attempts.get(event.instance_id, State.NEW)
            attempts[event.instance_id] = next_state(state, event.kind)
        ends = {State.STOPPED, State.FAILED, State.LEFT, State.READY, State.UNSEEN}
        return set(attempts.values()) <= ends
