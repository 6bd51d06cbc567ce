"""The contract of a process: one incarnation of a daemon, as its owner can treat it."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path

import trio

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._records import Identity
from trio_lifecycle._reports import Verdict


class Process(ABC):
    """One incarnation of a daemon: the main process, and the tree of those that it started.

    How far the tree reaches is a matter of the ``guarantee``: all that the daemon has started,
    however it has forked away, or the process group of the main process ("scoped", "detached").
    Without one it is what the spawner can see.
    """

    @property
    def guarantee(self) -> Guarantee | None:
        """What is promised for its end; None where this program promises nothing."""
        return None

    @property
    def lost(self) -> str | None:
        """Why its guarantee holds no more, as a sentence; None while all is well."""
        return None

    @property
    def unseen(self) -> str | None:
        """Why its state can't be told any more, as part of a sentence; None while it can.

        Such as a connection to its machine that was lost. It is no end: ``ended`` and ``gone`` stay
        what they were seen to be. It is None once all is ``gone``, and again when ``look`` has seen
        the process again.
        """
        return None

    @property
    def seen_alive(self) -> int | None:
        """When it was last known to live, in ticks since the boot of its machine.

        For a record of it. None where that machine is this one: then this one's ticks count.
        """
        return None

    async def look(self) -> None:
        """Bring ``ended`` and ``gone`` up to date, where that takes a question to its machine.

        Where it was ``unseen``, and can be seen again, it is so no more. Bounded by itself, as by
        the time limit of a connection.

        Raises:
            DaemonStateUnknownError: Its state can't be told from here, at this moment.
        """
        await trio.lowlevel.checkpoint()

    @property
    def identity(self) -> Identity | None:
        """What tells the main process from all others, for a record of it; None if that is unknown.

        The same for as long as the object lives, also when the process has ended.
        """
        return None

    @property
    def log_file(self) -> Path | None:
        """The file that its output goes straight into; None if it goes elsewhere."""
        return None

    async def open_gate(self) -> None:
        """Let a process that was spawned with ``gated`` go on to its program.

        Returns once the program was executed; nothing happens for a process without a gate. When it
        raises, the caller still has to end the process.

        Raises:
            SpawnError: The program can't be executed, or the process ended at its gate.
            DaemonStateUnknownError: It is ``unseen``, or becomes so.
        """
        await trio.lowlevel.checkpoint()

    @property
    @abstractmethod
    def pid(self) -> int | None:
        """The main process's id; None where it can't be known."""

    @property
    @abstractmethod
    def status(self) -> int | None:
        """The exit status as ``subprocess`` counts.

        None while it runs, or where only its parent could know.
        """

    @property
    @abstractmethod
    def ended(self) -> bool:
        """True as soon as the main process has ended, asked without waiting."""

    @property
    @abstractmethod
    def gone(self) -> bool:
        """True when no process of its tree is left, itself included; asked without waiting.

        That is the tree which ``signal_tree`` reaches.
        """

    @abstractmethod
    async def wait(self) -> int | None:
        """Wait until the main process has ended, and give its ``status``.

        Any number of tasks may wait.

        It never waits for pipes that other processes of the tree may hold, and never gives a status
        that nobody has seen.

        Raises:
            DaemonStateUnknownError: It is ``unseen``, or becomes so; who waits on looks again.
        """

    async def wait_over(self) -> None:
        """Wait until the main process has ended, its guarantee is ``lost``, or it is ``unseen``."""
        with suppress(DaemonStateUnknownError):
            await self.wait()

    @abstractmethod
    async def wait_gone(self) -> None:
        """Wait until the main process has ended and no process of its tree is left.

        Raises:
            DaemonStateUnknownError: It is ``unseen``, or becomes so; who waits on looks again.
        """

    @abstractmethod
    async def send_signal(self, signum: int) -> None:
        """Send a signal to the main process; nothing happens when it has ended.

        Never reaches a reused pid.

        Raises:
            DaemonStateUnknownError: It can't be sent, or whether it was can't be told.
        """

    @abstractmethod
    async def signal_tree(self, signum: int) -> None:
        """Send a signal to the whole tree; nothing happens when none is left.

        Never reaches a reused pid.

        Raises:
            DaemonStateUnknownError: It can't be sent, or whether it was can't be told.
        """

    @abstractmethod
    def find_stuck(self) -> tuple[int, str] | None:
        """Name a process of the tree that is left, and where in the kernel it waits.

        None when all are gone.
        """

    @abstractmethod
    async def contains(self, pid: int) -> bool | None:
        """Say whether a process belongs to the tree; None where that can't be told."""

    @abstractmethod
    async def listener_at(self, host: str, port: int) -> Verdict:
        """Say whether who listens at an address of its machine belongs to the tree.

        Args:
            host: In digits; or the path of a UNIX socket.
            port: The port; 0 for a UNIX socket.
        """

    def runs(self, program: str) -> bool | None:
        """Say whether the main process runs this program's file; None where that can't be told.

        It does if its executable is that file, links resolved, or if it is a script, then the first
        or second of its arguments.
        """
        return None

    def report_strays(self, hear: Callable[[int, str], None]) -> None:  # noqa: B027  # few can tell
        """Have processes reported that may be of the tree, but can't be told to be.

        Args:
            hear: It is called with the pid and the command of each.
        """

    @abstractmethod
    def output_tail(self) -> bytes:
        """Give the end of what the tree wrote so far, as much as was asked to be kept.

        Once the main process has ended, everything that it wrote is in it.
        """

    @property
    def heard_at(self) -> float | None:
        """When the tree last wrote something, on Trio's clock.

        None when it never did, or where that can't be told. Where the output is a file that it
        writes itself, this is when it was first seen to have grown.
        """
        return None

    @abstractmethod
    def lines(self) -> AsyncIterator[str]:
        """Give what the tree writes from now on, line by line, until its end.

        Any number of tasks may read.

        A reader that is slower than the daemon loses lines, never the daemon's time.
        """

    def hear_lines(self, hear: Callable[[list[str]], None]) -> "Hearing":
        """Have every line that the tree writes from now on heard, in order, however many there are.

        Who asks at the moment of the spawn misses none. Unlike a reader of ``lines``, who hears
        loses none: nothing more of the output is taken in meanwhile. So it must be quick.

        Args:
            hear: It is called with lines, and must not raise.
        """
        return _ReadAloud(self.lines(), hear)

    @abstractmethod
    def close(self) -> None:
        """Take in what the process wrote, and let go of descriptors. The tree is not touched.

        Again is fine.
        """


class Hearing(ABC):
    """The lines of a process on their way to one who hears every one of them."""

    @abstractmethod
    async def run(self) -> None:
        """Hear until nothing of the tree can write any more, or until it is closed.

        Again is fine when it was cancelled.

        Where the output comes to this program anyway, it is heard without this, too.
        """

    @abstractmethod
    def look(self) -> None:
        """Hear what is written already, without waiting for more."""

    @abstractmethod
    def close(self) -> None:
        """Hear no more. Again is fine."""


class _ReadAloud(Hearing):
    """Lines of a process that gives them to readers only."""

    def __init__(self, lines: AsyncIterator[str], hear: Callable[[list[str]], None]) -> None:
        self._lines = lines
        self._hear = hear
        self._scope = trio.CancelScope()
        self._is_closed = False

    async def run(self) -> None:
        """Read."""
        # Who was cancelled may run it again, and a scope is good for once only.
        if not self._is_closed:
            with trio.CancelScope() as self._scope:
                async for line in self._lines:
                    self._hear([line])

    def look(self) -> None:
        """Who reads has to wait for each line."""

    def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        self._scope.cancel()
