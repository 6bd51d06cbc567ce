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
- ``{"do": "retire"}``.

It writes its token with ``{"hello": ...}``, then ``{"ticks"}`` to a beat, ``{"spawned", "pid",
"start", "ticks"}``, ``{"opened"}``, ``{"failed", "stage", "what", "errno"}``, ``{"answer",
"value"}``, ``{"exited", "status"}``, ``{"gone"}``, ``{"stuck", "pid", "in"}``, ``{"stray",
"command", "ids"}``, and ``{"out", "n"}`` or ``{"fwd", "fd", "n"}``, which n raw bytes follow.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import sys
import time

from trio_lifecycle._ssh.guard_child import AT_GATE, GO, become, encode
from trio_lifecycle.spawner._family import CONT, KILL, LONGEST_PAUSE_S, Daemon, Family
from trio_lifecycle.spawner._kernel import (
    LONGEST_POLL_S,
    REAPER,
    be_subreaper,
    hear_of_children,
    look,
    read,
    ticks_now,
    write,
)
from trio_lifecycle.spawner._table import TABLE_BYTES, read_table, write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_signal: Any = __import__("_signal")

STDIN, STDOUT = 0, 1
READ_BYTES = 65_536
# How much may wait for a slow reader before no more is read of what daemons write.
MOST_UNSENT_BYTES = 1 << 20
# As much as a pipe can hold (pipe-max-size): what a daemon wrote before its end is taken in whole.
MOST_TAKEN_BYTES = 1 << 20
# What the processor raises is not to be ignored, nor can two be.
HEEDED = {
    *(_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCONT, _signal.SIGCHLD, _signal.SIGSEGV),
    *(_signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL, _signal.SIGTRAP, _signal.SIGSYS),
}
# When after a spawn to note who belongs to whom: soon for what starts up, then rarely.
FIRST_NOTE_S, LONGEST_NOTE_S = 0.1, 60.0
# How long the inner process may take beyond the limit and the longest ladder.
PATIENCE_S = 10.0
# Python has it from 3.9 on, Linux from 5.3 on.
HAS_PIDFD = False
if hasattr(os, "pidfd_open"):
    try:
        os.close(os.pidfd_open(os.getpid()))
        HAS_PIDFD = True
    except OSError:
        pass


class Kin(Family):
    """The family of a guard, also where there are no pidfds."""

    def send(self, seen: Any, signum: int) -> None:
        """Signal exactly this process; its number may be another's only within a moment."""
        if HAS_PIDFD:
            super().send(seen, signum)
            return
        now = look(seen.pid)
        if now is not None and now.start == seen.start:
            try:
                os.kill(seen.pid, signum)
            except OSError:
                pass


class Charge(Daemon):
    """A daemon with what the guard holds of it: its pipes, and how far its start has come."""

    __slots__ = ("forwards", "gate", "id", "is_exited", "is_refused", "is_told", "out", "report")

    def __init__(self, pid: int, start: int, order: dict[str, Any]) -> None:
        rungs = tuple((int(signum), float(seconds)) for signum, seconds in order["rungs"])
        super().__init__(pid, start, rungs, encode(order["mark"]), None)
        self.id = order["id"]
        # Descriptors, -1 once they are closed: its output, what it says of its start, its gate.
        self.out = self.report = self.gate = -1
        self.forwards: dict[int, int] = {}
        self.is_told = self.is_refused = self.is_exited = False

    @property
    def pipes(self) -> list[int]:
        """What it writes to us, as long as it is open."""
        return [fd for fd in (self.out, *self.forwards.values()) if fd >= 0]


