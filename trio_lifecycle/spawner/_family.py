"""The family of a reaper: all processes below it, to which daemon each belongs, and their end.

A part of the program in ``_reaper.py``, so it imports nothing of the package.
"""

import os
import select
import time
from typing import Any

# The module ``signal`` costs more to import than all the rest.
_signal: Any = __import__("_signal")

INSTANCE, CGROUP = b"TRIO_LIFECYCLE_INSTANCE=", b"/trio-lifecycle-"
TICKS = os.sysconf("SC_CLK_TCK")
KILL, CONT = int(_signal.SIGKILL), int(_signal.SIGCONT)
# How long to wait before killing again what forked while it was killed.
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 0.005, 1.0
# How many daemons that are gone are remembered, for a process of theirs that shows up late.
REMEMBERED = 200
# How often to look again at children of which some end all the time.
LOOKS = 100


class Seen:
    """A process as it was when it was looked at: proc_pid_stat(5)."""

    __slots__ = ("dead", "group", "pid", "session", "start")

    def __init__(self, pid: int, line: bytes) -> None:
        fields = line[line.rindex(b")") + 2 :].split()
        self.pid = pid
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start = int(fields[19])
        self.dead = fields[0] in (b"Z", b"X", b"x") and int(fields[17]) <= 1


def read(path: str) -> bytes:
    """Read a file of /proc; nothing when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        text = part = os.read(fd, 65536)
        while part:
            part = os.read(fd, 65536)
            text += part
        return text
    except OSError:  # it ended meanwhile
        return b""
    finally:
        os.close(fd)


def look(pid: int) -> Seen | None:
    """Look at a process; None when there is none, or only a zombie."""
    line = read(f"/proc/{pid}/stat")
    seen = Seen(pid, line) if line else None
    return None if seen is None or seen.dead else seen


def children(pid: int) -> list[int]:
    """List the children of a process, those of each of its threads."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - no pathlib here
    except OSError:
        return []
    lists = [read(f"/proc/{pid}/task/{thread}/children") for thread in threads]
    return [int(child) for some in lists for child in some.split()]


def children_by_scan(pid: int) -> list[int]:
    """Do the same where the kernel keeps no such list (CONFIG_PROC_CHILDREN)."""
    found = []
    for name in os.listdir("/proc"):  # noqa: PTH208 - no pathlib here
        line = read(f"/proc/{name}/stat") if name.isdecimal() else b""
        if line and int(line[line.rindex(b")") + 2 :].split()[1]) == pid:
            found.append(int(name))
    return found


if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):  # noqa: PTH110 - no pathlib here
    children = children_by_scan


