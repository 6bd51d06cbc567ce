"""The reaper: starts daemons for a program, and leaves none of their processes when that ends.

A program of its own, run by ``python -I -S``. It imports nothing of the package but
``_renumbering.py``, ``_kernel.py``, ``_family.py`` and ``_table.py``, which are handed to it with
this file, and only modules that cost next to nothing: it is started on the way to the first daemon,
and stays in memory.

It forks once, into two processes that both are child subreapers (prctl(2)), so that whatever a
daemon starts, and however it forks away, ends up as a child of one of them:

- The *inner* one spawns, signals and reaps on request. It watches the application and the outer
  one; when either is gone, or the socket is closed, it stops all daemons, each by the signals of
  its own stop ladder, then kills until waitpid(2) says that there is no child left.
- The *outer* one waits for the inner one, and does the same in its place should that be killed.

Messages are tuples in ``marshal``'s format, each one packet; one that is larger than ``BY_MEMFD``
lies in a memfd, which is the last descriptor of ``("memfd", number, length)``. From the application
come

- ``("spawn", number, program, argv, env, directory, rungs, mark, cgroup, places)`` with descriptors
  of the directory to start from, then of what the daemon inherits; ``places`` says which of these
  becomes what: its number in the daemon -> its place among them. Without a 0, the standard input is
  empty;
- ``("signal", number, pid, signum)``: to the whole tree of a daemon;
- ``("discard", pid)``: the application has given the daemon up.

To it go ``("hello", pid)`` and ``("spawned", number, pid)``, both with a pidfd, ``("failed",
number, stage, errno)``, ``("signalled", number)``, ``("ended", pid, status, gone)`` when a main
process has ended or the last of its tree is gone, and ``("stray", pid, daemons)``.
"""

from __future__ import annotations

import _socket
import marshal
import mmap
import os
import select
import sys
import time
from errno import EINVAL, EMFILE, EPERM

from trio_lifecycle._renumbering import moves
from trio_lifecycle.spawner._family import CONT, KILL, Daemon, Family
from trio_lifecycle.spawner._kernel import (
    LONGEST_POLL_S,
    REAPER,
    be_subreaper,
    hear_of_children,
    ignore_signals,
    ticks_now,
    write,
)
from trio_lifecycle.spawner._table import TABLE_BYTES, read_table, write_table

# The module ``typing`` would be a tenth of the memory.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The module ``signal`` costs more to import than all the rest.
_signal: Any = __import__("_signal")

# What the application passes as standard streams; the third takes tracebacks.
SOCKET, APPLICATION = 0, 1
# A packet may have 212,960 bytes by default (net.core.wmem_max, and its overhead).
BY_MEMFD = 60_000
# SCM_MAX_FD, <net/scm.h>.
MOST_DESCRIPTORS = 253
CREDENTIALS_BYTES = 12  # struct ucred: pid, uid, gid
# How long the inner process may take beyond the longest ladder before the outer one kills it.
PATIENCE_S = 10.0


