"""Exit statuses: what the shell is told, in one table for commands that are alike."""

import errno
import signal
from collections.abc import Iterable, Iterator
from typing import Final

from attrs import frozen

from trio_lifecycle._errors import (
    BinaryNotFoundError,
    ConfigError,
    DaemonStateUnknownError,
    LifecycleError,
    ReadyTimeoutError,
    SpawnError,
    StallTimeoutError,
)
from trio_lifecycle._record_errors import ClaimTimeoutError, DaemonNotRunningError
from trio_lifecycle._ssh_errors import SSHConnectError

# The numbers are those of timeout(1) and env(1), of POSIX shells for signals, and of init scripts
# for what runs not (Linux Standard Base Core 5.0, section 22.2).
ALL_WELL: Final = 0
WRONG_USE: Final = 2
NOT_RUNNING: Final = 3
UNKNOWN: Final = 4
TIMED_OUT: Final = 124
NOT_KEPT_UP: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
SIGNALLED: Final = 128

# Of those whose answer is what they write. It is their status for what can't be used, too.
NOT_WRITTEN: Final = NOT_KEPT_UP

# Of ``ensure`` alone: as of many programs that could not write.
UNANNOUNCED: Final = 1

# Of ``logs`` alone: as of tail(1) for a file that is not there.
NO_LOG: Final = 1

# Of ``timeline`` alone.
NO_EVENTS: Final = 1

# Of ``reap`` alone.
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


_BY_SIGNAL: Final = (
    ExitStatus("129", "stopped after SIGHUP: the terminal was closed"),
    ExitStatus("130", "stopped after Ctrl-C (SIGINT)"),
    ExitStatus("131", "stopped after Ctrl-\\ (SIGQUIT)"),
    ExitStatus("141", "stopped because nobody read our output any more (SIGPIPE)"),
    ExitStatus("143", "stopped after SIGTERM"),
)

EXIT_STATUSES: Final = (
    ExitStatus("0", "all went well"),
    ExitStatus("the status of `--then`", "that command ended by itself"),
    ExitStatus("128 + N", "the command of `--then` was ended by signal N"),
    ExitStatus("2", "wrong use, or a configuration that can't be meant; nothing was started"),
    ExitStatus("124", "the daemon was not ready in time"),
    ExitStatus(
        "125",
        "the daemon died before it was ready, or ended by itself while it was needed, whatever "
        "its own status; or it could not be had or stopped for another reason, such as a machine "
        "that can't be reached",
    ),
    ExitStatus("126", "the program is there but can't be executed"),
    ExitStatus("127", "the program was not found"),
    *_BY_SIGNAL,
)

ENSURE_EXIT_STATUSES: Final = (
    ExitStatus("0", "it runs, and the line that says where it is was written"),
    ExitStatus(
        "1",
        "it runs, but that could not be written to standard output, or a signal came before; "
        "standard error says so",
    ),
    ExitStatus("2", "wrong use, or a configuration that can't be meant; nothing was started"),
    ExitStatus("3", "another program stopped it while it was being started"),
    ExitStatus(
        "4",
        "it can't be told whether it runs, as on a machine that can't be reached, or it runs but "
        "is not up; nothing was done",
    ),
    ExitStatus("124", "it was not ready in time, or another program was starting it for too long"),
    ExitStatus(
        "125",
        "it died before it was ready; or it runs with other options, under `--on-change error`; or "
        "it could not be had for another reason, such as a registry that can't be used",
    ),
    ExitStatus("126", "the program is there but can't be executed"),
    ExitStatus("127", "the program was not found"),
    ExitStatus(
        "129, 130, 131, 141, 143",
        "given up after a signal, as for `run`, before it was seen to be up; of what was started "
        "here nothing is left, and one that ran already runs on",
    ),
)

# Of ``status``, ``stop``, ``wait`` and ``logs``.
DAEMON_EXIT_STATUSES: Final = (
    ExitStatus(
        "0",
        "`status`: all run, starting and stopping included; `stop`, `wait`: all are gone, also if "
        "they were before, or never ran; `stop --forget`: none is recorded; `logs`: shown",
    ),
    ExitStatus("1", "`logs`: there is none"),
    ExitStatus("2", "wrong use; nothing was done"),
    ExitStatus("3", "`status`: one is not running"),
    ExitStatus(
        "4",
        "whether one runs can't be told, as on a machine that can't be reached, which counts for "
        "more than 3",
    ),
    ExitStatus(
        "125",
        "`stop`: a process outlived SIGKILL; all: the registry or the log file can't be used, or "
        "standard output is closed or can't be written to",
    ),
    *(ExitStatus(row.status, row.meaning.replace("stopped", "ended", 1)) for row in _BY_SIGNAL),
)

REAP_EXIT_STATUSES: Final = (
    ExitStatus("0", "nothing is left: there was nothing, or all of it was killed"),
    ExitStatus("1", "something is left, and was not to be killed"),
    ExitStatus("2", "wrong use; nothing was looked for"),
    ExitStatus("3", "something is left after SIGKILL, or it can't be told what is"),
    ExitStatus("130", "ended by Ctrl-C (SIGINT)"),
    ExitStatus("141", "ended because nobody read our output any more (SIGPIPE)"),
)

TIMELINE_EXIT_STATUSES: Final = (
    ExitStatus("0", "the page was written"),
    ExitStatus("1", "there are no events, or what should hold them can't be read"),
    ExitStatus("2", "wrong use; nothing was written"),
    ExitStatus("125", "the page can't be written"),
    ExitStatus("130", "ended by Ctrl-C (SIGINT)"),
    ExitStatus("141", "ended because nobody read our output any more (SIGPIPE)"),
)

DEMO_EXIT_STATUSES: Final = (
    ExitStatus("0", "all went well, and nothing is left of what was started; or it was to be kept"),
    ExitStatus("2", "wrong use, or an extra is missing; nothing was started"),
    ExitStatus(
        "125",
        "a program could not be had, or could not be stopped in order, as standard error says; or "
        "what was to be written could not be",
    ),
    *_BY_SIGNAL,
)


def status_of_error(error: LifecycleError) -> int:
    """Say which status an error ends us with."""
    match error:
        case ConfigError():
            return WRONG_USE
        case DaemonNotRunningError():
            return NOT_RUNNING
        case DaemonStateUnknownError() | SSHConnectError():
            return UNKNOWN
        case ReadyTimeoutError() | StallTimeoutError() | ClaimTimeoutError():
            return TIMED_OUT
        case BinaryNotFoundError(near_misses=misses):
            return NOT_EXECUTABLE if misses else NOT_FOUND
        case SpawnError(retryable=False) if _is_about_program(error):
            return NOT_EXECUTABLE
    return NOT_KEPT_UP


def _is_about_program(error: SpawnError) -> bool:
    # What the system says of a program stands behind its path. All else that was refused, such as
    # a log file or a user, is named by a word.
    return error.problem.startswith("/") or error.errno == errno.E2BIG


def status_beside_command(error: LifecycleError) -> int:
    """Say which status an error ends ``run`` with: the small ones are left to its command."""
    status = status_of_error(error)
    return NOT_KEPT_UP if status in (NOT_RUNNING, UNKNOWN) else status


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
