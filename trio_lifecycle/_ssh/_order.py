"""What a launcher is told: what to start on the other machine, written for its shell."""

import errno
import os
import re
from collections.abc import Iterator, Mapping
from math import ceil
from shlex import quote
from typing import Final

from attrs import field, frozen

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, StopLadder
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle._status import signal_name

# execve(2): one string may have that many bytes, its NUL among them (MAX_ARG_STRLEN).
_LONGEST_STRING_BYTES: Final = 131_072

# All together: a quarter of the usual limit of the stack, 8 MiB.
_MOST_BYTES: Final = 2 * 1024 * 1024

TOO_BIG: Final = (
    "the arguments and the environment are larger than the system takes (execve(2), E2BIG)"
)

# What a shell can set and hand on: dash drops a variable with any other name.
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

# What shells set by themselves, obey, or let nobody set.
_OF_SHELLS: Final = frozenset(
    {
        *("_", "ENV", "IFS", "OPTIND", "OPTARG", "PPID", "LINENO", "PS1", "PS2", "PS4", "SHLVL"),
        *("OLDPWD", "SHELLOPTS", "BASHOPTS", "POSIXLY_CORRECT", "UID", "EUID", "GROUPS", "RANDOM"),
        *("SRANDOM", "SECONDS", "EPOCHSECONDS", "EPOCHREALTIME", "HISTCMD", "DIRSTACK"),
        *("FUNCNAME", "PIPESTATUS", "COMP_WORDBREAKS"),
    }
)

# The letter of ulimit, and the bytes of its unit.
_ULIMITS: Final = {
    "as": ("v", 1024),
    "core": ("c", 512),
    "cpu": ("t", 1),
    "data": ("d", 1024),
    "fsize": ("f", 512),
    "memlock": ("l", 1024),
    "nofile": ("n", 1),
    "rss": ("m", 1024),
    "stack": ("s", 1024),
}


@frozen(kw_only=True)
class Order:
    """What a launcher is to start.

    Attributes:
        name: The daemon's name, for messages and the log.
        program: The program's path there, an absolute one.
        args: The arguments after the program's name.
        env: What is changed in the environment that the login gives: variables to set, and with
            None to remove.
        working_dir: Where it runs; None is the login's directory, which a relative one is below.
        log: Where its output goes; None is a log of the state directory, whose last five are kept.
        limits: As for ``SpawnRequest``.
        umask: Its umask; None is the login's.
        pid_variable: A variable for its own process number; None for none.
        owned: Whether it is ended, with its children, when the session ends or is silent for too
            long. Its log is then a temporary one, unless ``log`` names another.
        heartbeat_limit_s: How long an owned one's session may be silent, in seconds; more than one
            second, and whole ones. Defaults to 15: three beats of 5 seconds.
        ladder: How an owned one is ended then.
    """

    name: str
    program: str
    args: tuple[str, ...] = field(default=(), repr=False)
    env: Mapping[str, str | None] = field(factory=dict, repr=False)
    working_dir: str | None = None
    log: str | None = None
    limits: Mapping[str, tuple[int | None, int | None]] = field(factory=dict)
    umask: int | None = None
    pid_variable: str | None = None
    owned: bool = False
    heartbeat_limit_s: float = 15.0
    ladder: StopLadder = DEFAULT_STOP_LADDER


def write_order(order: Order, token: str) -> bytes:
    """Write what the launcher's shell reads after the launcher itself.

    No value of a variable stands in the arguments of any process, except where the name of the
    variable is none that a shell can hand on: then, for a moment, in those of env(1).

    Raises:
        SpawnError: It is larger than the system takes, holds a NUL, or can't be said to a shell.
    """
    _check(order)
    lines = [*_settings(order, token), *_limits(order), *_variables(order)]
    command = [order.program, *_by_env(order), order.program, *order.args]
    lines.append(" ".join(["trio_launch", *map(quote, command)]))
    return "\n".join([*lines, ""]).encode(errors="surrogateescape")


