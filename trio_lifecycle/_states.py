"""The states of a daemon, and the table of the moves between them."""

from enum import Enum
from typing import Final


class State(Enum):
    """Where a daemon stands. Every state but the first is entered by an event."""

    NEW = "new"
    LOOKING = "looking"
    PREPARING = "preparing"
    WAITING = "waiting"
    READY = "ready"
    STOPPING = "stopping"
    DEAD = "dead"
    UNSEEN = "unseen"
    STOPPED = "stopped"
    FAILED = "failed"
    LEFT = "left"


# State -> kind of event -> next state. A pair that is missing is no legal move.
TRANSITIONS: Final[dict[State, dict[str, State]]] = {
    State.NEW: {"starting": State.LOOKING},
    State.LOOKING: {
        "claim_awaited": State.LOOKING,
        "record_stale": State.LOOKING,
        "config_changed": State.LOOKING,
        "adopted": State.READY,
        "found": State.PREPARING,
        "failed": State.FAILED,
    },
    State.PREPARING: {
        "checked": State.PREPARING,
        "spawned": State.WAITING,
        "failed": State.FAILED,
    },
    State.WAITING: {
        "ready": State.READY,
        "said": State.WAITING,
        "stray": State.WAITING,
        "died": State.DEAD,
        "reaper_lost": State.DEAD,
        "unseen": State.UNSEEN,
        "stopping": State.STOPPING,
        "stopped": State.STOPPED,
    },
    State.READY: {
        "said": State.READY,
        "stray": State.READY,
        "died": State.DEAD,
        "reaper_lost": State.DEAD,
        "unseen": State.UNSEEN,
        "stopping": State.STOPPING,
        "stopped": State.STOPPED,
        "left": State.LEFT,
    },
    State.DEAD: {"stray": State.DEAD, "stopping": State.DEAD, "stopped": State.STOPPED},
    State.UNSEEN: {
        "stray": State.UNSEEN,
        "died": State.DEAD,
        "reaper_lost": State.DEAD,
        "stopping": State.UNSEEN,
        "stopped": State.STOPPED,
    },
    State.STOPPING: {
        "said": State.STOPPING,
        "stray": State.STOPPING,
        "stopping": State.STOPPING,
        "stopped": State.STOPPED,
    },
    State.STOPPED: {"not_recovered": State.STOPPED, "failed": State.FAILED},
    State.LEFT: {
        "died": State.DEAD,
        "unseen": State.UNSEEN,
        "stopping": State.STOPPING,
        "stopped": State.STOPPED,
    },
    State.FAILED: {},
}


class IllegalMoveError(Exception):
    """A bug in this package: an event came that the state does not allow.

    The state is unchanged.
    """


def next_state(state: State, kind: str) -> State:
    """Say which state an event of this kind leads to.

    Raises:
        IllegalMoveError: The table has no such move.
    """
    try:
        return TRANSITIONS[state][kind]
    except KeyError:
        raise IllegalMoveError(
            f"a daemon that is {state.value} can't get the event {kind!r}"
        ) from None
