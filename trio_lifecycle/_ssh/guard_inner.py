"""The inner process of a guard: does what the application asks, and says what it sees.

A part of the program in ``guard.py``: for Python from 3.7 on, with nothing of the package but other
parts.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import time
from errno import EMFILE

from trio_lifecycle._ssh.guard_channel import READ_BYTES, STDIN, STDOUT, Attention, Channel, touch
from trio_lifecycle._ssh.guard_child import AT_GATE, GO, GOING, become
from trio_lifecycle._ssh.guard_kin import Charge, Kin
from trio_lifecycle._ssh.guard_letters import ORDERS, Letters
from trio_lifecycle.spawner._family import CONT, KILL, LONGEST_PAUSE_S, Daemon
from trio_lifecycle.spawner._kernel import LONGEST_POLL_S, look, read, ticks_now
from trio_lifecycle.spawner._table import write_table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# As much as a pipe can hold (pipe-max-size): what a daemon wrote before its end is taken in whole.
MOST_TAKEN_BYTES = 1 << 20
# Without them nothing could be read of /proc, nor be known of any daemon.
SPARE_DESCRIPTORS = 8


class Guard(Kin):
    """The inner process: does what the application asks."""

    def __init__(self, table: mmap.mmap, limit_s: float, outer: int) -> None:
        super().__init__({})
        self.table = table
        self.limit_s = limit_s
        self.outer = outer
        self.charges: dict[int, Charge] = {}
        self.ends: dict[int, Charge] = {}
        self.channel = Channel()
        self.say = self.channel.say
        self.letters = Letters(self.say)
        self.null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.env = login_environment()
        self.directory = login_directory()
        me = look(self.me)
        start = self.start = 0 if me is None else me.start
        self.namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - no pathlib here
        self.env[b"TRIO_LIFECYCLE_OWNER"] = b"%d-%d-%d" % (self.namespace, self.me, start)

    def retire(self, *_: object) -> None:
        """Take the application for gone."""
        self.channel.is_over = True

    # --- what is asked ---

    def wake_outer(self) -> None:
        """Let the outer process go on, should somebody have stopped it; else it notices nothing."""
        try:
            os.kill(self.outer, CONT)
        except OSError:  # it is gone, as is about to be seen
            pass

    def obey(self, message: dict[str, Any]) -> None:
        """Do one thing."""
        what = message["do"]
        charge = self.charges.get(message.get("id", 0))
        if what == "beat":
            self.say({"ticks": ticks_now()})
            self.wake_outer()
        elif what == "spawn":
            self.spawn(message)
        elif what == "retire":
            self.retire()
        elif what in ORDERS:
            self.letters.obey(message)
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
            if max(opened) + SPARE_DESCRIPTORS >= os.sysconf("SC_OPEN_MAX"):
                raise OSError(EMFILE, "no descriptor left")
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
        ended = not said
        if said.startswith(AT_GATE):
            self.tell_spawned(charge)
            said = said[len(AT_GATE) :]
        if said.startswith(GOING):
            charge.is_going = True
            said = said[len(GOING) :]
        if not said and not ended:
            return
        os.close(charge.report)
        charge.report = -1
        if said:
            self.refuse(charge, *json.loads(said.decode()))
        elif charge.is_going:
            # The end without a word comes with the exec itself.
            self.tell_spawned(charge)
            self.say({"opened": charge.id})
        elif not charge.is_told or charge.gate < 0:
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
        attention = Attention()
        while not self.channel.is_over:
            self.channel.send_on()
            poll, owners = self.watched()
            for fd in (STDIN, outer, wake):
                poll.register(fd, select.POLLIN)
            poll.register(STDOUT, select.POLLOUT if self.channel.unsent else 0)
            news, still_s = attention.wait(poll, self.patience_s(pause))
            self.channel.heard_at += still_s
            if outer in news or news.get(STDOUT, 0) & ~select.POLLOUT:
                return
            if STDIN in news:
                for message in self.channel.hear():
                    self.obey(message)
                touch(pulse)
            elif time.monotonic() >= self.channel.heard_at + self.limit_s:
                # An application that is there after all would think that this one was killed.
                self.say({"silent": self.limit_s})
                return
            if wake in news:
                os.read(wake, 4096)
            for fd in owners.keys() & news.keys():
                self.attend(owners[fd], fd)
            # Before an end is told: what was said before it comes first.
            for fd in self.letters.wanted():
                self.letters.take(fd)
            if wake in news or pause is not None:
                self.reap()
            pause = self.kill_again()
            self.note_when_due()

    def watched(self) -> tuple[select.poll, dict[int, Charge]]:
        """Give what to wait for of the daemons."""
        poll = select.poll()
        owners: dict[int, Charge] = {}
        for charge in self.charges.values():
            pipes = [] if self.channel.is_full else charge.pipes
            for fd in (*pipes, charge.report):
                if fd >= 0:
                    owners[fd] = charge
                    poll.register(fd, select.POLLIN)
        for fd in [] if self.channel.is_full else self.letters.wanted():
            poll.register(fd, select.POLLIN)
        return poll, owners

    def attend(self, charge: Charge, fd: int) -> None:
        """Take in what a daemon says."""
        if fd == charge.report:
            self.settle(charge)
        elif fd in charge.pipes:
            self.take(charge, fd)

    def patience_s(self, pause: float | None) -> float:
        """Say how long nothing has to be done, if nobody asks."""
        now = time.monotonic()
        # Often enough to see whether this machine stands still; heartbeats come as often.
        times = [self.channel.heard_at + self.limit_s - now, self.note_at - now, self.limit_s / 3]
        if pause is not None:
            times.append(pause)
        return min(times)

    def hang_up(self) -> None:
        """Say what can be said at once, and let the application see that this is the end."""
        self.channel.send_on()
        self.channel.unsent.clear()
        self.letters.close()
        for charge in self.charges.values():
            if charge.report >= 0:
                self.settle(charge)
            if charge.report >= 0:
                # It is not the program yet: on its way, it would not hear that it is asked to end.
                charge.rungs = ()
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
            self.channel.unsent.clear()
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


def login_environment() -> dict[bytes, bytes]:
    """Give what the login gave; Python may have set a locale for itself since (PEP 538)."""
    pairs = [entry.partition(b"=") for entry in read("/proc/self/environ").split(b"\0")]
    return {key: value for key, sign, value in pairs if key and sign}


def login_directory() -> bytes:
    """Give where the login began."""
    try:
        return os.getcwdb()  # noqa: PTH109 - no pathlib here
    except OSError:  # it was removed
        return b"/"
