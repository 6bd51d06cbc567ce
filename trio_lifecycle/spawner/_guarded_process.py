"""A daemon that the reaper has spawned, and ends if this program can't."""

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import trio

from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    command_line,
    has_variable,
    read_stat,
    signal_process,
    tree_of,
)
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.spawner._cgroup import Cgroup
from trio_lifecycle.spawner._reaper_link import ReaperLink
from trio_lifecycle.spawner._spawned_process import SpawnedProcess, is_readable
from trio_lifecycle.spawner._wait import wait_for

# How long the reaper may take to tell the exit status of a process that has ended: it hears of it
# at the same moment as this program does.
_STATUS_PATIENCE_S: Final = 0.5


_log: Final = logging.getLogger("trio_lifecycle")


def _hear_nothing(pid: int, command: str) -> None:
    """Let a stray pass."""


class GuardedProcess(SpawnedProcess):
    """A daemon below the reaper, which knows its whole tree, also who has left its group.

    When the reaper is lost or does not answer, this program acts by itself, on what it can find:
    the session and group of the main process, its descendants, and what bears the daemon's mark.
    """

    def __init__(
        self,
        link: ReaperLink,
        pid: int,
        pidfd: int,
        instance_id: str,
        output: FileOutput | PipedOutput,
        cgroup: Cgroup | None = None,
    ) -> None:
        super().__init__(pid, pidfd, instance_id, output)
        self._link = link
        self._cgroup = cgroup
        self._ended = False
        self._gone = False
        self._status: int | None = None
        self._lost: str | None = None
        self._watches: set[trio.CancelScope] = set()
        self._changed = trio.Event()
        self._hear_stray: Callable[[int, str], None] = _hear_nothing
        link.watch(pid, self)

    @property
    def guarantee(self) -> Literal["guarded", "contained"]:
        """As it was asked for."""
        return "guarded" if self._cgroup is None else "contained"

    @property
    def lost(self) -> str | None:
        """Why the reaper is lost."""
        return self._lost

    @property
    def status(self) -> int | None:
        """The exit status; None also when the reaper was lost."""
        return self._status if self.ended else None

    @property
    def ended(self) -> bool:
        """Ask the pidfd; once that says so, the reaper has the status or is about to."""
        if not self._ended and self._pidfd >= 0 and is_readable(self._pidfd):
            self._hear_status()
            self._end(None)
        return self._ended

    def _hear_status(self) -> None:
        deadline = time.monotonic() + _STATUS_PATIENCE_S
        self._link.take_in()
        while not self._ended and self._link.usable and time.monotonic() < deadline:
            self._link.take_in(deadline - time.monotonic())
        if not self._ended:
            self._link.slow = True

    def _end(self, status: int | None) -> None:
        if not self._ended:
            self._ended, self._status = True, status

    # --- what the reaper says ---

    def on_ended(self, status: int | None, gone: bool) -> None:
        """Its main process has ended, and perhaps its whole tree."""
        self._end(status)
        self._gone = gone
        self._tell()

    def on_stray(self, pid: int) -> None:
        """Pass on that a process has shown up that may be of its tree."""
        try:
            self._hear_stray(pid, command_line(pid))
        except BaseException:  # noqa: ASYNC103  # an observer that fails must not stop the reaper's word
            _log.exception("a stray of process %d could not be reported", self._pid)

    def on_lost(self, reason: str) -> None:
        """Take over what the reaper did."""
        self._lost = reason
        for watch in self._watches:
            watch.cancel()
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def report_strays(self, hear: Callable[[int, str], None]) -> None:
        """Report processes that may be of this daemon or of another one of this program."""
        self._hear_stray = hear

    # --- the contract ---

    async def wait_over(self) -> None:
        """Wait for the end on the pidfd, until the reaper is lost."""
        with trio.CancelScope() as watch:
            self._watches.add(watch)
            try:
                if self._lost is None:
                    await self.wait()
            finally:
                self._watches.discard(watch)

    @property
    def gone(self) -> bool:
        """Believe the reaper, or else look."""
        if not self._gone and self.ended and not self._link.usable:
            self._gone = not self._rest()
        return self._gone

    async def wait(self) -> int | None:
        """Wait on the pidfd; whose it is, is looked up before."""
        if self._stat is None:
            self._identify()
        return await super().wait()

    def _rest(self) -> list[Stat]:
        """Find what is left of the tree, without the reaper."""
        if self._stat is None:
            self._identify()
        stats = all_stats()
        found = {} if self._stat is None else {s.pid: s for s in tree_of(self._stat, stats)}
        in_group = self._members()
        for stat in stats.values():
            if stat.dead:
                if stat.ppid == os.getpid() and stat.is_led_by(self._pid):
                    # This program is the parent of all orphans: process 1, or a subreaper.
                    with suppress(ChildProcessError):
                        os.waitpid(stat.pid, os.WNOHANG)
            elif stat.pid in in_group or has_variable(
                stat.pid, INSTANCE_VARIABLE, self._instance_id
            ):
                found[stat.pid] = stat
        return list(found.values())

    def _members(self) -> set[int]:
        """List who is in its control group, whatever else he has left behind; nobody without."""
        return set() if self._cgroup is None else set(self._cgroup.pids())

    def _living(self) -> list[Stat]:
        """Find the tree, and who is in its control group."""
        found = {stat.pid: stat for stat in super()._living()}
        members = self._members().difference(found)
        return [*found.values(), *filter(None, map(read_stat, members))]

    async def contains(self, pid: int) -> bool | None:
        """Look at the parents, the session and the group, and in its control group."""
        return await super().contains(pid) or pid in self._members()

    async def wait_gone(self) -> None:
        """Wait for the reaper's word, or else for one process after the other."""
        await self.wait()
        while not self.gone:
            if self._link.usable:
                await self._changed.wait()
            else:
                for stat in self._rest()[:1]:
                    await wait_for(stat)

    async def signal_tree(self, signum: int) -> None:
        """Have the reaper send it to the group, to all descendants, and to those that got away."""
        if self._gone:
            return
        if self._link.usable and await self._link.signal(self._pid, signum):
            return
        if signum != signal.SIGKILL and self._link.lost and self._link.survives:
            # The other half of the reaper climbs the ladder already; many programs take a second
            # SIGTERM for an order to drop all.
            return
        if signum == signal.SIGKILL and self._cgroup is not None:
            self._cgroup.kill()
        for stat in self._rest():
            with suppress(PermissionError):
                signal_process(stat, signum)

    def close(self) -> None:
        """Take in the rest of the output and close; remove the control group."""
        super().close()
        self.report_strays(_hear_nothing)
        if self._cgroup is not None and self._gone:
            self._cgroup.remove()
