"""What all processes have in common that this program has had spawned on this machine."""

import os
import select
import signal
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress

import trio

from trio_lifecycle._machine import identity_of
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    is_descendant,
    read_stat,
    tree_of,
    wchan,
)
from trio_lifecycle._records import Identity
from trio_lifecycle.abc import Hearing, Process, Verdict
from trio_lifecycle.spawner._detour import Gate
from trio_lifecycle.spawner._listening import Listening
from trio_lifecycle.spawner._program import runs


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
        self._gate: Gate | None = None
        self._stat: Stat | None = None
        self._identity: Identity | None = None
        self._listening = Listening(self._living, instance_id)

    @property
    def pid(self) -> int:
        """The main process's id."""
        return self._pid

    @property
    def identity(self) -> Identity | None:
        """Read once; None also for one that had ended before anybody asked."""
        if self._identity is None:
            self._identify()
        return self._identity

    def _identify(self) -> None:
        """Look whose the number is."""
        with suppress(OSError):
            stat = read_stat(self._pid)
            # As long as it has not ended the number is not another's.
            if stat is not None and self._pidfd >= 0 and not is_readable(self._pidfd):
                self._stat = stat
                self._identity = identity_of(self._pid, stat.start_time)

    def note_passed(self, descriptors: Iterable[int]) -> None:
        """Note what was passed to it."""
        self._listening.note_passed(descriptors)

    def stand_at(self, gate: Gate) -> None:
        """Take over the gate at which it was spawned."""
        self._gate = gate
        self._identify()

    async def open_gate(self) -> None:
        """Tell whoever stands in its place to become the program."""
        if self._gate is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._gate.open(self, self._output)

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

    def _living(self) -> list[Stat]:
        """Find the processes that can be seen to be of its tree, while its main process lives."""
        return tree_of(self._pid, all_stats())

    async def contains(self, pid: int) -> bool | None:
        """Look at the parents, the session and the group."""
        return not self.gone and is_descendant(pid, self._pid)

    async def listener_at(self, host: str, port: int) -> Verdict:
        """Look who holds the listening socket: one of the tree, or one that bears its id."""
        return self._listening.verdict_at(host, port, self._pid)

    def runs(self, program: str) -> bool | None:
        """Look at its executable and its arguments."""
        found = runs(self._pid, program)
        # As long as it has not ended the number is not another's.
        return None if self.ended else found

    @property
    def heard_at(self) -> float | None:
        """When its output was last taken in."""
        return self._output.heard_at

    def output_tail(self) -> bytes:
        """Give the end of the output, complete once the child has ended."""
        if self.ended:
            self._output.take_rest()
        return self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Give lines from now on."""
        return self._output.lines(self)

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard from now on."""
        return self._output.hear_lines(self, hear)

    def close(self) -> None:
        """Take in the rest of the output and close; one that still stands at its gate ends."""
        self._output.take_rest()
        self._output.close()
        if self._gate is not None:
            self._gate.close()
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
