"""Events for machines: one JSON object a line."""

import json
from typing import Any

from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._sentences import in_shell_words
from trio_lifecycle._events import Event


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
        self._known |= {key: facts[key] for key in ("pid", "url") if key in facts}
        self._outlet.write(json.dumps(facts | self._known) + "\n")
