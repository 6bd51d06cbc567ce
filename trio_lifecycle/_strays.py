"""Strays: processes of daemons whose owner has died and did not take them along.

Every daemon that is owned has two variables in its environment, and all that it starts inherits
them: which instance it is, and which process owns it. They are a hint, no proof: a program may
overwrite the place where they stand, or empty its environment, and is then not found. What can't be
told for certain is never taken for a stray.
"""

import errno
import os
import re
import signal
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final

import trio
from attrs import frozen

from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, KILL_PATIENCE_S
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    command_line,
    is_descendant,
    namespace,
    read_about,
    read_stat,
    signal_process,
)
from trio_lifecycle._requests import INSTANCE_VARIABLE, OWNER_VARIABLE
from trio_lifecycle._stat import parse_stat

# From SIGTERM to SIGKILL: what a daemon gets from its owner, too.
DEFAULT_GRACE_S: Final = DEFAULT_STOP_LADDER.seconds

# How long to wait before the next look at what is left. One look reads the environment of every
# process of the machine, some 3 ms for 70 of them.
_LOOK_AGAIN_AFTER_S: Final = 0.05

# What a reaper calls itself.
_REAPER: Final = "trio-reaper"

# Linux has no greater process number (PID_MAX_LIMIT in linux/threads.h).
_GREATEST_PID: Final = 4_194_304

_MARK: Final = re.compile(r"([0-9]{1,20})-([0-9]{1,20})-([0-9]{1,20})", re.ASCII)
_INSTANCE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_UID: Final = re.compile(rb"^Uid:\s+([0-9]+)", re.MULTILINE)


# --- who owns -------------------------------------------------------------------------------------


@frozen
class Owner:
    """The program that owns a daemon, by what no other process shares with it.

    Attributes:
        pid_namespace: In which its number counts (pid_namespaces(7)).
        pid: Its number.
        start_time: When it was started, as in ``Stat``.
    """

    pid_namespace: int
    pid: int
    start_time: int

    def __str__(self) -> str:
        return f"{self.pid_namespace}-{self.pid}-{self.start_time}"


def parse_mark(text: str) -> Owner | None:
    """Read what ``owner_mark`` wrote; None for anything else."""
    found = _MARK.fullmatch(text)
    if found is None:
        return None
    owner = Owner(*map(int, found.groups()))
    return owner if 0 < owner.pid <= _GREATEST_PID else None


def owner_mark() -> str:
    """Write this process's mark, for the environment of its daemons.

    It is read anew each time: a fork of this program is another owner.

    Returns:
        An empty string where it can't be told, because /proc is missing or another namespace's.
        Daemons with this mark are never taken for strays.
    """
    owner = _this_process()
    return "" if owner is None else str(owner)


def _this_process() -> Owner | None:
    text, pid_namespace = read_about("self", "stat"), namespace("self", "pid")
    if text is None or pid_namespace is None:
        return None
    stat = parse_stat(text)
    # Another number than our own: /proc was mounted in another namespace, and speaks of its pids.
    return Owner(pid_namespace, stat.pid, stat.start_time) if stat.pid == os.getpid() else None


def _is_dead(owner: Owner) -> bool:
    """Say whether it is certain that an owner of our own namespace has ended."""
    stat = read_stat(owner.pid)
    if stat is not None:
        return stat.dead or stat.start_time != owner.start_time
    # Not to be seen does not mean dead: /proc can hide what is another user's (hidepid in proc(5)).
    try:
        os.close(os.pidfd_open(owner.pid))
    except OSError as error:
        # A number that is only a thread's is EINVAL or, on newer kernels, ENOENT.
        return error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT)
    return False


# --- finding --------------------------------------------------------------------------------------


@frozen
class Stray:
    """A process of a daemon whose owner is dead, as it was when it was found.

    Attributes:
        stat: The process.
        instance_id: The spawn that it belongs to.
        owner: Who owned it.
        command: Its command line for people; every user can read it, also what is secret in it.
        age_s: Seconds since it was started.
        uid: The number of the user whom it runs as.
    """

    stat: Stat
    instance_id: str
    owner: Owner
    command: str
    age_s: float
    uid: int

    @property
    def owner_pid(self) -> int:
        """The owner's number, which may be another process's by now."""
        return self.owner.pid

    @property
    def identity(self) -> tuple[int, int]:
        """Number and start time."""
        return self.stat.pid, self.stat.start_time


def find_strays() -> list[Stray]:
    """Find the strays of this machine that we may look at, parents before their children.

    A stray bears both variables, and its owner is dead for certain: a process of our own pid
    namespace whose number is free, a zombie's, or another process's. This program and its ancestors
    are never in the list, nor is what is below a reaper, which is about to end it.

    Returns:
        Nothing, also where nothing can be told: ``owner_mark`` is then empty.

    Raises:
        OSError: It can't be told: this program has no descriptor or memory left.
    """
    here = _this_process()
    if here is None:
        return []
    stats = all_stats()
    looked_at = (_look(stat, here) for stat in stats.values() if not stat.dead)
    found = [stray for stray in looked_at if stray is not None and not _is_cared_for(stray, stats)]
    # Clock ticks are coarse: a child may have been started in the same one as its parent.
    return sorted(found, key=lambda stray: (stray.stat.start_time, _depth(stray.stat, stats)))


def _is_cared_for(stray: Stray, stats: Mapping[int, Stat]) -> bool:
    # Bounded: a number that was given again while we looked could close a circle.
    parent = stats.get(stray.stat.ppid)
    for _ in stats:
        if parent is None or parent.command == _REAPER:
            break
        parent = stats.get(parent.ppid)
    return parent is not None and parent.command == _REAPER