class Inner(Family):
    """The inner process: does what the application asks."""

    def __init__(self, socket: _socket.socket, table: mmap.mmap) -> None:
        super().__init__({})
        self.socket = socket
        self.table = table
        self.unsent: list[tuple[bytes, tuple[int, ...]]] = []
        self.user = os.getuid()
        socket.setsockopt(_socket.SOL_SOCKET, _socket.SO_PASSCRED, 1)
        self.root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        # A daemon gets the default action for every signal; exec itself resets what has a handler.
        self.ignored = [
            signum
            for signum in _signal.valid_signals()
            if _signal.getsignal(signum) == _signal.SIG_IGN
        ]
        self.has_changed = False

    # --- talking ---

    def tell(self, message: tuple[Any, ...], *descriptors: int) -> None:
        """Send, or keep what an application that is slow or stopped does not take now."""
        packet = marshal.dumps(message)
        if self.unsent or not self.send_packet(packet, descriptors):
            self.unsent.append((packet, tuple(map(os.dup, descriptors))))

    def send_packet(self, packet: bytes, descriptors: tuple[int, ...]) -> bool:
        """Send; False when the application takes nothing now."""
        rights = b"".join(fd.to_bytes(4, sys.byteorder) for fd in descriptors)
        ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
        try:
            self.socket.sendmsg([packet], ancillary)
        except BlockingIOError:
            return False
        except OSError:
            pass  # nobody is there any more, as the loop is about to hear
        return True

    def send_on(self) -> None:
        """Send what was kept."""
        while self.unsent and self.send_packet(*self.unsent[0]):
            _, descriptors = self.unsent.pop(0)
            for fd in descriptors:
                os.close(fd)

    def receive(self) -> bool:
        """Do all that is asked now; False when there is nobody any more to ask."""
        room = _socket.CMSG_SPACE(4 * MOST_DESCRIPTORS) + _socket.CMSG_SPACE(CREDENTIALS_BYTES)
        while True:
            try:
                packet, ancillary, flags, _ = self.socket.recvmsg(BY_MEMFD + 1024, room, CLOEXEC)
            except BlockingIOError:
                return True
            except OSError:
                return False
            descriptors, asker = [], self.user
            for _, kind, data in ancillary:
                numbers = [
                    int.from_bytes(data[at : at + 4], sys.byteorder)
                    for at in range(0, len(data) - 3, 4)
                ]
                if kind == _socket.SCM_RIGHTS:
                    descriptors = numbers
                else:
                    _, asker, _ = numbers
            try:
                if not packet:
                    return False
                message = marshal.loads(packet)
                is_cut = flags & _socket.MSG_CTRUNC
                if message[0] == "memfd" and not is_cut:
                    message = marshal.loads(os.pread(descriptors[-1], message[2], 0))
                if message[0] in ("memfd", "spawn") and is_cut:
                    # There was no room to receive all of them.
                    self.tell(("failed", message[1], "program", EMFILE))
                elif message[0] == "spawn" and asker != self.user:
                    # The application has given up the rights that this process still has.
                    self.tell(("failed", message[1], "user", EPERM))
                else:
                    self.obey(message, descriptors)
            finally:
                for fd in descriptors:
                    os.close(fd)

    # --- what is asked ---

    def obey(self, message: tuple[Any, ...], descriptors: list[int]) -> None:
        """Do one thing."""
        match message:
            case ("spawn", number, *order):
                self.spawn(number, order, *descriptors)
            case ("signal", number, pid, signum):
                if pid in self.daemons:
                    self.signal(self.daemons[pid], signum)
                self.tell(("signalled", number))
            case ("discard", pid):
                if pid in self.daemons:
                    self.signal(self.daemons[pid], KILL)

    def spawn(
        self,
        number: int,
        order: list[Any],
        start: int,
        *descriptors: int,
    ) -> None:
        """Start a daemon, and say how that went."""
        program, argv, env, directory, rungs, mark, cgroup, places = order
        wanted = {0: self.null, **{at: descriptors[place] for at, place in places.items()}}
        into_place, aside = moves(wanted)
        now = ticks_now()
        stage = "directory"
        try:
            # For all of this process: it has one thread, and holds no relative path.
            os.fchdir(start)
            if directory is not None:
                os.chdir(directory)
            stage = "program"
            pid = os.posix_spawn(
                program,
                argv,
                env,
                file_actions=[
                    *((os.POSIX_SPAWN_DUP2, fd, at) for fd, at in into_place),
                    *((os.POSIX_SPAWN_CLOSE, fd) for fd in aside),
                ],
                setsid=True,
                setsigmask=(),
                setsigdef=self.ignored,
            )
        except Exception as error:
            # Also what Python itself refuses: one bad request is no reason to end other daemons.
            self.tell(("failed", number, stage, getattr(error, "errno", None) or EINVAL))
            return
        finally:
            os.fchdir(self.root)
        self.add(Daemon(pid, now, rungs, mark, cgroup))
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self.tell(("failed", number, "watch", error.errno))
            self.signal(self.daemons[pid], KILL)
            return
        self.tell(("spawned", number, pid), pidfd)
        os.close(pidfd)
        self.has_changed = True

    def forget(self, daemon: Daemon) -> None:
        """Tell the outer process, too."""
        super().forget(daemon)
        self.publish()

    def publish(self) -> None:
        """Leave a table of all daemons for the outer process."""
        self.has_changed = False
        write_table(self.table, self.daemons)

    # --- the loop ---

    def serve(self, gone: tuple[int, int], wake: int) -> None:
        """Work until the application or the outer process is gone, or the socket is closed."""
        poll = select.poll()
        for fd in (*gone, wake):
            poll.register(fd, select.POLLIN)
        pause: float | None = None
        while True:
            wants = select.POLLIN | (select.POLLOUT if self.unsent else 0)
            poll.register(self.socket.fileno(), wants)
            news = dict(poll.poll(self.timeout_ms(pause)))
            if not news.keys().isdisjoint(gone):
                return
            if wake in news:
                os.read(wake, 4096)
            if self.socket.fileno() in news:
                self.send_on()
                if not self.receive():
                    return
            if wake in news or pause is not None:
                self.reap()
            if self.has_changed:
                self.publish()
            pause = self.kill_again()
            self.note_when_due()

    def timeout_ms(self, pause: float | None) -> float | None:
        """Say how long nothing has to be done, if nobody asks."""
        times = [] if pause is None else [pause]
        if self.note_at != float("inf"):
            times.append(max(0.0, self.note_at - time.monotonic()))
        return min(times) * 1000 if times else None


