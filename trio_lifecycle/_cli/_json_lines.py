"""Events for machines: one JSON object a line."""

import json
from typing import Any

from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._sentences import in_shell_words
from trio_lifecycle._events import Adopted, Event, Ready, Spawned


class JSONLines:
    """Writes each event as it happens; pid and URL are in each from when they are known."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._known: dict[str, Any] = {}

    def observe(self, event: Event) -> None:
        """Write an event."""
        facts = event.as_dict()
        if "reason" in facts:
            facts["reason"] = in_shell_words(facts["reason"])
        if isinstance(event, (Spawned, Adopted)):
            # Another process than the one that may have been spoken of, which was in its place.
            self._known.clear()
        if isinstance(event, (Spawned, Adopted, Ready)):
            self._known |= {key: facts[key] for key in ("pid", "url") if key in facts}
        self.write(facts | {key: self._known[key] for key in self._known if key not in facts})

    def write(self, facts: dict[str, Any]) -> None:
        """Write one object."""
        self._outlet.write(json.dumps(facts) + "\n")
