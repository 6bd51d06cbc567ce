"""A standard stream of ours, written to without ever waiting for who reads it."""

import fcntl
import os
import select
import stat
from collections.abc import Callable
from typing import Final

import trio

# poll(2) says that a pipe can be written to when it takes PIPE_BUF bytes; more could block.
_CHUNK_BYTES: Final = 4096

# What is kept for a reader that is slow. A daemon that floods a stopped pager must not fill memory.
MOST_HELD_BYTES: Final = 16 * 1024 * 1024


class Outlet:
    """Takes text at once, and writes it when the stream takes it.

    Blocking would make us deaf: a pager that waits would keep SIGTERM from the daemon. Text that is
    too much is lost, and a line says so. A stream that fails for another reason, such as a full
    disk, gets nothing more.

    Args:
        fd: The stream.
        on_broken: Called once when nobody reads it any more.

    Attributes:
        problem: Why it takes nothing any more; None while it does, or when nobody reads it.
    """

    def __init__(self, fd: int, on_broken: Callable[[], object]) -> None:
        self._fd = fd
        self._on_broken = on_broken
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        self._held = bytearray()
        self._lost = 0
        self._stuck = trio.Event()
        self._drained = trio.lowlevel.ParkingLot()
        self._failed = False
        self._cut = False
        self.problem: OSError | None = None

    @property
    def shortfall(self) -> str:
        """Why not all is written that was to be; empty where all is."""
        if self.problem is not None:
            return self.problem.strerror or str(self.problem)
        if self._cut:
            return "nobody reads it any more"
        return "nobody has read it" if self._held else ""

    def write(self, text: str) -> None:
        """Write now what can be written now, and keep the rest in its order."""
        if self._failed:
            self._cut |= bool(text)
            return
        if len(self._held) > MOST_HELD_BYTES:
            self._lost += text.count("\n")
            return
        self._held += self._note_of_loss() + text.encode(errors="backslashreplace")
        self._flush()

    async def pass_on(self, chunk: bytes) -> None:
        """Write bytes as they are, and wait until all is written: nothing of them is ever lost.

        Raises:
            OSError: The stream takes nothing, but not because nobody reads it.
        """
        if not self._failed:
            self._held += chunk
            self._flush()
        await self.drain()
        if self.problem is not None:
            raise self.problem

    async def run(self) -> None:
        """Write the rest whenever the stream takes it."""
        while True:
            await self._stuck.wait()
            while self._held:
                await trio.lowlevel.wait_writable(self._fd)
                self._flush()
            self._stuck = trio.Event()
            self._drained.unpark_all()
            self.write("")

    async def watch(self) -> None:
        """Notice at once that its reader has gone, also while there is nothing to write."""
        flags = fcntl.fcntl(self._fd, fcntl.F_GETFL)
        is_pipe = stat.S_ISFIFO(os.fstat(self._fd).st_mode)
        if is_pipe and flags & os.O_ACCMODE == os.O_WRONLY:
            # Such an end never has anything to read, so only an error wakes us (poll(2), POLLERR).
            await trio.lowlevel.wait_readable(self._fd)
            self._fail(broken=True)

    async def drain(self) -> None:
        """Wait until all is written."""
        await trio.lowlevel.checkpoint()
        while self._held:
            await self._drained.park()

    def _note_of_loss(self) -> bytes:
        lost, self._lost = self._lost, 0
        return f"({lost} lines were lost here: they were not read)\n".encode() if lost else b""

    def _flush(self) -> None:
        while self._held and self._poll.poll(0):
            try:
                written = os.write(self._fd, self._held[:_CHUNK_BYTES])
            except BlockingIOError:
                break
            except BrokenPipeError:
                self._fail(broken=True)
                return
            except OSError as error:
                self.problem = error
                self._fail(broken=False)
                return
            del self._held[:written]
        if self._held:
            self._stuck.set()

    def _fail(self, *, broken: bool) -> None:
        self._failed = True
        self._cut = bool(self._held)
        self._held.clear()
        if broken:
            self._on_broken()
