"""The facts of another machine, as it tells them when its line is opened."""

import posixpath
import re
from typing import Final

from attrs import frozen

_NAMESPACE: Final = re.compile(r"pid:\[([0-9]+)\]", re.ASCII)
_NUMBER: Final = re.compile("[0-9]{1,20}", re.ASCII)

# What every common kernel shows to programs, whatever it counts in itself: USER_HZ.
_USUAL_TICKS_PER_S: Final = 100

_FACTS: Final = 14


@frozen
class HostFacts:
    """What a machine is, and who is logged in there.

    Attributes:
        boot_id: What tells this boot of it from every other; empty where it has no /proc, so that
            nothing can be promised there.
        host: Its own name for itself.
        pid_namespace: In which process numbers count there; 0 where that can't be told.
        user: Who is logged in; empty where the number has no name.
        uid: The user's number.
        home: The home directory, absolute; empty if there is none.
        state_dir: Where files are kept that outlive a program; empty without a home.
        temporary_dir: Where short-lived files are kept.
        login_dir: Where a relative path begins.
        path: The PATH that the login gave.
        python3: A python3 of at least version 3.7; None if there is none.
        has_setsid: Whether the setsid program is there.
        ticks_per_s: How many clock ticks a second has, in which start times are counted.
        shell_pid: The line's own shell.
    """

    boot_id: str
    host: str
    pid_namespace: int
    user: str
    uid: int
    home: str
    state_dir: str
    temporary_dir: str
    login_dir: str
    path: str
    python3: str | None
    has_setsid: bool
    ticks_per_s: int
    shell_pid: int


def parse_facts(output: bytes) -> HostFacts:
    """Read what the look named tl_facts wrote.

    Raises:
        ValueError: It is something else.
    """
    words = split(output)
    if len(words) != _FACTS:
        raise ValueError(f"{len(words)} facts instead of {_FACTS}")
    boot_id, host, namespace, user, uid, home, state, temporary, login, path, *rest = words
    python3, setsid, ticks, shell = rest
    if not _NUMBER.fullmatch(uid):
        raise ValueError(f"`id -u` there says {uid!r} and no number; look at the PATH of the login")
    found = _NAMESPACE.fullmatch(namespace)
    home = home if posixpath.isabs(home) else ""
    return HostFacts(
        boot_id=boot_id,
        host=host,
        pid_namespace=int(found[1]) if found else 0,
        user=user,
        uid=int(uid),
        home=home,
        state_dir=_state_dir(home, state),
        temporary_dir=temporary if posixpath.isabs(temporary) else "/tmp",
        login_dir=login,
        path=path,
        python3=python3 or None,
        has_setsid=bool(setsid),
        ticks_per_s=int(ticks) if _NUMBER.fullmatch(ticks) else _USUAL_TICKS_PER_S,
        shell_pid=int(shell),
    )


def _state_dir(home: str, given: str) -> str:
    # A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification wants it.
    if posixpath.isabs(given):
        return posixpath.join(given, "trio-lifecycle")
    return posixpath.join(home, ".local/state/trio-lifecycle") if home else ""


def split(output: bytes) -> list[str]:
    """Cut what tl_say wrote into its strings.

    Raises:
        ValueError: The last one has no end.
    """
    if not output:
        return []
    *words, rest = output.split(b"\0")
    if rest:
        raise ValueError("a string without its end")
    return [word.decode(errors="surrogateescape") for word in words]
