"""``trio-lifecycle reap``: what was left of daemons whose owner is dead, and how it is ended."""

import json
import math
import os
import pwd
import signal
import sys
from contextlib import suppress
from typing import Any, Final

import trio
from attrs import frozen
from rich.console import Console
from rich.table import Table
from rich.text import Text

from trio_lifecycle._cli._codes import ALL_WELL, FOUND, NOT_GONE, WRONG_USE, status_of_signal
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._proc import wchan
from trio_lifecycle._strays import DEFAULT_GRACE_S, Stray, find_strays, kill_strays, owner_mark

_STDIN: Final = 0
_STDOUT: Final = 1
_STDERR: Final = 2

# Where there is no terminal to fill, nothing is cut off: wider than the longest command line.
_UNBOUNDED_COLUMNS: Final = 1000

# As much of an instance's id as tells some dozens apart; --instance takes it.
_SHOWN_ID_CHARS: Final = 12

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@frozen(kw_only=True)
class Reap:
    """One search, from the options as they were written to the exit status."""

    instances: tuple[str, ...] = ()
    grace: str | None = None
    yes: bool = False
    json: bool = False

    def __call__(self) -> int:
        """Look, show, ask, and kill what may be killed.

        Returns:
            The exit status.
        """
        try:
            return self._reap(self._grace_s())
        except ConfigError as error:
            _say(str(error))
            return WRONG_USE
        except BrokenPipeError:
            return status_of_signal(signal.SIGPIPE)
        except OSError as error:
            _say(f"it can't be told what is left: {error}")
            return NOT_GONE
        except KeyboardInterrupt:
            # A key was echoed on this line, or a question stands there.
            _say("Ctrl-C: leaving; what is left shows: trio-lifecycle reap", fresh="\n")
            return status_of_signal(signal.SIGINT)

    def _reap(self, grace_s: float) -> int:
        if not owner_mark():
            _say("it can't be told what is left: there is no /proc of our own pid namespace")
            return NOT_GONE
        strays = [stray for stray in find_strays() if self._is_asked_for(stray)]
        if not strays:
            _say("nothing was left")
            return ALL_WELL
        _write(_STDOUT, as_json(strays) if self.json else as_table(strays, _STDOUT))
        if not (self.yes or self._consents(len(strays))):
            _say("nothing was killed; add --yes to kill without being asked")
            return FOUND
        _say(f"SIGTERM to all, and SIGKILL to what is left after {grace_s:g} s")
        return _report(trio.run(kill_strays, strays, grace_s))

    def _is_asked_for(self, stray: Stray) -> bool:
        return not self.instances or stray.instance_id.startswith(self.instances)

    def _consents(self, count: int) -> bool:
        # JSON is for programs, which can't be asked.
        if self.json or not (os.isatty(_STDIN) and os.isatty(_STDERR)):
            return False
        what = "this process" if count == 1 else f"these {count} processes"
        _write(_STDERR, f"Kill {what}? [y/N] ")
        answer = sys.stdin.readline()
        if not answer:  # Ctrl-D, which the terminal doesn't echo
            _write(_STDERR, "\n")
        return answer.strip().lower() in ("y", "yes")

    def _grace_s(self) -> float:
        if "" in self.instances:
            raise ConfigError("--instance", "wants an id, or its beginning; it is empty")
        if self.grace is None:
            return DEFAULT_GRACE_S
        with suppress(ValueError):
            seconds = float(self.grace)
            if 0 <= seconds < math.inf:
                return seconds
        raise ConfigError("--grace", f"wants seconds, 0 or more, not {self.grace!r}")


def _report(left: list[Stray]) -> int:
    for stray in left:
        place = wchan(stray.stat.pid)
        where = f" (it waits in the kernel: {place})" if place else ""
        _say(f"process {stray.stat.pid} is still there{where}: {stray.command}")
    if left:
        return NOT_GONE
    _say("all of it is gone")
    return ALL_WELL


# --- how it is shown ------------------------------------------------------------------------------


def as_json(strays: list[Stray]) -> str:
    """Write one object a line."""
    return "".join(json.dumps(_facts(stray)) + "\n" for stray in strays)


def _facts(stray: Stray) -> dict[str, Any]:
    return {
        "pid": stray.stat.pid,
        "ppid": stray.stat.ppid,
        "instance_id": stray.instance_id,
        "owner_pid": stray.owner_pid,
        "age_s": round(stray.age_s, 2),
        "uid": stray.uid,
        "user": _user(stray.uid),
        "command": stray.command,
    }


def as_table(strays: list[Stray], fd: int) -> str:
    """Write a table as wide as the terminal that this descriptor is; in full if it is none."""
    is_terminal = os.isatty(fd)
    # https://no-color.org: not empty.
    coloured = is_terminal and not os.environ.get("NO_COLOR")
    console = Console(
        force_terminal=is_terminal,
        color_system="auto" if coloured else None,
        width=None if is_terminal else _UNBOUNDED_COLUMNS,
        highlight=False,
    )
    with console.capture() as captured:
        console.print(_table(strays))
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def _table(strays: list[Stray]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("process", justify="right", no_wrap=True)
    table.add_column("age", justify="right", no_wrap=True)
    for title in ("user", "owner", "instance"):
        table.add_column(title, no_wrap=True)
    # The only column that gives way: each of its cells is one line, cut off where there is no room.
    table.add_column("command")
    for stray in strays:
        table.add_row(
            str(stray.stat.pid),
            in_words(stray.age_s),
            Text(_user(stray.uid)),
            f"{stray.owner_pid}, dead",
            stray.instance_id[:_SHOWN_ID_CHARS],
            # No plain text: what looks like Rich's markup is the program's own.
            Text(stray.command, "cyan", no_wrap=True, overflow="ellipsis"),
        )
    return table


def in_words(seconds: float) -> str:
    """Say how long something has lasted, in the greatest unit of which there is one whole."""
    name, unit = next(((n, u) for n, u in _UNITS if seconds >= u), _UNITS[-1])
    return f"{seconds // unit:.0f} {name}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _say(text: str, fresh: str = "") -> None:
    # Who does not read what we say of it shall have it done all the same.
    with suppress(OSError):
        _write(_STDERR, f"{fresh}trio-lifecycle: {text}\n")


def _write(fd: int, text: str) -> None:
    rest = memoryview(text.encode(errors="backslashreplace"))
    while rest:
        rest = rest[os.write(fd, rest) :]