def _check(order: Order) -> None:
    variables = [f"{name}={value}" for name, value in order.env.items() if value is not None]
    texts = [order.program, *order.args, *variables]
    if any("\0" in text for text in (*texts, order.working_dir or "", order.log or "")):
        raise SpawnError(order.name, "what it is started with holds a NUL, which no process can")
    odd = next((name for name in order.env if not _is_of_shell(name)), None)
    if odd is not None and "=" in order.program:
        raise SpawnError(
            order.name,
            f"on a machine without python3 the variable {odd!r} is set by env(1), which would take "
            f"{order.program!r} for a variable, too; use a path without '='",
        )
    sizes = [len(os.fsencode(text)) + 1 for text in texts]
    if max(sizes) > _LONGEST_STRING_BYTES or sum(sizes) > _MOST_BYTES:
        raise SpawnError(order.name, TOO_BIG, errno.E2BIG)


def _settings(order: Order, token: str) -> Iterator[str]:
    directory = order.working_dir or ""
    pwd, mark = order.env.get("PWD", ""), order.env.get(INSTANCE_VARIABLE)
    settings = {
        "token": token,
        "name": order.name,
        "log": order.log or "",
        "cwd": directory if directory.startswith("/") or not directory else f"./{directory}",
        "umask": "" if order.umask is None else f"{order.umask:04o}",
        "pwd": "unset" if pwd is None else "set" if "PWD" in order.env else "keep",
        "given": pwd or "",
        "variable": order.pid_variable or "",
        "limit": str(max(2, ceil(order.heartbeat_limit_s)) if order.owned else 0),
        "mark": "" if mark is None else f"{INSTANCE_VARIABLE}={mark}",
        "ladder": " ".join(_rungs(order)),
    }
    return (f"trio_{key}={quote(value)}" for key, value in settings.items())


def _rungs(order: Order) -> Iterator[str]:
    """Give the ladder as the watchdog climbs it: signals by name, tenths of seconds."""
    for rung in order.ladder.rungs:
        yield signal_name(rung.signum).removeprefix("SIG").removeprefix("signal ")
        yield str(ceil(10 * rung.seconds))


def _limits(order: Order) -> Iterator[str]:
    yield "trio_limits() {"
    for name, (soft, hard) in order.limits.items():
        yield f"ulimit -S {_ulimit(order, name, soft)} &&"
        yield f"ulimit -H {_ulimit(order, name, hard)} &&"
    yield ":; }"


def _ulimit(order: Order, name: str, limit: int | None) -> str:
    letter, unit = _ULIMITS.get(name, ("", 1))
    if not letter or (limit is not None and limit % unit):
        what = f"in units of {unit} bytes" if letter else f"of {', '.join(_ULIMITS)}"
        raise SpawnError(
            order.name, f"limits[{name!r}]: on a machine without python3, sh sets it, only {what}"
        )
    return f"-{letter} {'unlimited' if limit is None else limit // unit}"


def _variables(order: Order) -> Iterator[str]:
    yield "trio_env() {"
    for name, value in order.env.items():
        if _is_of_shell(name):
            yield f"unset {name}" if value is None else f"export {name}={quote(value)}"
    yield ":; }"


def _by_env(order: Order) -> Iterator[str]:
    """Give the call of env(1) for variables that a shell can't hand on."""
    odd = {name: value for name, value in order.env.items() if not _is_of_shell(name)}
    if odd:
        yield "/usr/bin/env"
        for name, value in odd.items():
            yield from ("-u", name) if value is None else ()
        # What follows is no option, even where a name begins with a hyphen.
        yield "--"
        yield from (f"{name}={value}" for name, value in odd.items() if value is not None)


def _is_of_shell(name: str) -> bool:
    return (
        _VARIABLE.fullmatch(name) is not None
        and name not in _OF_SHELLS
        and not name.startswith(("BASH", "trio_"))
    )