def _look(stat: Stat, here: Owner) -> Stray | None:
    marks = _marks_of(stat.pid)
    if marks is None:
        return None
    instance_id, owner = marks
    if owner.pid_namespace != here.pid_namespace or not _is_dead(owner):
        return None
    # Start times are counted differently in another time namespace (time_namespaces(7)), so that a
    # living owner would look like another process with its number.
    if namespace(stat.pid, "time") != namespace("self", "time"):
        return None
    # Ourselves, our ancestors, and who leads our session: a shell in a stray terminal, say.
    if stat.pid == 1 or is_descendant(os.getpid(), stat.pid):
        return None
    uid = _UID.search(read_about(stat.pid, "status") or b"")
    if uid is None:
        return None
    return Stray(stat, instance_id, owner, command_line(stat.pid), _age_s(stat), int(uid[1]))


def _marks_of(pid: int) -> tuple[str, Owner] | None:
    """Read the two variables of a process; None unless both are there and can be meant."""
    environment = read_about(pid, "environ") or b""
    instance_id = _variable(environment, INSTANCE_VARIABLE)
    owner = parse_mark(_variable(environment, OWNER_VARIABLE))
    return (instance_id, owner) if owner and _INSTANCE_ID.fullmatch(instance_id) else None


def owners_among(stats: Mapping[int, Stat]) -> set[int]:
    """Say which of these processes own others of them, as the marks of those say."""
    pid_namespace = namespace("self", "pid") or 0
    environments = (read_about(pid, "environ") or b"" for pid in stats)
    owners = {parse_mark(_variable(each, OWNER_VARIABLE)) for each in environments}
    return {
        pid for pid, stat in stats.items() if Owner(pid_namespace, pid, stat.start_time) in owners
    }


def _variable(environment: bytes, name: str) -> str:
    # Twice the same name: getenv(3) sees the first one, too.
    start = f"{name}=".encode()
    found = (entry for entry in environment.split(b"\0") if entry.startswith(start))
    return next(found, b"").removeprefix(start).decode(errors="replace")


def _age_s(stat: Stat) -> float:
    started_s = stat.start_time / os.sysconf("SC_CLK_TCK")
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)


def _depth(stat: Stat, stats: Mapping[int, Stat]) -> int:
    seen = {stat.pid}
    # Numbers that were given again while we looked could close a circle.
    while stat.ppid in stats and stat.ppid not in seen:
        stat = stats[stat.ppid]
        seen.add(stat.pid)
    return len(seen)


# --- ending ---------------------------------------------------------------------------------------


async def kill_strays(strays: Iterable[Stray], grace_s: float = DEFAULT_GRACE_S) -> list[Stray]:
    """Ask strays to end, then insist; whatever else there is of their instances goes, too.

    Each gets SIGTERM and SIGCONT once. What is left after the grace gets SIGKILL, again and again
    for up to 5 s, since they may fork meanwhile. Each time a process is signalled only if it still
    is the one that was found, and still bears its marks.

    Args:
        strays: What ``find_strays`` gave, or some of it.
        grace_s: Seconds from SIGTERM to SIGKILL. Defaults to 10.

    Returns:
        What is left. Empty when all of these instances are gone.

    Raises:
        OSError: As with ``find_strays``; nothing more is sent then.
    """
    await trio.lowlevel.checkpoint()
    pursuit = _Pursuit(strays)
    with trio.move_on_after(grace_s):
        while left := pursuit.look():
            pursuit.ask(left)
            await trio.sleep(_LOOK_AGAIN_AFTER_S)
    with trio.move_on_after(KILL_PATIENCE_S):
        while left := pursuit.look():
            pursuit.signal(left, signal.SIGKILL)
            await trio.sleep(_LOOK_AGAIN_AFTER_S)
    return pursuit.look()


class _Pursuit:
    """Some instances, and those of their processes that were seen."""

    def __init__(self, strays: Iterable[Stray]) -> None:
        self._seen = {stray.identity: stray for stray in strays}
        self._instance_ids = {stray.instance_id for stray in self._seen.values()}
        self._asked: set[tuple[int, int]] = set()

    def look(self) -> list[Stray]:
        """Give those that live.

        Who was seen before counts until it has ended: one that is about to end, or has become
        another program, bears no marks any more.
        """
        found = [stray for stray in find_strays() if stray.instance_id in self._instance_ids]
        self._seen |= {stray.identity: stray for stray in found}
        return [stray for stray in self._seen.values() if _lives(stray)]

    def ask(self, strays: Iterable[Stray]) -> None:
        """Send SIGTERM to those that have not had it yet; many take a second one for haste."""
        unasked = [stray for stray in strays if stray.identity not in self._asked]
        self._asked |= {stray.identity for stray in unasked}
        self.signal(unasked, signal.SIGTERM)
        # A stopped process acts on nothing but SIGKILL until it is continued.
        self.signal(unasked, signal.SIGCONT)

    def signal(self, strays: Iterable[Stray], signum: int) -> None:
        """Send a signal to each that is still what it was."""
        for stray in strays:
            if _marks_of(stray.stat.pid) == (stray.instance_id, stray.owner):
                with suppress(PermissionError):
                    signal_process(stray.stat, signum)


def _lives(stray: Stray) -> bool:
    now = read_stat(stray.stat.pid)
    return now is not None and now.start_time == stray.stat.start_time and not now.dead
