"""What a spawner is asked for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from attrs import field, frozen

from trio_lifecycle._destination import Output
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, StopLadder

# Every process that a daemon starts inherits it, unless it empties its environment.
INSTANCE_VARIABLE: Final = "TRIO_LIFECYCLE_INSTANCE"

# Beside it, who owns the daemon (``owner_mark``): what bears it is a stray once that program is
# dead. A daemon that is detached may inherit it, and must be rid of it.
OWNER_VARIABLE: Final = "TRIO_LIFECYCLE_OWNER"

# Where a daemon under ``Callback`` finds the URL to post to.
CALLBACK_VARIABLE: Final = "TRIO_LIFECYCLE_CALLBACK_URL"

# Where a daemon under ``Notify`` finds its socket and the limit of its watchdog: sd_notify(3),
# sd_watchdog_enabled(3).
NOTIFY_VARIABLE: Final = "NOTIFY_SOCKET"
WATCHDOG_VARIABLE: Final = "WATCHDOG_USEC"

# What whoever started this program has told this program alone. A daemon that took it for its own
# would speak in our name.
NOT_INHERITED: Final = (
    *(CALLBACK_VARIABLE, NOTIFY_VARIABLE, WATCHDOG_VARIABLE, "WATCHDOG_PID"),
    # Of sockets that it was passed, sd_listen_fds(3): nobody inherits those.
    *("LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
)

# Below are the standard streams. One message to the reaper carries 253 (SCM_MAX_FD), which leaves
# room for those and its own.
DESCRIPTOR_NUMBERS: Final = range(3, 250)


def _descriptors(descriptors: Mapping[int, int]) -> Mapping[int, int]:
    for number in descriptors:
        if number not in DESCRIPTOR_NUMBERS:
            first, last = DESCRIPTOR_NUMBERS[0], DESCRIPTOR_NUMBERS[-1]
            problem = f"a daemon can be given one as {first} to {last}, not as {number}"
            raise ConfigError("descriptors", problem)
    return descriptors


@frozen(kw_only=True)
class SpawnRequest:
    """Everything that a spawner needs to know about one spawn; all markers are filled in.

    Attributes:
        name: The daemon's name, for messages.
        instance_id: The id of this spawn.
        program: The program's absolute path.
        args: The arguments after the program's name.
        env: What is changed in the environment that is there: variables to set, and with None to
            remove. The values may be secret and stand in no message.
        working_dir: Where the daemon runs; None is the directory of this program.
        output: Where its output goes.
        detached: True when it shall outlive this program: its output then goes straight to the file
            ``output.to``, and nothing of this program is needed for it to go on.
        limits: What it and all that it starts may use, as (soft, hard) by the names of
            setrlimit(2) in lower case; None is unlimited.
        umask: Its umask; None is this program's.
        user: Whom it runs as, by name or id; None is this program's user.
        group: Its main group, by name or id; None is the user's, or this program's.
        ladder: How it is stopped when its owner was killed.
        gated: True when nothing of the program may run before ``Process.open_gate``; if this
            program ends before that, the process does, too, and the program never ran.
        descriptors: What it inherits beyond its standard streams: its number there, from 3 on ->
            the descriptor of this program, which this program keeps. A pipe or socket is as
            blocking there as it is here: both are one.
        pid_variable: A variable for the daemon's own process number, which nobody knows before;
            None for none.
        secrets: Texts that must stand in no message, nor in what is passed on to ``output.to``.

    Raises:
        ConfigError: A descriptor is to have a number that can't be given.
    """

    name: str
    instance_id: str
    program: str
    args: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str | None] = field(repr=False)
    working_dir: Path | None
    output: Output
    detached: bool
    limits: Mapping[str, tuple[int | None, int | None]] = field(factory=dict)
    umask: int | None = None
    user: str | int | None = None
    group: str | int | None = None
    ladder: StopLadder = DEFAULT_STOP_LADDER
    gated: bool = False
    descriptors: Mapping[int, int] = field(factory=dict, converter=_descriptors)
    pid_variable: str | None = None
    secrets: tuple[str, ...] = field(default=(), repr=False)
