"""Whom a daemon runs as: names of users and groups, looked up on this machine."""

import grp
import os
import pwd
from collections.abc import Mapping
from typing import Final, NamedTuple

from trio_lifecycle._errors import SpawnError
from trio_lifecycle.abc import SpawnRequest

# Those of a user that has no entry are taken away: this program's own would be wrong for it.
_NOBODY_KNOWS: Final[Mapping[str, str | None]] = {"HOME": None, "USER": None, "LOGNAME": None}


class Identity(NamedTuple):
    """What changes when a daemon runs as somebody else.

    Attributes:
        uid: Its user; None for no change.
        gid: Its main group; None for no change.
        groups: All of its groups; None for no change.
        env: Variables that say who it is, None for one to remove.
    """

    uid: int | None
    gid: int | None
    groups: list[int] | None
    env: Mapping[str, str | None]


NO_CHANGE: Final = Identity(None, None, None, {})


def identity_of(request: SpawnRequest) -> Identity:
    """Look up the user and the group that were asked for.

    Nothing changes for a user who asks for himself, so he may.

    Raises:
        SpawnError: One of them is not known here.
    """
    found = _wanted(request)
    if _is_so(found.uid, os.getresuid()) and _is_so(found.gid, os.getresgid()):
        return Identity(None, None, None, found.env)
    return found


def _is_so(wanted: int | None, present: tuple[int, int, int]) -> bool:
    return wanted is None or present == (wanted,) * 3


def _wanted(request: SpawnRequest) -> Identity:
    gid = None if request.group is None else _gid(request.group, request.name)
    if request.user is None:
        return Identity(None, gid, None if gid is None else [gid], {})
    entry = _entry(request.user, request.name)
    if entry is None:
        assert isinstance(request.user, int)
        return Identity(request.user, gid, [os.getgid() if gid is None else gid], _NOBODY_KNOWS)
    gid = entry.pw_gid if gid is None else gid
    groups = sorted({gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})
    env = {"HOME": entry.pw_dir, "USER": entry.pw_name, "LOGNAME": entry.pw_name}
    return Identity(entry.pw_uid, gid, groups, env)


def _gid(group: str | int, name: str) -> int:
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise SpawnError(name, f"there is no group {group!r} on this machine") from None


def _entry(user: str | int, name: str) -> pwd.struct_passwd | None:
    """Give a user's entry in passwd(5); a number may have none."""
    if isinstance(user, int):
        try:
            return pwd.getpwuid(user)
        except KeyError:
            return None
    try:
        return pwd.getpwnam(user)
    except KeyError:
        raise SpawnError(name, f"there is no user {user!r} on this machine") from None
