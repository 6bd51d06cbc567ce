"""The family of a reaper: all processes below it, to which daemon each belongs, and their end.

A part of the program in ``_reaper.py``, so it imports nothing of the package but another part. It
is sent to other machines, too (``_ssh/guard.py``), so what Python 3.7 does not know is not used, or
has a way round there.
"""

from __future__ import annotations

import os
import select
import time

from trio_lifecycle.spawner._kernel import (
    Seen,
    children,
    is_populated,
    look,
    members,
    own_children,
    read,
    remove,
    ticks_now,
    wait_for,
    write,
)

# The module ``typing`` would be a tenth of the memory.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The module ``signal`` costs more to import than all the rest.
_signal: Any = __import__("_signal")

INSTANCE, CGROUP = b"TRIO_LIFECYCLE_INSTANCE=", b"/trio-lifecycle-"
KILL, CONT, STOP = int(_signal.SIGKILL), int(_signal.SIGCONT), int(_signal.SIGSTOP)
# How long to wait before killing again what forked while it was killed.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0
# How many daemons that are gone are remembered, for a process of theirs that shows up late.
REMEMBERED = 200
# How often to look again at children of which some end all the time.
LOOKS = 100
# When after a spawn to note who belongs to whom: soon for what starts up, then rarely.
FIRST_NOTE_S, LONGEST_NOTE_S = 0.1, 60.0
# How often to kill in one go what forks while it is killed.
ROUNDS = 30