def ticks_now() -> int:
    """Give the time in which start times are counted."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS)


class Daemon:
    """A daemon: its main process is a child of ours, and not reaped before its tree is gone."""

    __slots__ = (
        *("cgroup", "doomed", "due", "ended", "mark", "pid", "rungs", "start", "status", "until"),
    )

    def __init__(
        self,
        pid: int,
        start: int,
        rungs: "tuple[tuple[int, float], ...]",
        mark: bytes,
        cgroup: str | None,
    ) -> None:
        self.pid, self.start, self.rungs = pid, start, rungs
        self.mark, self.cgroup = mark, cgroup
        self.ended = self.doomed = False
        self.status: int | None = None
        self.due = 0.0
        self.until = 0  # once it is gone: when that was

    def look_for_end(self) -> bool:
        """Say whether the main process has ended since the last look."""
        if not self.ended:
            result = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if result is not None:
                self.ended = True
                exited = result.si_code == os.CLD_EXITED
                self.status = result.si_status if exited else -result.si_status
                return True
        return False


class Family:
    """All processes below this one, and to which daemon each belongs."""

    def __init__(self, daemons: "dict[int, Daemon]") -> None:
        self.daemons = daemons
        self.finished: dict[int, Daemon] = {}
        # What was seen while ancestry could be seen: whose a process is, whose a session is.
        self.noted: dict[tuple[int, int], int] = {}
        self.sessions: dict[int, int] = {}
        # Children that no daemon's main process is: their parents have ended.
        self.strays: dict[int, int | None] = {}
        self.me = os.getpid()
        self.pause = SHORTEST_PAUSE_S

    def tell(self, message: "tuple[Any, ...]") -> None:
        """Tell the application; the outer process has none."""

    def add(self, daemon: Daemon) -> None:
        """Take a daemon in that was spawned this moment."""
        pid = daemon.pid
        if self.finished.pop(pid, None) is not None:
            # Its number was another's before.
            self.noted = {who: owner for who, owner in self.noted.items() if owner != pid}
            self.sessions = {sid: owner for sid, owner in self.sessions.items() if owner != pid}
        self.daemons[pid] = daemon

    # --- who belongs to whom ---

    def look_at_strays(self) -> "dict[int, int | None]":
        """Reap strays that have ended; give the others, each with the daemon that it is of."""
        for _ in range(LOOKS):
            strays: dict[int, int | None] = {}
            again = False
            for pid in children(self.me):
                if pid in self.daemons:
                    continue
                # A child that is not reaped keeps its number, so that its owner is asked for once.
                seen = None if pid in self.strays else look(pid)
                if os.waitpid(pid, os.WNOHANG)[0]:
                    # Its children are ours by now, and stand only in the next list.
                    again = True
                elif pid in self.strays:
                    strays[pid] = self.strays[pid]
                elif seen is not None:
                    strays[pid] = self.judge(seen)
                else:
                    again = True
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
            able = [d for d in every if d.start <= seen.start <= (d.until or seen.start)]
            if len(able) == 1:
                return able[0].pid
            self.tell(("stray", seen.pid, [d.pid for d in able if d.pid in self.daemons]))
        return owner

    def tree(self, daemon: Daemon) -> "list[Seen]":
        """Give the living processes of a daemon outside of its group; take note of all."""
        tops = [pid for pid, owner in self.look_at_strays().items() if owner == daemon.pid]
        waiting = [*children(daemon.pid), *tops, *members(daemon.cgroup)]
        found: dict[int, Seen] = {}
        for pid in waiting:  # it grows
            if pid not in found and (seen := look(pid)) is not None:
                found[pid] = seen
                self.noted[pid, seen.start] = daemon.pid
                self.sessions[seen.session] = daemon.pid
                waiting += children(pid)
        return [seen for seen in found.values() if seen.group != daemon.pid]

    def note(self) -> None:
        """Note anew whose every process is, and forget those that are gone."""
        self.look_at_strays()
        self.noted.clear()
        self.sessions.clear()
        for daemon in [*self.daemons.values()]:
            self.tree(daemon)

    # --- acting ---

    def send(self, seen: Seen, signum: int) -> None:
        """Signal exactly this process."""
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
        outside = self.tree(daemon)
        try:
            os.killpg(daemon.pid, signum)
        except OSError:
            pass
        for seen in outside:
            self.send(seen, signum)

    def reap(self) -> None:
        """Notice who has ended, and which daemons are gone."""
        news = [daemon for daemon in self.daemons.values() if daemon.look_for_end()]
        ended = [daemon for daemon in self.daemons.values() if daemon.ended]
        strays = self.look_at_strays()
        living = set(strays.values())
        for daemon in ended:
            gone = daemon.pid not in living and not is_populated(daemon.cgroup)
            if gone:
                self.forget(daemon)
            if gone or daemon in news:
                self.tell(("ended", daemon.pid, daemon.status, gone))
        for pid, owner in strays.items():
            if owner in self.finished:
                os.kill(pid, KILL)

    def forget(self, daemon: Daemon) -> None:
        """Reap the main process of a daemon whose tree is gone; its number is free from here on."""
        os.waitpid(daemon.pid, os.WNOHANG)
        del self.daemons[daemon.pid]
        self.finished.pop(daemon.pid, None)
        daemon.until = ticks_now()
        self.finished[daemon.pid] = daemon
        if len(self.finished) > REMEMBERED:
            del self.finished[next(iter(self.finished))]
        if daemon.cgroup is not None:
            remove(daemon.cgroup)

    def kill_again(self) -> "float | None":
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
                wait_for(poll, wake, min(dues) - time.monotonic())
            self.reap()
        pause = SHORTEST_PAUSE_S
        while self.kill_everybody():
            wait_for(poll, wake, pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

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
        waiting, seen = children(self.me), set[int]()
        for pid in waiting:  # it grows
            if pid not in seen and (one := look(pid)) is not None:
                seen.add(pid)
                self.send(one, KILL)
                waiting += children(pid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            for daemon in self.daemons.values():
                if daemon.cgroup is not None:
                    remove(daemon.cgroup)
            return False
        return True


def wait_for(poll: "select.poll", wake: int, seconds: float) -> None:
    """Wait until a child has ended, at most so long."""
    if poll.poll(max(0.0, seconds) * 1000):
        os.read(wake, 4096)


def write(path: str, text: bytes) -> None:
    """Write to a control file, if it is there."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        os.write(fd, text)
    except OSError:
        pass
    finally:
        os.close(fd)


def members(cgroup: str | None) -> "list[int]":
    """List the processes of a control group and of those below it."""
    if cgroup is None:
        return []
    found = [int(pid) for pid in read(f"{cgroup}/cgroup.procs").split()]
    for path in below(cgroup):
        found += members(path)
    return found


def below(cgroup: str) -> "list[str]":
    """List the control groups that a daemon made in its own."""
    try:
        return [entry.path for entry in os.scandir(cgroup) if entry.is_dir()]
    except OSError:
        return []


def is_populated(cgroup: str | None) -> bool:
    """Say whether a control group has processes: cgroup.events of cgroup v2."""
    return cgroup is not None and b"populated 1" in read(f"{cgroup}/cgroup.events")


def remove(cgroup: str) -> None:
    """Remove an empty control group with those that the daemon made below it."""
    for path in below(cgroup):
        remove(path)
    try:
        os.rmdir(cgroup)  # noqa: PTH106 - no pathlib here
    except OSError:
        pass
