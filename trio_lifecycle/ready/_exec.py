"""Ready when a command says so by its exit status."""

import os
from collections.abc import Sequence
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import BinaryNotFoundError, ConfigError
from trio_lifecycle._markers import fill, markers_in
from trio_lifecycle._polling import FRACTION_FOR_PROGRAMS
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._status import describe_status
from trio_lifecycle._texts import check_text, with_sample_port
from trio_lifecycle.abc import Command, Prober, Process, Ran, ReadyMode, Report, Start, Verdict
from trio_lifecycle.ready._filled import port_values
from trio_lifecycle.ready._polled import (
    ArmedPolled,
    Outcome,
    Reply,
    check_interval,
    check_probe_timeout,
)
from trio_lifecycle.ready._statuses import Statuses, read_statuses, show_statuses

# A client that is written in Python or Java needs a second to come up, more on a busy machine.
DEFAULT_PROBE_TIMEOUT_S: Final = 5.0

# What a command can end with, as subprocess counts, but for success: a signal is negative.
_FAILURES: Final = range(-64, 256)

# A program costs some milliseconds to start, and more where it is written in Python or Java.
DEFAULT_INTERVAL_S: Final = 0.5

# How much of what a command wrote last is shown.
_SHOWN_CHARS: Final = 200


def _command(command: Sequence[str | os.PathLike[str]]) -> tuple[str, ...]:
    value: object = command
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ConfigError(
            "command",
            'must be a list such as ["redis-cli", "ping"], or ["sh", "-c", "..."] for a shell, '
            f"not one {type(value).__name__}",
        )
    words = tuple(check_text(f"command[{index}]", word) for index, word in enumerate(value))
    name = words[0] if words else ""
    if not name or name.endswith("/") or markers_in([name]):
        raise ConfigError("command", "must begin with the name or path of a program")
    if any("\0" in with_sample_port(word) for word in words):
        raise ConfigError("command", "can hold no other marker than FREE_PORT")
    return words


def _fatal_statuses(statuses: Statuses) -> frozenset[int]:
    found = read_statuses("fatal_statuses", statuses, _FAILURES)
    if 0 in found:
        raise ConfigError("fatal_statuses", "can't hold 0, which is success")
    return found


@frozen(repr=False)
class Exec(ReadyMode):
    """Ready when a command ends with exit status 0.

    It runs as the daemon does: on its machine, with its variables, in its directory, as its user.
    It is not the daemon, so see to it that it asks the right one: a port that a stranger has may
    answer it, too. Nothing of a run is left: what it has started is killed when it ends, when it
    takes too long, and when this program is killed. The first run begins with the daemon; there is
    one at a time.

    Attributes:
        command: The program, by name or path, and its arguments, each a string or path of its own;
            there is no shell. It may hold FREE_PORT. ``repr`` and messages show the program and no
            argument, as that may be a password; what the command itself writes last is shown.
        interval: Seconds between the end of a run and the next at most. Defaults to 0.5; the pause
            grows up to it from 1 ms, and is a twentieth of the time waited. With less, commands
            take a good part of a processor from a daemon that needs it to start.
        probe_timeout: Seconds that one run may take. Defaults to 5. With less than it takes on a
            busy machine, it never succeeds.
        fatal_statuses: Exit statuses after which waiting can't help, such as ``{2, 127}``: a
            ReadyError at once. Numbers and ranges; -9 is SIGKILL. Defaults to none.

    Raises:
        ConfigError: A value can't be meant. When the daemon is started: there is no such program.
    """

    command: tuple[str, ...] = field(converter=_command)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval, kw_only=True)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )
    fatal_statuses: frozenset[int] = field(
        default=frozenset(), converter=_fatal_statuses, kw_only=True
    )

    def __repr__(self) -> str:
        program, *args = self.command
        more = f" and {len(args)} more" if args else ""
        limits = f"interval={self.interval}, probe_timeout={self.probe_timeout}"
        if self.fatal_statuses:
            limits += f", fatal_statuses={{{show_statuses(self.fatal_statuses)}}}"
        return f"Exec([{program!r}{more}], {limits})"

    @property
    def texts(self) -> tuple[str, ...]:
        """The command."""
        return self.command

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> ArmedPolled:
        """Find the program.

        Raises:
            ConfigError: It is not there.
        """
        command = Command(
            name=f"a probe of {start.name}",
            program=await _find(start.prober, self.command[0]),
            args=tuple(fill(word, port_values(start)) for word in self.command[1:]),
            env=start.env,
            working_dir=start.working_dir,
            user=start.user,
            group=start.group,
        )
        secrets, limit_s = Secrets(start.secrets), self.probe_timeout
        place = _CommandPlace(start.prober, command, limit_s, self.fatal_statuses, secrets)
        report = Report(None, start.port)
        shown, fraction = self.command[0], FRACTION_FOR_PROGRAMS
        return ArmedPolled(start, shown, [place], report, self.interval, fraction=fraction)

    async def arm_again(self, start: Start) -> ArmedPolled:
        """Run the same command."""
        return await self.arm(start)


async def _find(prober: Prober, name: str) -> str:
    try:
        return await prober.find_binary(name)
    except BinaryNotFoundError as error:
        found = "; ".join(error.near_misses or ("it is nowhere",))
        problem = f"{name} can't be run: {found}. Install it, or give its full path"
        raise ConfigError("command", problem) from error


class _CommandPlace:
    """A command, asked by running it."""

    address = None

    def __init__(
        self,
        prober: Prober,
        command: Command,
        limit_s: float,
        fatal: frozenset[int],
        secrets: Secrets,
    ) -> None:
        self._prober = prober
        self._command = command
        self._limit_s = limit_s
        self._fatal = fatal
        self._secrets = secrets

    async def ask(self, *, patient: bool = False) -> Reply:
        """Run it once."""
        with trio.move_on_after(self._limit_s):
            ran = await self._prober.run(self._command)
            return Reply(self._outcome(ran), describe(ran, self._secrets))
        return Reply(Outcome.NOT_YET, f"did not end within {self._limit_s} s")

    def _outcome(self, ran: Ran) -> Outcome:
        if ran.status == 0:
            return Outcome.UP
        return Outcome.NEVER if ran.status in self._fatal else Outcome.NOT_YET

    async def whose(self, process: Process) -> Verdict:
        """Believe it: only the command knows whom it has asked."""
        return Verdict.OURS


def describe(ran: Ran, secrets: Secrets) -> str:
    """Say how a command ended, with the last line that it wrote."""
    if ran.status is None:
        return ran.problem
    # Before anything is cut off or replaced: what is left of a secret would not be found.
    lines = secrets.show_tail(ran.output).split("\n")
    said = next((line.strip() for line in reversed(lines) if line.strip()), "")
    shown = "".join(char if char.isprintable() else "?" for char in said)
    end = f": {shown[:_SHOWN_CHARS]}" if shown else ""
    return f"{describe_status(ran.status)}{end}"
