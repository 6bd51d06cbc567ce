"""What a ready mode may know before the spawn."""

from collections.abc import Callable, Mapping
from pathlib import Path

from attrs import field, frozen

from trio_lifecycle._markers import Marker
from trio_lifecycle._prober_contract import Prober
from trio_lifecycle._reports import Progress


def _hear_nothing(progress: Progress) -> None:
    """Nobody waits for the daemon."""


def _no_queue(host: str, port: int) -> bool | None:
    """No socket is passed."""
    return None


@frozen(kw_only=True)
class Start:
    """What a ready mode may know before the spawn.

    Attributes:
        name: The daemon's name.
        instance_id: The id of the spawn to come.
        port: What FREE_PORT stands for in this spawn; None when it is not used.
        prober: How to ask, from where the daemon will run.
        in_arguments: The markers that stand in the daemon's arguments, which other users of the
            machine can read.
        env: What the configuration changes in the daemon's environment, as far as it is known
            before the spawn; None removes a variable. The values may be secret.
        secrets: Texts that must stand in no message. They are blotted out of all that the mode
            says; only where it shows a part of a text it has to do so before it cuts, since a part
            of a secret is not found.
        working_dir: Where the daemon runs; None is the directory of this program.
        user: Whom it runs as, by name or id; None is this program's user.
        group: Its main group, by name or id; None is the user's, or this program's.
        hear: Is to be called, from Trio's thread, with what the daemon says of itself by itself: it
            puts off the end of a wait that lasts for signs of life, and tells the observer.
        passes_sockets: Whether sockets are passed to it; connections to them are taken before it is
            there.
        queue_at: Says of an address (a UNIX socket's path, and 0) whether connections wait there
            that the daemon has not accepted; None where no socket is passed to it. A connection to
            one that is succeeds before the daemon is there, and is no sign of it.
    """

    name: str
    instance_id: str
    port: int | None
    prober: Prober
    in_arguments: frozenset[Marker] = frozenset()
    env: Mapping[str, str | None] = field(factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    working_dir: Path | None = None
    user: str | int | None = None
    group: str | int | None = None
    hear: Callable[[Progress], None] = field(default=_hear_nothing, repr=False)
    passes_sockets: bool = False
    queue_at: Callable[[str, int], bool | None] = field(default=_no_queue, repr=False)
