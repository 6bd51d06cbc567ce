"""A child of the guard on its way to become a daemon.

A part of the program in ``guard.py``: for Python from 3.7 on, with nothing of the package but other
parts. The guard has one thread, so a fork of it may run Python; posix_spawn(3) could set no limits,
umask, user or group, nor wait at a gate.
"""

from __future__ import annotations

import json
import os
from errno import EINVAL, ENOMEM

from trio_lifecycle._renumbering import moves

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

_signal: Any = __import__("_signal")

# What a child says when it stands at its gate, what it is told there, and what it says to that: an
# end of its report without that is its own end.
AT_GATE, GO, GOING = b"gate", b"o", b"going"
# What a shell says of a program that it could not start; EX_TEMPFAIL, <sysexits.h>: its gate was
# closed instead of opened.
FAILED, UNASKED = 127, 75
# Made before limits hold: there may be no memory to make it afterwards.
_NO_MEMORY = json.dumps(["program", "", ENOMEM]).encode()


def become(
    order: dict[str, Any],
    env: dict[bytes, bytes],
    directory: bytes,
    streams: dict[int, int],
    report: int,
    gate: int | None,
) -> NoReturn:
    """Become the daemon, or say why not.

    Args:
        order: What is asked for, as ``guard.py`` describes it.
        env: What the login gave.
        directory: Where the login began.
        streams: Number in the daemon -> descriptor.
        report: Where to say what was refused; its end without a word means that the program runs.
        gate: To wait at; None without.
    """
    stage = ("program", "")
    try:
        heed_signals()
        os.setsid()
        report, gate = put_in_place(streams, report, gate)
        for stage in prepare(order, env, directory):  # noqa: B007 - the last one was refused
            pass
        if gate is not None:
            os.write(report, AT_GATE)
            if os.read(gate, 1) != GO:
                os._exit(UNASKED)
            os.write(report, GOING)
        stage = ("program", "")
        argv = [encode(text) for text in (order["program"], *order["args"])]
        os.execve(encode(order["program"]), argv, env)
    except MemoryError:
        answer = _NO_MEMORY
    except Exception as error:
        # Also what Python itself refuses, such as a NUL.
        answer = json.dumps([*stage, getattr(error, "errno", None) or EINVAL]).encode()
    try:
        os.write(report, answer)
    except OSError:  # nobody is there
        pass
    os._exit(FAILED)


def encode(text: str) -> bytes:
    """Give the bytes that the application meant; here may be another locale."""
    return text.encode("utf-8", "surrogateescape")


def heed_signals() -> None:
    """Take the default action for every signal; exec keeps what is ignored or blocked."""
    _signal.set_wakeup_fd(-1)
    for signum in range(1, _signal.NSIG):
        try:
            _signal.signal(signum, _signal.SIG_DFL)
        except (OSError, ValueError):  # SIGKILL, SIGSTOP, and what the C library keeps for itself
            pass
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def put_in_place(streams: dict[int, int], report: int, gate: int | None) -> tuple[int, int | None]:
    """Put descriptors where they belong and close all others; give the new numbers of our own."""
    wanted = dict(streams)
    own = []
    for fd in (report, gate):
        number = None if fd is None else min(set(range(3, len(wanted) + 4)).difference(wanted))
        if fd is not None and number is not None:
            wanted[number] = fd
        own.append(number)
    for source, target in moves(wanted)[0]:
        os.dup2(source, target)
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no pathlib here
        if int(name) not in wanted:
            try:
                os.close(int(name))
            except OSError:  # what listed them
                pass
    for number in own:
        if number is not None:
            os.set_inheritable(number, False)
    assert own[0] is not None
    return own[0], own[1]


def prepare(
    order: dict[str, Any], env: dict[bytes, bytes], directory: bytes
) -> Iterator[tuple[str, str]]:
    """Do one thing after the other, and say before each what it is, for a report if it fails."""
    yield "directory", ""
    os.chdir(directory if order["directory"] is None else encode(order["directory"]))
    if order["umask"] is not None:
        yield "umask", ""
        os.umask(order["umask"])
    limits: dict[str, list[int]] = {}
    for name, pair in order["limits"].items():
        yield "limits", name
        limits[name] = make_room(name, pair)
    yield "user", ""
    user_env: dict[str, str | None] = {}
    if order["user"] is not None or order["group"] is not None:
        for stage in change_user(order, user_env):
            yield stage, ""
    change(env, user_env)
    change(env, order["env"])
    if order["pid_variable"] is not None:
        env[encode(order["pid_variable"])] = str(os.getpid()).encode()
    # Last, for from here on there may be no memory and no descriptor left.
    for name, numbers in limits.items():
        yield "limits", name
        import resource

        resource.setrlimit(numbers[0], (numbers[1], numbers[2]))


def change(env: dict[bytes, bytes], changes: dict[str, str | None]) -> None:
    """Set variables, and remove those that are None."""
    for key, value in changes.items():
        if value is None:
            env.pop(encode(key), None)
        else:
            env[encode(key)] = encode(value)


def make_room(name: str, pair: list[int | None]) -> list[int]:
    """Raise a hard limit while that is permitted; give its number and both limits."""
    import resource

    number = getattr(resource, "RLIMIT_" + name.upper(), None)
    if number is None:
        raise OSError(EINVAL, "there is no such limit here")
    soft, hard = (resource.RLIM_INFINITY if limit is None else limit for limit in pair)
    now_soft, now_hard = resource.getrlimit(number)
    if now_hard != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > now_hard):
        resource.setrlimit(number, (now_soft, hard))
    return [number, soft, hard]


def change_user(order: dict[str, Any], env: dict[str, str | None]) -> Iterator[str]:
    """Become another user or group; put the variables that say so into ``env``.

    It says before each step what it is.
    """
    yield "group"
    group = group_number(order["group"])
    yield "user"
    uid, gid, groups = who(order["user"], group, env)
    if (uid, gid) == (None, os.getgid()) or (uid, gid) == (os.getuid(), os.getgid()):
        return  # nothing changes, so everybody may
    yield "group"
    os.setgroups(groups)
    if gid is not None:
        os.setresgid(gid, gid, gid)
    yield "user"
    if uid is not None:
        os.setresuid(uid, uid, uid)


def group_number(group: Any) -> int | None:
    """Look up a group by its name."""
    import grp

    try:
        return grp.getgrnam(group).gr_gid if isinstance(group, str) else group
    except KeyError:
        raise UnknownError from None


def who(
    user: Any, group: int | None, env: dict[str, str | None]
) -> tuple[int | None, int | None, list[int]]:
    """Look up the user; give it with its main group and all of its groups."""
    import pwd

    if user is None:
        return None, group, [] if group is None else [group]
    try:
        entry = pwd.getpwuid(user) if isinstance(user, int) else pwd.getpwnam(user)
    except KeyError:
        if isinstance(user, str):
            raise UnknownError from None
        env.update(HOME=None, USER=None, LOGNAME=None)
        return user, group, [os.getgid() if group is None else group]
    env.update(HOME=entry.pw_dir, USER=entry.pw_name, LOGNAME=entry.pw_name)
    gid = entry.pw_gid if group is None else group
    return entry.pw_uid, gid, sorted({gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)})


class UnknownError(Exception):
    """There is no such user or group here."""

    errno = -1
