"""What all processes have in common that this program has had spawned on this machine."""

import os
import select
import signal
import time
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    has_variable,
    holder_of,
    holds_socket,
    is_descendant,
    listeners_at,
    tree_of,
    wchan,
)
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.abc import Process, Verdict


class SpawnedProcess(Process):
    """A daemon whose output we have, and whose end a pidfd tells."""

    def __init__(
        self, pid: int, pidfd: int, instance_id: str, output: FileOutput | PipedOutput
    ) -> None:
        self._pid = pid
        self._pidfd = pidfd
        self._instance_id = instance_id
        self._output = output
        self._turn = trio.Lock()
        # Listening sockets that were seen to be the daemon's. The kernel gives their numbers anew
        # only after thousands of millions of others.
        self._own_sockets: set[int] = set()

    @property
    def pid(self) -> int:
        """The main process's id."""
        return self._pid

    async def wait(self) -> int | None:
        """Wait on the pidfd.

        One task does it for all, and another goes on when that one is cancelled.
        """
        if not self.ended:
            async with self._turn:
                while not self.ended:
                    # Closed by a task that has seen the end before Trio told this one.
                    with suppress(trio.ClosedResourceError):
                        await trio.lowlevel.wait_readable(self._pidfd)
        return self.status

    async def send_signal(self, signum: int) -> None:
        """Send through the pidfd."""
        if not self.ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Look at the main process first, then at the rest."""
        if not self.ended:
            return self._pid, wchan(self._pid)
        rest = [] if self.gone else self._rest()
        return next(((stat.pid, wchan(stat.pid)) for stat in rest), None)

    @abstractmethod
    def _rest(self) -> list[Stat]:
        """Find what is left of the tree, as this program sees it by itself."""

    async def contains(self, pid: int) -> bool | None:
        """Look at the parents, the session and the group."""
        return not self.gone and is_descendant(pid, self._pid)

    async def listener_at(self, host: str, port: int) -> Verdict:
        """Look who holds the listening socket: one of the tree, or one that bears its id."""
        found = listeners_at(host, port)
        if not found:
            return Verdict.UNKNOWN
        verdicts = {self._verdict_on(listener.inode) for listener in found}
        return verdicts.pop() if len(verdicts) == 1 else Verdict.FOREIGN

    def _verdict_on(self, inode: int) -> Verdict:
        if inode in self._own_sockets:
            return Verdict.OURS
        verdict = self._look_who_holds(inode)
        if verdict is Verdict.OURS:
            self._own_sockets.add(inode)
        return verdict

    def _look_who_holds(self, inode: int) -> Verdict:
        if holds_socket(self._pid, inode):
            return Verdict.OURS
        held = [holds_socket(stat.pid, inode) for stat in tree_of(self._pid, all_stats())]
        if True in held or self._is_by_a_stray(inode):
            return Verdict.OURS
        return Verdict.UNKNOWN if None in held else Verdict.FOREIGN

    def _is_by_a_stray(self, inode: int) -> bool:
        # A child that forked twice belongs to nobody any more, but has its environment from us.
        holder = holder_of(inode)
        return holder is not None and has_variable(holder, INSTANCE_VARIABLE, self._instance_id)

    def output_tail(self) -> bytes:
        """Give the end of the output, complete once the child has ended."""
        if self.ended:
            self._output.take_rest()
        return self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Give lines from now on."""
        return self._output.lines(self)

    def close(self) -> None:
        """Take in the rest of the output and close."""
        self._output.take_rest()
        self._output.close()
        # One that outlived SIGKILL is watched on.
        if self._pidfd >= 0 and self.ended:
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def is_readable(fd: int, wait_s: float = 0.0) -> bool:
    """Say whether a descriptor is readable, or becomes so within some seconds."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(wait_s * 1000))


def is_readable_soon(fd: int, wait_s: float) -> bool:
    """Do the same without going to sleep: to be woken would take a third of half a millisecond."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    deadline = time.perf_counter() + wait_s
    while not (found := poll.poll(0)) and time.perf_counter() < deadline:
        # For who is to make it readable, if there is one processor only.
        os.sched_yield()
    return bool(found)
