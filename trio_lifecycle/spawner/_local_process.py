"""A child of this program, with the process group that it leads."""

import os
import select
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

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
    signal_process,
    tree_of,
    wchan,
)
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.abc import Process, Verdict
from trio_lifecycle.spawner._wait import wait_for

# How long a program that has run out of descriptors gets to close some.
_LOOK_AGAIN_AFTER_S: Final = 1.0


class LocalProcess(Process):
    """A daemon that this program spawned.

    The ended main process is left as a zombie until its group was signalled or seen to be empty:
    that long, its number can't be another's.
    """

    def __init__(
        self, pid: int, pidfd: int, instance_id: str, output: FileOutput | PipedOutput
    ) -> None:
        self._pid = pid
        self._instance_id = instance_id
        self._pidfd = pidfd
        self._output = output
        self._turn = trio.Lock()
        self._ended = False
        self._reaped = False
        self._gone = False
        self._status: int | None = None
        # Listening sockets that were seen to be the daemon's. The kernel gives their numbers anew
        # only after thousands of millions of others.
        self._own_sockets: set[int] = set()

    @classmethod
    def of_child(
        cls, pid: int, instance_id: str, output: FileOutput | PipedOutput
    ) -> "LocalProcess":
        """Take over a child that was spawned this moment; if that fails, there is no child.

        Raises:
            OSError: There is no descriptor left to watch it through.
        """
        try:
            return cls(pid, os.pidfd_open(pid), instance_id, output)
        except ProcessLookupError:
            # It has ended, and SIGCHLD is ignored or a handler of this program reaps every child.
            process = cls(pid, -1, instance_id, output)
            process._ended = process._reaped = True
            return process
        except BaseException:
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise

    @property
    def pid(self) -> int:
        """The child's id."""
        return self._pid

    @property
    def status(self) -> int | None:
        """The exit status; None also when SIGCHLD is ignored, for then the kernel forgets it."""
        return self._status if self.ended else None

    @property
    def ended(self) -> bool:
        """Look without reaping."""
        if not self._ended:
            self._look()
        return self._ended

    def _look(self) -> None:
        try:
            found = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            # Somebody else reaped it, or SIGCHLD is ignored: only the pidfd still knows.
            self._ended = self._reaped = bool(_is_readable(self._pidfd))
            return
        if found is not None:
            self._ended = True
            exited = found.si_code == os.CLD_EXITED
            self._status = found.si_status if exited else -found.si_status

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
        return self._status

    @property
    def gone(self) -> bool:
        """Reap the ended child once its group is known to be empty."""
        if not self._gone and self.ended:
            self._reap()
            self._gone = not self._group_exists() or not self._rest()
        return self._gone

    def _reap(self) -> None:
        if not self._reaped:
            self._reaped = True
            with suppress(ChildProcessError):
                os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG)

    def _group_exists(self) -> bool:
        try:
            os.killpg(self._pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True

    def _rest(self) -> list[Stat]:
        """Find what is left of the group once the leader is reaped.

        Its number stands for the group while it has members.
        """
        stats = all_stats()
        return [] if self._pid in stats else tree_of(self._pid, stats)

    async def wait_gone(self) -> None:
        """Wait for the child, then for one after the other of those that are left."""
        await self.wait()
        while not self.gone:
            for stat in self._rest()[:1]:
                await wait_for(stat)

    async def send_signal(self, signum: int) -> None:
        """Send through the pidfd."""
        if not self.ended:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signum)

    async def signal_tree(self, signum: int) -> None:
        """Send to the group while the leader is unreaped, else to each of the rest by identity."""
        self.ended  # noqa: B018  # notices a child that somebody else reaped
        if not self._reaped:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, signum)
        elif not self._gone:
            for stat in self._rest():
                with suppress(PermissionError):
                    signal_process(stat, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Look at the child first, then at the rest."""
        if not self.ended:
            return self._pid, wchan(self._pid)
        rest = [] if self.gone else self._rest()
        return next(((stat.pid, wchan(stat.pid)) for stat in rest), None)

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

    async def reap_at_end(self) -> None:
        """Leave no zombie and no descriptor when nobody asks after the child any more.

        Waits for its group, too: once that is empty its number may be another's, and a stop that is
        asked for later must know.
        """
        await self.wait()
        self._reap()
        while not self._gone:
            try:
                await self.wait_gone()
            except OSError:
                # No descriptor left to look at its group; raised here it would end the program.
                await trio.sleep(_LOOK_AGAIN_AFTER_S)
        self.close()

    def close(self) -> None:
        """Take in the rest of the output and close."""
        self._output.take_rest()
        self._output.close()
        # One that outlived SIGKILL is watched on.
        if self._pidfd >= 0 and self.ended:
            trio.lowlevel.notify_closing(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1


def _is_readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))