class Guard(Kin):
    """The inner process: does what the application asks."""

    def __init__(self, table: mmap.mmap, limit_s: float) -> None:
        super().__init__({})
        self.table = table
        self.limit_s = limit_s
        self.unsent = bytearray()
        self.unread = bytearray()
        self.charges: dict[int, Charge] = {}
        self.ends: dict[int, Charge] = {}
        self.heard_at = time.monotonic()
        self.is_over = False
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.env = login_environment()
        self.directory = os.getcwdb()  # noqa: PTH109 - no pathlib here
        me = look(self.me)
        start = 0 if me is None else me.start
        self.namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - no pathlib here
        self.env[b"TRIO_LIFECYCLE_OWNER"] = b"%d-%d-%d" % (self.namespace, self.me, start)
        self.note_at = float("inf")
        self.note_after = FIRST_NOTE_S

    # --- talking ---

    def say(self, message: dict[str, Any], raw: bytes = b"") -> None:
        """Say something as soon as it is taken."""
        self.unsent += json.dumps(message).encode() + b"\n" + raw

    def send_on(self) -> None:
        """Write what is taken now."""
        while self.unsent:
            try:
                count = os.write(STDOUT, self.unsent[:READ_BYTES])
            except BlockingIOError:
                return
            except OSError:
                self.is_over = True
                return
            del self.unsent[:count]

    def hear(self) -> None:
        """Read and do what is asked; an end of the input is the end of all."""
        try:
            chunk = os.read(STDIN, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        self.is_over = self.is_over or not chunk
        self.heard_at = time.monotonic()
        before = len(self.unread)
        self.unread += chunk
        end = self.unread.find(b"\n", before)
        while end >= 0 and not self.is_over:
            message = json.loads(self.unread[:end].decode())
            del self.unread[: end + 1]
            self.obey(message)
            end = self.unread.find(b"\n")

    # --- what is asked ---

    def obey(self, message: dict[str, Any]) -> None:
        """Do one thing."""
        what = message["do"]
        charge = self.charges.get(message.get("id", 0))
        if what == "beat":
            self.say({"ticks": ticks_now()})
        elif what == "spawn":
            self.spawn(message)
        elif what == "retire":
            self.is_over = True
        elif what == "signal":
            self.signal_one(charge, message["signum"], message["tree"])
            self.say({"answer": message["ask"], "value": None})
        elif what == "contains":
            value = charge is not None and self.contains(charge, message["pid"])
            self.say({"answer": message["ask"], "value": value})
        elif charge is not None and what == "open":
            self.open_gate(charge)
        elif charge is not None:
            charge.is_refused = True
            self.signal(charge, KILL)

    def spawn(self, order: dict[str, Any]) -> None:
        """Fork a child that becomes the daemon; what becomes of it is heard by its report."""
        opened: list[int] = []
        ends: list[tuple[int, int]] = []
        try:
            for _ in range(2 + len(order["forwards"]) + bool(order["gated"])):
                ends.append(os.pipe())
                opened += ends[-1]
            start = ticks_now()
            pid = os.fork()
        except OSError as error:
            for fd in opened:
                os.close(fd)
            what = {"stage": "program", "what": "", "errno": error.errno}
            self.say(dict(what, failed=order["id"]))
            return
        (out, stdout), (report, told), *rest = ends
        forwards = {number: rest[at] for at, number in enumerate(order["forwards"])}
        gate = rest[-1] if order["gated"] else None
        if not pid:
            streams = {number: pair[1] for number, pair in forwards.items()}
            streams.update({0: self.null, 1: stdout, 2: stdout})
            become(
                order, self.env, self.directory, streams, told, None if gate is None else gate[0]
            )
        charge = Charge(pid, start, order)
        charge.out, charge.report = out, report
        charge.forwards = {number: pair[0] for number, pair in forwards.items()}
        charge.gate = -1 if gate is None else gate[1]
        kept = {*charge.pipes, report, charge.gate}
        for fd in opened:
            if fd in kept:
                os.set_blocking(fd, False)
            else:
                os.close(fd)
        self.charges[charge.id] = self.ends[pid] = charge
        self.add(charge)
        write_table(self.table, self.daemons)
        self.note_after = FIRST_NOTE_S
        self.note_at = time.monotonic() + FIRST_NOTE_S

    def open_gate(self, charge: Charge) -> None:
        """Let the daemon's program begin."""
        if charge.report < 0:
            self.refuse(charge, "gate", "", None)
            return
        try:
            os.write(charge.gate, GO)
        except OSError:  # it has ended, as its report says
            pass
        os.close(charge.gate)
        charge.gate = -1

    def settle(self, charge: Charge) -> None:
        """Take in what a child says of its start."""
        try:
            said = os.read(charge.report, READ_BYTES)
        except BlockingIOError:
            return
        if said.startswith(AT_GATE):
            self.tell_spawned(charge)
            said = said[len(AT_GATE) :]
            if not said:
                return
        os.close(charge.report)
        charge.report = -1
        if said:
            self.refuse(charge, *json.loads(said.decode()))
        elif charge.gate < 0:
            # The end without a word comes with the exec itself.
            self.tell_spawned(charge)
            self.say({"opened": charge.id})
        elif not charge.is_told:
            self.refuse(charge, "gate", "", None)

    def refuse(self, charge: Charge, stage: str, what: str, number: int | None) -> None:
        """Say why a daemon does not run; its end is no news after that."""
        charge.is_refused = True
        self.say({"failed": charge.id, "stage": stage, "what": what, "errno": number})

    def tell_spawned(self, charge: Charge) -> None:
        """Say that the daemon is there, once."""
        if not charge.is_told:
            charge.is_told = True
            line = read(f"/proc/{charge.pid}/stat")
            start = int(line[line.rindex(b")") + 2 :].split()[19]) if line else charge.start
            news = {"spawned": charge.id, "pid": charge.pid, "start": start}
            self.say(dict(news, ticks=ticks_now()))

    def signal_one(self, charge: Charge | None, signum: int, tree: bool) -> None:
        """Signal a daemon's tree, or only its main process."""
        if charge is None or charge.pid not in self.daemons:
            return
        if tree:
            self.signal(charge, signum)
        elif not charge.ended:
            try:
                os.kill(charge.pid, signum)  # ours and not reaped: the number is its own
            except OSError:
                pass

    def contains(self, charge: Charge, pid: int) -> bool:
        """Say whether a process is of a daemon's tree."""
        seen = look(pid)
        if seen is None or charge.pid not in self.daemons:
            return False
        return seen.group == charge.pid or any(pid == one.pid for one in self.tree(charge))

    # --- what is told ---

    def tell(self, message: tuple[Any, ...]) -> None:
        """Say what the family has noticed."""
        if message[0] == "stray":
            _, pid, daemons = message
            ids = [self.ends[daemon].id for daemon in daemons]
            command = read(f"/proc/{pid}/cmdline").replace(b"\0", b" ").decode(errors="replace")
            self.say({"stray": pid, "command": command[:1000].strip(), "ids": ids})
        else:
            _, pid, status, gone = message
            self.tell_end(self.ends[pid], status, gone)

    def tell_end(self, charge: Charge, status: int, gone: bool) -> None:
        """Say that a main process has ended, or all of a daemon; all that it wrote comes before."""
        if charge.report >= 0:
            self.settle(charge)
        for fd in charge.pipes:
            self.take(charge, fd, MOST_TAKEN_BYTES)
        if not charge.is_exited and not charge.is_refused:
            self.say({"exited": charge.id, "status": status})
        charge.is_exited = True
        if gone:
            self.let_go(charge)
            self.say({"gone": charge.id})

    def let_go(self, charge: Charge) -> None:
        """Close what is held of a daemon that is gone."""
        for fd in (*charge.pipes, charge.report, charge.gate):
            if fd >= 0:
                os.close(fd)
        del self.charges[charge.id]
        del self.ends[charge.pid]

    def take(self, charge: Charge, fd: int, room: int = READ_BYTES) -> None:
        """Pass on what a daemon has written to one of its pipes."""
        number = next((n for n, end in charge.forwards.items() if end == fd), None)
        name = {"out": charge.id} if number is None else {"fwd": charge.id, "fd": number}
        while room > 0:
            try:
                chunk = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return
            if chunk or number is not None:
                self.say(dict(name, n=len(chunk)), chunk)
            if not chunk:
                os.close(fd)
                if number is None:
                    charge.out = -1
                else:
                    charge.forwards[number] = -1
                return
            room -= len(chunk)

    def forget(self, daemon: Daemon) -> None:
        """Tell the outer process, too."""
        super().forget(daemon)
        write_table(self.table, self.daemons)

    def kill_again(self) -> float | None:
        """Say, too, what a kill does not end."""
        pause = super().kill_again()
        if pause is not None and pause >= LONGEST_PAUSE_S:
            for charge in [*self.charges.values()]:
                if charge.doomed and charge.pid in self.daemons:
                    self.say_stuck(charge)
        return pause

    def say_stuck(self, charge: Charge) -> None:
        """Say which process is left, and what it waits in."""
        left = [charge.pid] if look(charge.pid) is not None else []
        left += [seen.pid for seen in self.tree(charge)]
        for pid in left[:1]:
            place = read(f"/proc/{pid}/wchan").decode(errors="replace")
            self.say({"stuck": charge.id, "pid": pid, "in": place})

    # --- the loop ---

    def serve(self, outer: int, pulse: int, wake: int) -> None:
        """Work until there is nobody any more to work for."""
        pause: float | None = None
        while not self.is_over:
            self.send_on()
            poll, owners = self.watched()
            for fd in (STDIN, outer, wake):
                poll.register(fd, select.POLLIN)
            poll.register(STDOUT, select.POLLOUT if self.unsent else 0)
            news = dict(poll.poll(self.timeout_ms(pause)))
            if outer in news or news.get(STDOUT, 0) & ~select.POLLOUT:
                return
            if STDIN in news:
                self.hear()
                touch(pulse)
            elif time.monotonic() >= self.heard_at + self.limit_s:
                return
            if wake in news:
                os.read(wake, 4096)
            for fd in owners.keys() & news.keys():
                self.attend(owners[fd], fd)
            if wake in news or pause is not None:
                self.reap()
            pause = self.kill_again()
            if time.monotonic() >= self.note_at:
                self.note()
                self.note_after = min(4 * self.note_after, LONGEST_NOTE_S)
                self.note_at += self.note_after if self.daemons else float("inf")

    def watched(self) -> tuple[select.poll, dict[int, Charge]]:
        """Give what to wait for of the daemons."""
        poll = select.poll()
        owners: dict[int, Charge] = {}
        for charge in self.charges.values():
            pipes = charge.pipes if len(self.unsent) < MOST_UNSENT_BYTES else []
            for fd in (*pipes, charge.report):
                if fd >= 0:
                    owners[fd] = charge
                    poll.register(fd, select.POLLIN)
        return poll, owners

    def attend(self, charge: Charge, fd: int) -> None:
        """Take in what a daemon says."""
        if fd == charge.report:
            self.settle(charge)
        elif fd in charge.pipes:
            self.take(charge, fd)

    def timeout_ms(self, pause: float | None) -> float:
        """Say how long nothing has to be done, if nobody asks."""
        now = time.monotonic()
        times = [self.heard_at + self.limit_s - now, self.note_at - now, LONGEST_POLL_S]
        if pause is not None:
            times.append(pause)
        return max(0.0, min(times)) * 1000 + 1

    def hang_up(self) -> None:
        """Say what can be said at once, and let the application see that this is the end."""
        self.send_on()
        self.unsent.clear()
        for charge in self.charges.values():
            if charge.gate >= 0:
                os.close(charge.gate)
                charge.gate = -1
        os.dup2(self.null, STDIN)
        os.dup2(self.null, STDOUT)

    def wait(self, poll: select.poll, wake: int, seconds: float) -> None:
        """Wait for ends as the family does; meanwhile nobody waits in vain to write."""
        del poll
        deadline = time.monotonic() + min(max(0.0, seconds), LONGEST_POLL_S)
        while True:
            self.unsent.clear()
            poll, owners = self.watched()
            poll.register(wake, select.POLLIN)
            left_s = deadline - time.monotonic()
            news = dict(poll.poll(max(0.0, left_s) * 1000))
            for fd in owners.keys() & news.keys():
                self.attend(owners[fd], fd)
            if wake in news:
                os.read(wake, 4096)
            if wake in news or left_s <= 0:
                return


def touch(pulse: int) -> None:
    """Show the outer process that this one is well."""
    try:
        os.write(pulse, b".")
    except OSError:  # it does not look, and then there is enough to see
        pass


def login_environment() -> dict[bytes, bytes]:
    """Give what the login gave; Python may have set a locale for itself since (PEP 538)."""
    pairs = [entry.partition(b"=") for entry in read("/proc/self/environ").split(b"\0")]
    return {key: value for key, sign, value in pairs if key and sign}


def outlive(inner: int, table: mmap.mmap, pulse: int, wake: int, limit_s: float) -> Kin:
    """Wait for the end of the inner process; give what it has left behind."""
    poll = select.poll()
    poll.register(pulse, select.POLLIN)
    poll.register(wake, select.POLLIN)
    deadline = time.monotonic() + limit_s + PATIENCE_S
    while os.waitpid(inner, os.WNOHANG) == (0, 0):
        left_s = max(0.0, deadline - time.monotonic())
        news = dict(poll.poll(min(left_s, LONGEST_POLL_S) * 1000))
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
    for signum in set(range(1, _signal.NSIG)) - HEEDED:
        try:
            _signal.signal(signum, _signal.SIG_IGN)
        except (OSError, ValueError):  # what the C library keeps for itself
            pass
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
    guard = Guard(table, limit_s)
    os.chdir("/")
    for fd in (STDIN, STDOUT):
        os.set_blocking(fd, False)
    guard.unsent += token.encode() + b" "
    guard.say(
        {
            "hello": guard.me,
            "outer": outer,
            "namespace": guard.namespace,
            "boot_id": read("/proc/sys/kernel/random/boot_id").decode().strip(),
            "ticks": ticks_now(),
        }
    )
    try:
        guard.serve(life, beaten, wake)
    finally:
        guard.hang_up()
        os.close(beaten)
        guard.end_all(wake)
        try:
            os.kill(outer, CONT)  # somebody may have stopped it
        except OSError:
            pass
        sys.stderr.flush()
    os._exit(0)
