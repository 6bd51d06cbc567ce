"""Events as log lines."""

import logging
from typing import Final

from trio_lifecycle._events import (
    Checked,
    ConfigChanged,
    Died,
    Event,
    Failed,
    Found,
    NotRecovered,
    Starting,
    Unseen,
)

_log: Final = logging.getLogger("trio_lifecycle.events")

_LEVELS: Final[dict[type[Event], int]] = {
    Starting: logging.DEBUG,
    Found: logging.DEBUG,
    Checked: logging.DEBUG,
    Died: logging.WARNING,
    Unseen: logging.WARNING,
    Failed: logging.WARNING,
    ConfigChanged: logging.WARNING,
    NotRecovered: logging.WARNING,
}


def log_events(event: Event) -> None:
    """Write an event to the logger ``trio_lifecycle.events``.

    ``DaemonLifecycle(config, observer=log_events)``.

    A death, a daemon out of sight, a failed start, a daemon of another configuration and what is
    not free again after a stop are warnings, small steps are debug messages, the rest is
    information.
    The record carries the event's facts as ``record.daemon_event``, a dictionary, for formatters
    that want them.
    """
    level = _LEVELS.get(type(event), logging.INFO)
    _log.log(level, "%s", event, extra={"daemon_event": event.as_dict()})