CLOEXEC = 0x40000000  # MSG_CMSG_CLOEXEC, <bits/socket.h>


def outlive(inner: int, table: mmap.mmap, application: int, wake: int) -> Family:
    """Wait for the end of the inner process; give what it has left behind.

    One that does not see that the application is gone, because it is stopped or hangs, is killed.
    """
    poll = select.poll()
    poll.register(application, select.POLLIN)
    poll.register(wake, select.POLLIN)
    deadline = float("inf")
    while os.waitpid(inner, os.WNOHANG) == (0, 0):
        left_s = max(0.0, deadline - time.monotonic())
        news = dict(poll.poll(min(left_s, LONGEST_POLL_S) * 1000))
        if wake in news:
            os.read(wake, 4096)
        if application in news:
            ladders = [sum(s for _, s in d.rungs) for d in read_table(table).values()]
            deadline = time.monotonic() + PATIENCE_S + max(ladders, default=0)
            poll.unregister(application)
        if time.monotonic() >= deadline:
            os.kill(inner, KILL)
            deadline = float("inf")
    family = Family(read_table(table))
    family.drop_ghosts()
    return family


def main() -> None:
    """Be both processes, one after the other."""
    socket = _socket.socket(fileno=os.dup(SOCKET))
    application = os.dup(APPLICATION)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, SOCKET)
    os.dup2(null, APPLICATION)
    os.close(null)
    socket.setblocking(False)
    os.chdir("/")
    ignore_signals()
    write("/proc/self/comm", REAPER)
    be_subreaper()
    # No file: the application may have a limit of their size.
    table = mmap.mmap(-1, TABLE_BYTES)
    outer = os.pidfd_open(os.getpid())
    inner = os.fork()
    wake = hear_of_children()
    if inner:
        socket.close()
        os.close(outer)
        outlive(inner, table, application, wake).end_all(wake)
        os._exit(0)
    be_subreaper()
    family = Inner(socket, table)
    own = os.pidfd_open(family.me)
    family.tell(("hello", family.me), own)
    os.close(own)
    try:
        family.serve((application, outer), wake)
    finally:
        # The application, if it is there, hears of it by this.
        socket.close()
        family.end_all(wake)
        try:
            _signal.pidfd_send_signal(outer, CONT)  # somebody may have stopped it
        except OSError:
            pass
        sys.stderr.flush()
    os._exit(0)
