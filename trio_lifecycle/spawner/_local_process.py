"""A child of this program, with the process group that it leads."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import trio

from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle._proc import Stat, all_stats, signal_process, tree_of
from trio_lifecycle.spawner._spawned_process import SpawnedProcess, is_readable
from trio_lifecycle.spawner._wait import wait_for

# How long a program that has run out of descriptors gets to close some.
_LOOK_AGAIN_AFTER_S: Final = 1.0


class LocalProcess(SpawnedProcess):
    """A daemon that this program spawned by itself; its tree is the process group that it leads.

    The ended main process is left as a zombie until its group was signalled or seen to be empty:
    that long, its number can't be another's.
    """

    def __init__(
        self,
        pid: int,
        pidfd: int,
        instance_id: str,
        output: FileOutput | PipedOutput,
        guarantee: Literal["scoped", "detached"],
    ) -> None:
        super().__init__(pid, pidfd, instance_id, output)
        self._guarantee: Literal["scoped", "detached"] = guarantee
        self._ended = False
        self._reaped = False
        self._gone = False
        self._status: int | None = None

    @classmethod
    def of_child(
        cls,
        pid: int,
        instance_id: str,
        output: FileOutput | PipedOutput,
        guarantee: Literal["scoped", "detached"],
    ) -> "LocalProcess":
        """Take over a child that was spawned this moment; if that fails, there is no child.

        Raises:
            OSError: There is no descriptor left to watch it through.
        """
        try:
            return cls(pid, os.pidfd_open(pid), instance_id, output, guarantee)
        except ProcessLookupError:
            # It has ended, and SIGCHLD is ignored or a handler of this program reaps every child.
            process = cls(pid, -1, instance_id, output, guarantee)
            process._ended = process._reaped = True
            return process
        except BaseException:
            with suppress(ProcessLookupError, ChildProcessError):
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            raise

    @property
    def guarantee(self) -> Literal["scoped", "detached"]:
        """As it was asked for."""
        return self._guarantee

    @property
    def log_file(self) -> Path | None:
        """The file of a detached daemon."""
        return self._output.path if isinstance(self._output, FileOutput) else None

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
            self._ended = self._reaped = bool(is_readable(self._pidfd))
            return
        if found is not None:
            self._ended = True
            exited = found.si_code == os.CLD_EXITED
            self._status = found.si_status if exited else -found.si_status

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
