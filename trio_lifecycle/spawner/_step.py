"""The step before a daemon: set what posix_spawn(3) can't, then become the daemon.

``python -I -S _step.py PROGRAM ARG...``, with one end of a socket (AF_UNIX, SOCK_SEQPACKET) as its
standard input. There it reads one order, a marshalled dict, and answers: None just before it
becomes the program, and (stage, errno, what) when something was refused. An end of the socket after
None means that the program runs.

It imports as little as it can: each start with a limit or a user waits for it.
"""

# Not signal and os, which are made of these two: they import what would take 2 ms more.
import _signal  # type: ignore[import-not-found]
import errno
import marshal
import posix
import resource
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any, NoReturn

# Some hundred bytes; more for a user who is in thousands of groups.
_LONGEST_ORDER = 1 << 20

# What a shell says of a program that it could not start.
_FAILED = 127

# EX_TEMPFAIL, <sysexits.h>: the application has ended, or given the daemon up, before its order.
_UNASKED = 75

_GOING = marshal.dumps(None)
# Made before the limits hold: there may be no memory to make it afterwards.
_NO_MEMORY = marshal.dumps(("exec", errno.ENOMEM, ""))


def main(argv: "list[str]") -> "NoReturn":
    """Do as the order says, then become the program."""
    # Python ignores two of them, and exec would keep that.
    for signum in (_signal.SIGINT, _signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(signum, _signal.SIG_DFL)
    packet = posix.read(0, _LONGEST_ORDER)
    if not packet:
        posix._exit(_UNASKED)
    order = marshal.loads(packet)
    application = posix.dup(0)  # close-on-exec, as all that Python opens
    stage = ("step", "")
    try:
        for stage in prepare(order):  # noqa: B007 - the last one says what was refused
            pass
        stage = ("exec", argv[0])
        # Refused when the application is gone that would own the daemon.
        posix.write(application, _GOING)
        posix.execv(argv[0], argv)
    except MemoryError:
        answer = _NO_MEMORY
    except OSError as error:
        answer = marshal.dumps((stage[0], error.errno, stage[1]))
    _answer(application, answer)
    posix._exit(_FAILED)


def prepare(order: "dict[str, Any]") -> "Iterator[tuple[str, str]]":
    """Do one thing after the other, and say before each what it is, for a report if it fails."""
    _give_up_socket()
    if order["cgroup_procs"] is not None:
        yield "cgroup", order["cgroup_procs"]
        _join(order["cgroup_procs"])
    if order["umask"] is not None:
        posix.umask(order["umask"])
    for name, (number, _, hard) in order["limits"].items():
        yield "limits", name
        _make_room(number, hard)
    if order["groups"] is not None:
        yield "group", ""
        posix.setgroups(order["groups"])
    if order["gid"] is not None:
        yield "group", ""
        posix.setresgid(order["gid"], order["gid"], order["gid"])
    if order["uid"] is not None:
        yield "user", ""
        posix.setresuid(order["uid"], order["uid"], order["uid"])
    if order["coerced"]:
        # Python sets it for itself where no locale is set: PEP 538.
        posix.unsetenv("LC_CTYPE")
    if order["pid_variable"] is not None:
        posix.putenv(order["pid_variable"], str(posix.getpid()))
    # Last, for from here on there may be no memory and no descriptor left.
    for name, (number, soft, hard) in order["limits"].items():
        yield "limits", name
        resource.prlimit(0, number, (soft, hard))


def _answer(application: int, answer: bytes) -> None:
    try:
        posix.write(application, answer)
    except OSError:  # nobody is there
        pass


def _give_up_socket() -> None:
    null = posix.open("/dev/null", posix.O_RDWR)
    posix.dup2(null, 0)
    posix.close(null)


def _join(cgroup_procs: str) -> None:
    procs = posix.open(cgroup_procs, posix.O_WRONLY)
    posix.write(procs, b"0")
    posix.close(procs)


def _make_room(number: int, hard: int) -> None:
    """Raise a hard limit while that is permitted; to lower it needs no right, and can wait."""
    soft, present = resource.prlimit(0, number)
    if present != resource.RLIM_INFINITY and (hard == resource.RLIM_INFINITY or hard > present):
        resource.prlimit(0, number, (soft, hard))


if __name__ == "__main__":
    main(sys.argv[1:])
