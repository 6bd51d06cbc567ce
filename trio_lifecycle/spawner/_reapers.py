"""The reapers of this program: one at a time, started with the first daemon that needs one."""

import logging
import os
import resource
import sys
import threading
from contextlib import suppress
from typing import Final

import trio
from attrs import define, field

from trio_lifecycle._proc import read_about
from trio_lifecycle._strays import find_strays
from trio_lifecycle.spawner._reaper_link import ReaperLink
from trio_lifecycle.spawner._reaper_program import ReaperStartError

_log: Final = logging.getLogger("trio_lifecycle")

# Those without daemons, kept for the next Trio run of this program, with what they were born with.
_idle: Final[list[tuple[ReaperLink, object]]] = []
_idle_lock: Final = threading.Lock()

# Outer processes that were let go, and may be zombies by now.
_unreaped: Final[list[int]] = []


@define
class _Household:
    """The reaper of one Trio run."""

    link: ReaperLink | None = None
    born_with: object = None
    turn: trio.Lock = field(factory=trio.Lock)
    pid: int = field(factory=os.getpid)


_household: Final = trio.lowlevel.RunVar[_Household]("trio_lifecycle.reaper")


async def reaper() -> ReaperLink:
    """Give a reaper that can be relied on, started if need be.

    Raises:
        ReaperStartError: There can be none, or it did not start.
        OSError: The system would not start it.
    """
    if sys.platform != "linux":
        raise ReaperStartError("only Linux has child subreapers")
    house = _house()
    born_with = _attributes()
    if _serves(house, born_with):
        assert house.link is not None
        return house.link
    async with house.turn:
        if not _serves(house, born_with):
            # Shielded and bounded by itself: others wait for it, too.
            with trio.CancelScope(shield=True):
                await _take_or_start(house, born_with)
        assert house.link is not None
        return house.link


def _house() -> _Household:
    try:
        house = _household.get()
    except LookupError:
        house = None
    if house is None or house.pid != os.getpid():
        house = _Household()
        _household.set(house)
    return house


def _serves(house: _Household, born_with: object) -> bool:
    link = house.link
    # A daemon inherits from the reaper what the reaper inherited from this program. One that is
    # older than a change of user, say, would start daemons with rights that this program has given
    # up.
    return link is not None and link.usable and house.born_with == born_with


async def _take_or_start(house: _Household, born_with: object) -> None:
    _reap_unreaped()
    if house.link is not None and house.born_with != born_with:
        # What it could do that this program can't any more, nobody shall ask of it.
        house.link.retire()
    link = _take_idle(born_with)
    if link is None:
        link = await _start(born_with)
        if link.lost is not None:
            # Somebody may have killed it; if it can't be had, it can't be had again.
            link = await _start(born_with)
        if link.lost is not None:
            raise ReaperStartError(link.lost)
    else:
        trio.lowlevel.spawn_system_task(_attend, link, born_with, name="the reaper's word")
    house.link, house.born_with = link, born_with


async def _start(born_with: object) -> ReaperLink:
    link = ReaperLink.start()
    trio.lowlevel.spawn_system_task(_attend, link, born_with, name="the reaper's word")
    trio.lowlevel.spawn_system_task(_look_for_strays, name="look for strays")
    await link.greeted()
    return link


def _take_idle(born_with: object) -> ReaperLink | None:
    """Take one that fits; the others fit nothing any more."""
    found = None
    with _idle_lock:
        while _idle and found is None:
            link, with_what = _idle.pop()
            # It may have ended while nobody listened.
            link.take_in()
            if with_what == born_with and link.lost is None:
                found = link
            else:
                _end(link)
    return found


def _end(link: ReaperLink) -> None:
    _unreaped.append(link.outer)
    link.close()


def _reap_unreaped() -> None:
    # Children of ours, so that their numbers are nobody else's.
    for pid in [*_unreaped]:
        with suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG) == (0, 0):
                continue
        _unreaped.remove(pid)


async def _attend(link: ReaperLink, born_with: object) -> None:
    """Hear a reaper until it is lost, or until the Trio run ends; then another run may have it."""
    try:
        await link.run()
        await link.see_off()
    except trio.Cancelled:
        if link.usable and not link.wards and not link.retired:
            with _idle_lock:
                _idle.append((link, born_with))
        else:
            _end(link)
        raise
    except Exception:
        # Raised here it would end the program. Without its word, the daemons have lost it.
        _log.exception("a reaper is given up")
        _unreaped.append(link.outer)
        link.give_up()


# Set when this program has looked for strays.
_has_looked: Final = threading.Event()

# The first daemons come first.
_LOOK_AFTER_S: Final = 1.0


async def _look_for_strays() -> None:
    """Say once what was left of programs that were killed together with both of their reapers."""
    await trio.sleep(_LOOK_AFTER_S)
    if _has_looked.is_set():
        return
    _has_looked.set()
    try:
        strays = await trio.to_thread.run_sync(find_strays, abandon_on_cancel=True)
    except OSError:  # no descriptor or memory is left, and this was only a hint
        return
    if strays:
        _log.warning(
            "processes are left of daemons whose program is gone: %s; "
            "'trio-lifecycle reap' shows and ends them",
            ", ".join(str(stray.stat.pid) for stray in strays),
        )


def _attributes() -> object:
    """Give what a child of this program inherits and a request does not name."""
    limits = tuple(resource.getrlimit(limit) for limit in _LIMITS)
    groups = tuple(os.getgroups())
    cpus = frozenset(os.sched_getaffinity(0))
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    return (os.getresuid(), os.getresgid(), groups, _status(), limits, cpus, nice)


def _status() -> tuple[bytes, bytes]:
    """Give the umask, and what this program has given up: capabilities, no_new_privs, seccomp."""
    # To ask the kernel by umask(2) is to change it, for all threads.
    status = read_about("self", "status") or b""
    _, _, umask = status.partition(b"Umask:")
    _, _, rights = status.partition(b"CapInh:")
    return umask[:6], rights.partition(b"Speculation")[0]


_LIMITS: Final = sorted(
    getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")
)


def idle_reapers() -> list[ReaperLink]:
    """Give the reapers that wait for the next Trio run."""
    with _idle_lock:
        return [link for link, _ in _idle]


def _forget_after_fork() -> None:
    # A copy of this program has no right to its reapers. Its copies of their descriptors are closed
    # so that they hear of the end of the original at once.
    for link in ReaperLink.all():
        link.close()
    _idle.clear()
    _unreaped.clear()


with suppress(AttributeError):
    os.register_at_fork(after_in_child=_forget_after_fork)