class Daemon:
    """A daemon: its main process is a child of ours, and not reaped before its tree is gone."""

    __slots__ = (
        *("cgroup", "doomed", "due", "ended", "mark", "pid", "rungs", "start", "status", "until"),
    )

    def __init__(
        self,
        pid: int,
        start: int,
        rungs: tuple[tuple[int, float], ...],
        mark: bytes,
        cgroup: str | None,
    ) -> None:
        self.pid, self.start, self.rungs = pid, start, rungs
        self.mark, self.cgroup = mark, cgroup
        self.ended = self.doomed = False
        self.status: int | None = None
        self.due = 0.0
        self.until = 0  # once it is gone: when that was

    def look_for_end(self) -> os.waitid_result | None:
        """Say how the main process has ended; None while it runs."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)


class Family:
    """All processes below this one, and to which daemon each belongs."""

    def __init__(self, daemons: dict[int, Daemon]) -> None:
        self.daemons = daemons
        self.finished: dict[int, Daemon] = {}
        # What was seen while ancestry could be seen: whose a process is, whose a session is.
        self.noted: dict[tuple[int, int], int] = {}
        self.sessions: dict[int, int] = {}
        # Children that no daemon's main process is: their parents have ended.
        self.strays: dict[int, int | None] = {}
        self.me = os.getpid()
        self.pause = SHORTEST_PAUSE_S
        self.note_at = float("inf")
        self.note_after = FIRST_NOTE_S

    def tell(self, message: tuple[Any, ...]) -> None:
        """Tell the application; the outer process has none."""

    def drop_ghosts(self) -> None:
        """Forget daemons that the inner process had reaped: their numbers may be a stranger's."""
        for daemon in [*self.daemons.values()]:
            try:
                daemon.look_for_end()
            except ChildProcessError:
                del self.daemons[daemon.pid]

    def add(self, daemon: Daemon) -> None:
        """Take a daemon in that was spawned this moment."""
        pid = daemon.pid
        if self.finished.pop(pid, None) is not None:
            # Its number was another's before.
            self.noted = {who: owner for who, owner in self.noted.items() if owner != pid}
            self.sessions = {sid: owner for sid, owner in self.sessions.items() if owner != pid}
        self.daemons[pid] = daemon
        self.note_after = FIRST_NOTE_S
        self.note_at = time.monotonic() + FIRST_NOTE_S

    # --- who belongs to whom ---

    def look_at_strays(self) -> dict[int, int | None]:
        """Reap strays that have ended; give the others, each with the daemon that it is of."""
        for _ in range(LOOKS):
            strays: dict[int, int | None] = {}
            again = False
            for pid in own_children():
                if pid in self.daemons:
                    continue
                if os.waitpid(pid, os.WNOHANG)[0]:
                    # Its children are ours by now, and stand only in the next list.
                    again = True
                elif pid in self.strays:
                    # Not reaped, it keeps its number, so that its owner is asked for once.
                    strays[pid] = self.strays[pid]
                else:
                    seen = look(pid)
                    if seen is None:
                        again = True
                    else:
                        strays[pid] = self.judge(seen)
            self.strays = strays
            if not again:
                break
        return self.strays

    def judge(self, seen: Seen) -> int | None:
        """Say which daemon a stray is of; the application hears of one that can't be told."""
        owner = self.noted.get((seen.pid, seen.start)) or self.sessions.get(seen.session)
        if owner is None and seen.session in self.daemons:
            owner = seen.session
        every = [*self.daemons.values(), *self.finished.values()]
        if owner is None:
            groups = read(f"/proc/{seen.pid}/cgroup")
            # A hint only: a program may overwrite the place, but hardly by another daemon's.
            marks = read(f"/proc/{seen.pid}/environ").split(b"\0")
            for daemon in every:
                if INSTANCE + daemon.mark in marks or CGROUP + daemon.mark in groups:
                    owner = daemon.pid
        if owner is None:
            # The living first: an end and a start in one tick of the clock are hard to tell apart.
            able = [d for d in self.daemons.values() if d.start <= seen.start] or [
                d for d in self.finished.values() if d.start <= seen.start <= d.until
            ]
            if len(able) == 1:
                return able[0].pid
            self.tell(("stray", seen.pid, [d.pid for d in able if d.pid in self.daemons]))
        return owner

    def tree(self, daemon: Daemon, *, with_theirs: bool = True) -> list[Seen]:
        """Give the living processes of a daemon outside of its group; take note of all.

        A daemon may be a program with daemons of its own. These are below a reaper, too.
        """
        tops = [pid for pid, owner in self.look_at_strays().items() if owner == daemon.pid]
        found = self.descend([*children(daemon.pid), *tops, *members(daemon.cgroup)], with_theirs)
        for seen in found:
            self.noted[seen.pid, seen.start] = daemon.pid
            self.sessions[seen.session] = daemon.pid
        return [seen for seen in found if seen.group != daemon.pid]

    def descend(self, pids: list[int], with_theirs: bool = True) -> list[Seen]:
        """Give these processes and all that descend from them, as far as they live."""
        found: dict[int, Seen] = {}
        waiting = [*pids]
        for pid in waiting:  # it grows
            seen = None if pid in found else look(pid)
            if seen is not None and (with_theirs or not seen.is_reaper):
                found[pid] = seen
                waiting += children(pid)
        return [*found.values()]

    def note(self) -> None:
        """Note anew whose every process is, and forget those that are gone."""
        self.look_at_strays()
        self.noted.clear()
        self.sessions.clear()
        for daemon in [*self.daemons.values()]:
            self.tree(daemon)

    def note_when_due(self) -> None:
        """Note it soon after a spawn, and then ever more rarely."""
        if time.monotonic() >= self.note_at:
            self.note()
            self.note_after = min(4 * self.note_after, LONGEST_NOTE_S)
            self.note_at += self.note_after if self.daemons else float("inf")

    # --- acting ---

    def send(self, seen: Seen, signum: int) -> None:
        """Signal exactly this process."""
        if seen.pid in self.strays:
            signal_child(seen.pid, signum)
            return
        try:
            pidfd = os.pidfd_open(seen.pid)
        except OSError:
            return
        try:
            now = look(seen.pid)
            if now is not None and now.start == seen.start:
                _signal.pidfd_send_signal(pidfd, signum)
        except OSError:
            pass
        finally:
            os.close(pidfd)

    def signal(self, daemon: Daemon, signum: int) -> None:
        """Signal a daemon's whole tree: the group at once, then one by one who is outside of it."""
        if signum == KILL:
            daemon.doomed, self.pause = True, SHORTEST_PAUSE_S
            if daemon.cgroup is not None:
                write(f"{daemon.cgroup}/cgroup.kill", b"1")
        # Asked politely, a program stops its own daemons, and its reaper is not to be in its way.
        outside = self.tree(daemon, with_theirs=signum == KILL)
        try:
            os.killpg(daemon.pid, signum)
        except OSError:
            pass
        for seen in outside:
            self.send(seen, signum)
        if signum == KILL:
            self.kill_strays(daemon)

    def kill_strays(self, daemon: Daemon) -> None:
        """Kill what a daemon's processes fork while they are killed, faster than they do."""
        for _ in range(ROUNDS):
            strays = [pid for pid, owner in self.look_at_strays().items() if owner == daemon.pid]
            if not strays:
                return
            for pid in strays:
                signal_child(pid, KILL)

    def reap(self) -> None:
        """Notice who has ended, and which daemons are gone."""
        while True:
            try:
                end = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                end = None
            if end is None:
                break
            daemon = self.daemons.get(end.si_pid)
            if daemon is None:
                os.waitpid(end.si_pid, os.WNOHANG)
                self.strays.pop(end.si_pid, None)
            elif daemon.ended or not self.take_end(daemon, end):
                # It is kept, and stands before the others.
                for other in [*self.daemons.values()]:
                    if not other.ended:
                        self.take_end(other, other.look_for_end())
                break
        for daemon in [daemon for daemon in self.daemons.values() if daemon.ended]:
            if self.is_gone(daemon):
                self.forget(daemon)
                self.tell(("ended", daemon.pid, daemon.status, True))
        for pid, owner in self.look_at_strays().items():
            if owner in self.finished:
                signal_child(pid, KILL)  # ours and unreaped, so that the number is not another's

    def take_end(self, daemon: Daemon, end: os.waitid_result | None) -> bool:
        """Take note that a main process has ended; say whether nothing is left of the daemon."""
        if end is None:
            return False
        daemon.ended = True
        daemon.status = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        gone = self.is_gone(daemon)
        if gone:
            self.forget(daemon)
        self.tell(("ended", daemon.pid, daemon.status, gone))
        return gone

    def is_gone(self, daemon: Daemon) -> bool:
        """Say whether nothing is left of a daemon whose main process has ended.

        Its descendants had other parents, which have ended, too, or they are strays by now.
        """
        owners = self.look_at_strays().values()
        return daemon.pid not in owners and not is_populated(daemon.cgroup)

    def forget(self, daemon: Daemon) -> None:
        """Reap the main process of a daemon whose tree is gone; its number is free from here on."""
        try:
            os.waitpid(daemon.pid, os.WNOHANG)
        except ChildProcessError:  # reaped by the inner process as its last deed
            pass
        del self.daemons[daemon.pid]
        self.finished.pop(daemon.pid, None)
        daemon.until = ticks_now()
        self.finished[daemon.pid] = daemon
        if len(self.finished) > REMEMBERED:
            del self.finished[next(iter(self.finished))]
        if daemon.cgroup is not None:
            remove(daemon.cgroup)

    def kill_again(self) -> float | None:
        """Kill what forked while it was killed; say when to do so again."""
        doomed = [daemon for daemon in self.daemons.values() if daemon.doomed]
        if not doomed:
            return None
        pause = self.pause
        for daemon in doomed:
            self.signal(daemon, KILL)
        self.pause = min(2 * pause, LONGEST_PAUSE_S)
        return pause

    # --- the end ---

    def end_all(self, wake: int) -> None:
        """Stop all daemons at once, each by its own ladder; then kill until no child is left."""
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        self.reap()
        while any(not daemon.doomed for daemon in self.daemons.values()):
            now = time.monotonic()
            for daemon in [*self.daemons.values()]:
                if not daemon.doomed and daemon.due <= now:
                    self.climb(daemon, now)
            dues = [daemon.due for daemon in self.daemons.values() if not daemon.doomed]
            again = self.kill_again()
            if again is not None:
                dues.append(now + again)
            if dues:
                self.wait(poll, wake, min(dues) - time.monotonic())
            self.reap()
        pause = SHORTEST_PAUSE_S
        while self.kill_everybody():
            # What forks faster than it can be killed is stopped before.
            for seen in self.descend(own_children()):
                self.send(seen, STOP)
            self.wait(poll, wake, pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def wait(self, poll: select.poll, wake: int, seconds: float) -> None:
        """Wait until a child has ended, at most so long."""
        wait_for(poll, wake, seconds)

    def climb(self, daemon: Daemon, now: float) -> None:
        """Send the signal of a daemon's next rung."""
        if not daemon.rungs:
            self.signal(daemon, KILL)
            return
        (signum, seconds), *rest = daemon.rungs
        daemon.rungs, daemon.due = tuple(rest), now + seconds
        self.signal(daemon, signum)
        self.signal(daemon, CONT)

    def kill_everybody(self) -> bool:
        """Kill and reap; False when there is no child left, which is the proof."""
        for daemon in self.daemons.values():
            if daemon.cgroup is not None:
                write(f"{daemon.cgroup}/cgroup.kill", b"1")
        for _ in range(ROUNDS):
            # Unreaped children, so that their numbers are not another's.
            for pid in own_children():
                signal_child(pid, KILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                for daemon in self.daemons.values():
                    if daemon.cgroup is not None:
                        remove(daemon.cgroup)
                return False
        for seen in self.descend(own_children()):
            self.send(seen, KILL)
        return True


def signal_child(pid: int, signum: int) -> None:
    """Signal a child that was not reaped, so that its number is not another's."""
    try:
        os.kill(pid, signum)
    except OSError:
        pass  # it runs as another user by now, as sudo(8) does
