"""Starting the reaper's program."""

import errno
import marshal
import os
import socket
import sys
from importlib.util import find_spec
from typing import Final

from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle._strays import owner_mark
from trio_lifecycle.spawner._streams import above_streams

# The files that make up the program, parts first.
_PROGRAM: Final = tuple(
    f"trio_lifecycle.{part}"
    for part in (
        *("_renumbering", "spawner._kernel", "spawner._family", "spawner._table"),
        "spawner._reaper",
    )
)

# Handed over as compiled code, which saves 5 ms of compiling on the way to the first daemon. The
# comment is for who reads a list of processes.
_BOOTSTRAP: Final = """\
# trio_lifecycle/spawner/_reaper.py: ends daemons when the program that started them is gone
import marshal, os, sys
for name, code in marshal.loads(os.read(0, 200000)):
    module = sys.modules[name] = type(sys)(name)
    exec(code, module.__dict__)
module.main()
"""


class ReaperStartError(Exception):
    """There is no reaper to be had, for the reason given."""


def start_program() -> tuple[socket.socket, int, int]:
    """Start a reaper.

    Returns:
        Our end of its socket, the pid of its outer process, and a file that it writes tracebacks
        to.

    Raises:
        ReaperStartError: There can be no reaper here.
        OSError: The system would not start it.
    """
    if not owner_mark():
        raise ReaperStartError(
            "there is no /proc, or it shows the processes of another pid namespace"
        )
    if not sys.executable or getattr(sys, "frozen", False):
        raise ReaperStartError("the reaper is a Python program, and there is no interpreter for it")
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise ReaperStartError("this kernel has no pidfd_open, as Linux before 5.3") from error
        raise
    opened: list[int] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        opened.append(above_streams(theirs.detach()))
        ours.setblocking(False)
        ours.send(_program())
        opened.append(above_streams(os.pidfd_open(os.getpid())))
        tracebacks = above_streams(os.memfd_create("tracebacks", os.MFD_CLOEXEC))
        try:
            streams = (opened[0], opened[1], tracebacks)
            pid = spawn(sys.executable, command(), environment(), "/", streams)
        except BaseException:
            os.close(tracebacks)
            raise
        return ours, pid, tracebacks
    except BaseException:
        ours.close()
        raise
    finally:
        for fd in opened:
            os.close(fd)


def command() -> list[str]:
    """Give the program and its arguments."""
    return [sys.executable, "-I", "-S", "-c", _BOOTSTRAP]


def _program() -> bytes:
    parts = []
    for name in _PROGRAM:
        spec = find_spec(name)
        code = spec and spec.loader and getattr(spec.loader, "get_code", lambda _: None)(name)
        if code is None:
            raise ReaperStartError(f"its program {name} can't be found")
        parts.append((name, code))
    return marshal.dumps(parts)


def environment() -> dict[str, str]:
    """Give its environment."""
    # Some interpreters find their own library by this; nothing else of ours is for the reaper.
    path = os.environ.get("LD_LIBRARY_PATH")
    return {} if path is None else {"LD_LIBRARY_PATH": path}
