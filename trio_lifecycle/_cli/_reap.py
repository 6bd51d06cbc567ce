"""``trio-lifecycle reap``: what was left of daemons whose owner is dead, and how it is ended."""

import math
import os
import pwd
import signal
import sys
from contextlib import suppress
from typing import Any, Final

import trio
from attrs import frozen
from rich.text import Text

from trio_lifecycle._cli._codes import ALL_WELL, FOUND, NOT_GONE, WRONG_USE, status_of_signal
from trio_lifecycle._cli._json_lines import json_line
from trio_lifecycle._cli._speech import STDERR, STDIN, STDOUT, say, write
from trio_lifecycle._cli._tables import empty_table, in_words, render
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._proc import wchan
from trio_lifecycle._strays import DEFAULT_GRACE_S, Stray, find_strays, kill_strays, owner_mark

# As much of an instance's id as tells some dozens apart; --instance takes it.
_SHOWN_ID_CHARS: Final = 12


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
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            # Until now it ended us without a word.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            return self._reap(self._grace_s())
        except ConfigError as error:
            say(str(error))
            return WRONG_USE
        except BrokenPipeError:
            return status_of_signal(signal.SIGPIPE)
        except OSError as error:
            say(f"it can't be told what is left: {error}")
            return NOT_GONE
        except KeyboardInterrupt:
            # A key was echoed on this line, or a question stands there.
            say("Ctrl-C: leaving; what is left shows: trio-lifecycle reap", fresh="\n")
            return status_of_signal(signal.SIGINT)

    def _reap(self, grace_s: float) -> int:
        if not owner_mark():
            say("it can't be told what is left: there is no /proc of our own pid namespace")
            return NOT_GONE
        strays = [stray for stray in find_strays() if self._is_asked_for(stray)]
        if not strays:
            say("nothing was left")
            return ALL_WELL
        write(STDOUT, as_json(strays) if self.json else as_table(strays, STDOUT))
        if not (self.yes or self._consents(len(strays))):
            say("nothing was killed; add --yes to kill without being asked")
            return FOUND
        say(f"SIGTERM to all, and SIGKILL to what is left after {grace_s:g} s")
        return _report(trio.run(kill_strays, strays, grace_s))

    def _is_asked_for(self, stray: Stray) -> bool:
        return not self.instances or stray.instance_id.startswith(self.instances)

    def _consents(self, count: int) -> bool:
        # JSON is for programs, which can't be asked.
        if self.json or not (os.isatty(STDIN) and os.isatty(STDERR)):
            return False
        what = "this process" if count == 1 else f"these {count} processes"
        write(STDERR, f"Kill {what}? [y/N] ")
        answer = sys.stdin.readline()
        if not answer:  # Ctrl-D, which the terminal doesn't echo
            write(STDERR, "\n")
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
        say(f"process {stray.stat.pid} is still there{where}: {stray.command}")
    if left:
        return NOT_GONE
    say("all of it is gone")
    return ALL_WELL


# --- how it is shown ------------------------------------------------------------------------------


def as_json(strays: list[Stray]) -> str:
    """Write one object a line."""
    return "".join(json_line(_facts(stray)) for stray in strays)


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
    """Write one row each."""
    table = empty_table()
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
    return render(table, fd)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
