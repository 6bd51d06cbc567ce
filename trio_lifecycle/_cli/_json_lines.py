"""For machines: one JSON object a line."""

import json
import math
from collections.abc import Mapping
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
        self._outlet.write(json_line(facts))


def json_line(facts: dict[str, Any]) -> str:
    """Write one object; a number that JSON has not is null.

    Python would write NaN and Infinity, which other programs can't read (RFC 8259, section 6).
    """
    return json.dumps(_finite(facts), allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {key: _finite(part) for key, part in value.items()}
        case list() | tuple():
            return [_finite(part) for part in value]
    return value
