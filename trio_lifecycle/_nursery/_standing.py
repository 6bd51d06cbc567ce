"""Where a daemon of a nursery stands, and what follows from that for who wants it up."""

from enum import Enum, auto
from typing import Final

from trio_lifecycle._config import OnChange


class Standing(Enum):
    """Where a daemon of a nursery stands at this moment."""

    GONE = auto()
    STARTING = auto()
    UP = auto()
    GOING = auto()
    STUCK = auto()


class Step(Enum):
    """What somebody who wants a daemon up has to do next."""

    START = auto()
    JOIN = auto()
    TAKE = auto()
    WAIT = auto()
    REPLACE = auto()
    REFUSE = auto()
    DOUBT = auto()


_STEPS: Final = {
    Standing.GONE: Step.START,
    Standing.STARTING: Step.JOIN,
    Standing.UP: Step.TAKE,
    Standing.GOING: Step.WAIT,
    Standing.STUCK: Step.DOUBT,
}
# Where the one that is there was started from another configuration.
_STEPS_WHEN_CHANGED: Final[dict[OnChange, Step]] = {
    "keep": Step.TAKE,
    "restart": Step.REPLACE,
    "error": Step.REFUSE,
}


def decide(standing: Standing, on_change: OnChange, *, changed: bool) -> Step:
    """Say what somebody who wants a daemon up has to do next.

    Args:
        standing: Where the daemon of this name stands.
        on_change: What is to be done about one of another configuration.
        changed: Whether it is one.
    """
    if changed and standing is Standing.UP:
        return _STEPS_WHEN_CHANGED[on_change]
    if changed and standing is Standing.STARTING:
        # Its failure would be none of ours.
        return Step.WAIT
    return _STEPS[standing]
