"""The guard: starts daemons on another machine, and leaves none when the connection is gone.

A program of its own, for Python from 3.7 on: ``python3 -I -S -c``, with the files that it imports
(see ``_guard_link.py``), a token and the heartbeat's limit in seconds. Nothing of it is put on the
disk there. It is to another machine what ``spawner/_reaper.py`` is to this one, and shares with it
how it knows and ends the processes of its daemons.

It forks once, into two processes that both are child subreapers (prctl(2)):

- The *inner* one does what it is asked. When the other one is gone, when its input ends or says
  nothing for the limit, or when its output is broken, it stops all daemons at once, each by the
  signals of its own stop ladder, then kills until waitpid(2) says that there is no child left.
- The *outer* one waits for the inner one, and does the same in its place should that be killed. One
  that is silent for much longer than it may be, because it is stopped or hangs, is killed.

It reads and writes JSON lines. What it reads is

- ``{"do": "beat"}``, often enough for the limit;
- ``{"do": "spawn", "id", "program", "args", "env", "directory", "umask", "limits", "user", "group",
  "rungs", "mark", "gated", "pid_variable", "forwards"}``; the id is the daemon's from then on;
- ``{"do": "open", "id"}`` and ``{"do": "discard", "id"}``;
- ``{"do": "signal", "id", "ask", "signum", "tree"}``;
- ``{"do": "contains", "id", "ask", "pid"}``;
- ``{"do": "listen", "id", "ask", "address", "most", "user"}``: make a socket for messages, with
  ``{"do": "taken", "id", "count"}``, ``{"do": "unlisten", "id"}``;
- ``{"do": "users", "ask", "pid"}``;
- ``{"do": "retire"}``, which is said by SIGUSR1 to the inner process, too.

It writes its token with ``{"hello": ...}``, then ``{"ticks"}`` to a beat, ``{"spawned", "pid",
"start", "ticks"}``, ``{"opened"}``, ``{"failed", "stage", "what", "errno"}``, ``{"answer",
"value"}``, ``{"exited", "status"}``, ``{"gone"}``, ``{"stuck", "pid", "in"}``, ``{"stray",
"command", "ids"}``, ``{"silent"}`` with the limit when that has run out, and ``{"out", "n"}``,
``{"fwd", "fd", "n"}`` or ``{"letter", "pid", "uid", "cut", "ancestors", "n"}``, which n raw bytes
follow.
"""

from __future__ import annotations

import mmap
import os
import select
import sys
import time

from trio_lifecycle._ssh.guard_channel import STDIN, STDOUT, Attention
from trio_lifecycle._ssh.guard_inner import Guard
from trio_lifecycle._ssh.guard_kin import Kin
from trio_lifecycle.spawner._family import KILL
from trio_lifecycle.spawner._kernel import (
    REAPER,
    be_subreaper,
    hear_of_children,
    ignore_signals,
    read,
    ticks_now,
    write,
)
from trio_lifecycle.spawner._table import TABLE_BYTES, read_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_signal: Any = __import__("_signal")

# How long the inner process may take beyond the limit and the longest ladder.
PATIENCE_S = 10.0


def outlive(inner: int, table: mmap.mmap, pulse: int, wake: int, limit_s: float) -> Kin:
    """Wait for the end of the inner process; give what it has left behind."""
    poll = select.poll()
    poll.register(pulse, select.POLLIN)
    poll.register(wake, select.POLLIN)
    deadline = time.monotonic() + limit_s + PATIENCE_S
    attention = Attention()
    while os.waitpid(inner, os.WNOHANG) == (0, 0):
        left_s = deadline - time.monotonic()
        news, still_s = attention.wait(poll, min(left_s, limit_s))
        deadline += still_s
        if wake in news:
            os.read(wake, 4096)
        if pulse in news and os.read(pulse, 4096):
            deadline = time.monotonic() + limit_s + PATIENCE_S
        elif pulse in news:
            # It stops its daemons.
            poll.unregister(pulse)
            ladders = [sum(s for _, s in d.rungs) for d in read_table(table).values()]
            deadline = time.monotonic() + PATIENCE_S + max(ladders, default=0)
        elif time.monotonic() >= deadline:
            os.kill(inner, KILL)
            deadline = float("inf")
    family = Kin(read_table(table))
    family.drop_ghosts()
    return family


def separate() -> None:
    """Take a session of its own, so that no signal hits both processes."""
    try:
        os.setsid()
    except OSError:  # it leads one already
        pass


def main() -> None:
    """Be both processes, one after the other."""
    token, limit_s = sys.argv[1], float(sys.argv[2])
    ignore_signals()
    separate()
    be_subreaper()
    write("/proc/self/comm", REAPER)
    # No file: there may be a limit of their size.
    table = mmap.mmap(-1, TABLE_BYTES)
    pulse, beaten = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    life, held = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    outer = os.getpid()
    inner = os.fork()
    wake = hear_of_children()
    if inner:
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (STDIN, STDOUT):
            os.dup2(null, fd)
        for fd in (null, beaten, life):
            os.close(fd)
        outlive(inner, table, pulse, wake, limit_s).end_all(wake)
        os._exit(0)
    separate()
    be_subreaper()
    for fd in (pulse, held):
        os.close(fd)
    guard = Guard(table, limit_s, outer)
    # From an application that has lost its connection, which the other end may not know yet.
    _signal.signal(_signal.SIGUSR1, guard.retire)
    os.chdir("/")
    for fd in (STDIN, STDOUT):
        os.set_blocking(fd, False)
    guard.channel.unsent += token.encode() + b" "
    guard.say(
        {
            "hello": guard.me,
            "start": guard.start,
            "outer": outer,
            "namespace": guard.namespace,
            "boot_id": read("/proc/sys/kernel/random/boot_id").decode().strip(),
            "ticks": ticks_now(),
        }
    )
    try:
        guard.serve(life, beaten, wake)
    except Exception as error:
        # Said before it hangs up, so that the application hears why.
        sys.excepthook(type(error), error, error.__traceback__)
        sys.stderr.flush()
    finally:
        guard.hang_up()
        os.close(beaten)
        guard.end_all(wake)
        guard.wake_outer()
        sys.stderr.flush()
    os._exit(0)
