"""Exit statuses: what the shell is told, in one table for each command."""

import signal
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from trio_lifecycle._errors import (
    BinaryNotFoundError,
    ConfigError,
    LifecycleError,
    ReadyTimeoutError,
    SpawnError,
)

# The numbers are those of timeout(1) and env(1), and of POSIX shells for signals.
ALL_WELL: Final = 0
WRONG_USE: Final = 2
TIMED_OUT: Final = 124
NOT_KEPT_UP: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128

# Of ``reap`` alone; they mean nothing to ``run``.
FOUND: Final = 1
NOT_GONE: Final = 3

# What ends us, and what the person at the keyboard knows it by.
SIGNALS: Final = {
    signal.SIGINT: "Ctrl-C",
    signal.SIGTERM: "SIGTERM",
    signal.SIGHUP: "SIGHUP",
    signal.SIGQUIT: "Ctrl-\\",
}


@frozen
class ExitStatus:
    """One row of the table.

    Attributes:
        status: The number, or how it is made.
        meaning: What happened.
    """

    status: str
    meaning: str


EXIT_STATUSES: Final = (
    ExitStatus("0", "all went well"),
    ExitStatus("the status of `--then`", "that command ended by itself"),
    ExitStatus("128 + N", "the command of `--then` was ended by signal N"),
    ExitStatus("2", "wrong use, or a configuration that can't be meant; nothing was started"),
    ExitStatus("124", "the daemon was not ready in time"),
    ExitStatus(
        "125",
        "the daemon died before it was ready, or ended by itself while it was needed, whatever "
        "its own status; or it could not be had or stopped for another reason",
    ),
    ExitStatus("126", "the program is there but can't be executed"),
    ExitStatus("127", "the program was not found"),
    ExitStatus("129", "stopped after SIGHUP: the terminal was closed"),
    ExitStatus("130", "stopped after Ctrl-C (SIGINT)"),
    ExitStatus("131", "stopped after Ctrl-\\ (SIGQUIT)"),
    ExitStatus("141", "stopped because nobody read our output any more (SIGPIPE)"),
    ExitStatus("143", "stopped after SIGTERM"),
)

REAP_EXIT_STATUSES: Final = (
    ExitStatus("0", "nothing is left: there was nothing, or all of it was killed"),
    ExitStatus("1", "something is left, and was not to be killed"),
    ExitStatus("2", "wrong use; nothing was looked for"),
    ExitStatus("3", "something is left after SIGKILL, or it can't be told what is"),
    ExitStatus("130", "ended by Ctrl-C (SIGINT)"),
    ExitStatus("141", "ended because nobody read our output any more (SIGPIPE)"),
)


def status_of_error(error: LifecycleError) -> int:
    """Say which status an error ends us with."""
    match error:
        case ConfigError():
            return WRONG_USE
        case ReadyTimeoutError():
            return TIMED_OUT
        case BinaryNotFoundError(near_misses=misses):
            return NOT_EXECUTABLE if misses else NOT_FOUND
        case SpawnError(retryable=False):
            return NOT_EXECUTABLE
    return NOT_KEPT_UP


def status_of_signal(signum: int) -> int:
    """Say which status a signal ends us with."""
    return SIGNALLED + signum


def status_of_command(returncode: int) -> int:
    """Translate a status as ``subprocess`` counts, -15 for SIGTERM, into a shell's."""
    return returncode if returncode >= 0 else status_of_signal(-returncode)


def table(rows: Iterable[ExitStatus] = EXIT_STATUSES) -> Iterator[str]:
    """Write a table as Markdown, a line at a time; that of ``run`` if no other is given."""
    yield "| status | meaning |"
    yield "|---|---|"
    for row in rows:
        yield f"| {row.status} | {row.meaning} |"
