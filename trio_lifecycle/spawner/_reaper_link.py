"""The application's end of a reaper: what it is asked, and what it says."""

import array
import errno
import logging
import marshal
import os
import socket
import weakref
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Final

import trio

from trio_lifecycle.spawner._reaper_program import ReaperStartError, start_program
from trio_lifecycle.spawner._spawned_process import is_readable, is_readable_soon
from trio_lifecycle.spawner._ward import ReaperGoneError, SpawnRefusedError, Ward

_log: Final = logging.getLogger("trio_lifecycle")

# See _reaper.py.
_BY_MEMFD: Final = 60_000
_ROOM: Final = 65_536
_MOST_DESCRIPTORS: Final = 4

# A reaper answers in a millisecond. One that takes longer than this is stopped, or waits for a dead
# disk in the place of a program that it was to start: it is not relied on until it answers again.
PATIENCE_S: Final = 1.0

# How long an answer is waited for in place. It takes half of that, which is what posix_spawn(3) in
# this program would take, too; going round Trio's loop for it would take as much again.
_IN_PLACE_S: Final = 0.0005

# How long its start may take on a machine that is very busy; 15 ms are usual.
_START_PATIENCE_S: Final = 10.0


_links: Final[weakref.WeakSet["ReaperLink"]] = weakref.WeakSet()


class _Answer:
    """What one question waits for."""

    def __init__(self) -> None:
        self.come = trio.Event()
        self.abandoned = False
        self.message: tuple[Any, ...] = ()
        self.pidfd = -1


class ReaperLink:
    """A connection to a reaper that this program has started.

    Attributes:
        wards: The processes that it watches, by pid.
        outer: The pid of its outer process, a child of this program.
        lost: Why it can't be used any more; None while it can.
        slow: True from when it has not answered in time until it answers again.
        retired: True when it is to be used for nothing new.
    """

    def __init__(self, connection: socket.socket, outer: int, tracebacks: int) -> None:
        self.wards: dict[int, Ward] = {}
        self.outer = outer
        self.inner = 0
        self.lost: str | None = None
        self.slow = False
        self.retired = False
        self._socket = connection
        self._outer_pidfd = os.pidfd_open(outer)
        self._inner_pidfd = -1
        self._tracebacks = tracebacks
        self._answers: dict[int, _Answer] = {}
        self._numbers = count(1)
        # Spawned a moment ago, and perhaps at its end already: nobody has asked to hear of it yet.
        self._unclaimed: dict[int, tuple[int | None, bool] | None] = {}
        self._discarded: list[int] = []
        self._greeted = trio.Event()
        self._writing = trio.Lock()
        _links.add(self)

    # --- its beginning and end ---

    @classmethod
    def start(cls) -> "ReaperLink":
        """Start the two processes; ``run`` has to be started next.

        Raises:
            ReaperStartError: There can be no reaper here.
            OSError: The system would not start it.
        """
        connection, outer, tracebacks = start_program()
        try:
            return cls(connection, outer, tracebacks)
        except BaseException:
            connection.close()
            os.close(tracebacks)
            raise

    async def greeted(self) -> None:
        """Wait until it is at work, or lost.

        Raises:
            ReaperStartError: It is neither.
        """
        with trio.move_on_after(_START_PATIENCE_S):
            await self._greeted.wait()
        if not self._greeted.is_set():
            self.retire()
            raise ReaperStartError(f"it said nothing for {_START_PATIENCE_S:.0f} s")

    async def run(self) -> None:
        """Hear what it says, until it is lost or this is cancelled."""
        while self.lost is None:
            with suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._socket)
            self.take_in()

    async def see_off(self) -> None:
        """Wait for the end of both processes of one that is lost, and leave no zombie."""
        for pidfd in (self._inner_pidfd, self._outer_pidfd):
            if pidfd >= 0:
                await trio.lowlevel.wait_readable(pidfd)
        for pid in (self.outer, self.inner):
            # The inner one, too, if this program is the parent of all orphans.
            _reap(pid)
        self.close()

    @classmethod
    def all(cls) -> "list[ReaperLink]":
        """Give those that this program holds."""
        return list(_links)

    def give_up(self) -> None:
        """Rely on it no more."""
        self._lose("this program has failed to hear it")
        self.close()

    def retire(self) -> None:
        """Use it for nothing new; it is let go when its last daemon is gone."""
        self.retired = True
        if not self.wards and not self._answers and not self._unclaimed:
            with suppress(OSError):
                # Both sides hear of it, and each does what it does when the other is gone.
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of everything; its daemons, if it has any, end by that."""
        self.lost = self.lost or "it was let go"
        self._socket.close()
        for name in ("_outer_pidfd", "_inner_pidfd", "_tracebacks"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    @property
    def survives(self) -> bool:
        """True while one of its processes is there to end the daemons."""
        pidfds = [fd for fd in (self._inner_pidfd, self._outer_pidfd) if fd >= 0]
        return any(not is_readable(pidfd) for pidfd in pidfds)

    @property
    def usable(self) -> bool:
        """True when it can be relied on."""
        return self.lost is None and not self.slow

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that it holds."""
        held = (self._socket.fileno(), self._outer_pidfd, self._inner_pidfd, self._tracebacks)
        return [fd for fd in held if fd >= 0]

    # --- asking ---

    async def spawn(self, order: tuple[Any, ...], descriptors: Sequence[int]) -> tuple[int, int]:
        """Have a daemon spawned, and give its pid and pidfd.

        Whatever is raised: no process is left, or is about to be killed.

        Raises:
            SpawnRefusedError: The system refused.
            ReaperGoneError: The reaper was lost.
        """
        number, answer = self._expect()
        try:
            await self._send(("spawn", number, *order), descriptors)
            if is_readable_soon(self._socket.fileno(), _IN_PLACE_S):
                self.take_in()
            if not answer.come.is_set():
                await self._await(answer)
        except BaseException:
            self._give_up(number, answer)
            raise
        match answer.message:
            case ("spawned", pid) if answer.pidfd >= 0:
                return pid, answer.pidfd
            case ("spawned", pid):
                # It could not be received: this program has no descriptor left.
                self.discard(pid)
                raise SpawnRefusedError("watch", _EMFILE)
            case ("failed", stage, errno):
                raise SpawnRefusedError(stage, errno)
        raise ReaperGoneError(self.lost)

    async def signal(self, pid: int, signum: int) -> bool:
        """Send a signal to the tree of a daemon; False when nobody has confirmed that."""
        number, answer = self._expect()
        try:
            with trio.move_on_after(PATIENCE_S):
                await self._send(("signal", number, pid, int(signum)))
                await answer.come.wait()
                return answer.message != ()
        except ReaperGoneError:
            return False
        finally:
            self._answers.pop(number, None)
        self.slow = True
        return False

    def watch(self, pid: int, ward: Ward) -> None:
        """Pass on what is said of a daemon that was spawned, also what was said meanwhile."""
        end = self._unclaimed.pop(pid, None)
        if end is not None:
            ward.on_ended(*end)
        if self.lost is not None:
            ward.on_lost(self.lost)
        elif end is None or not end[1]:
            self.wards[pid] = ward

    def discard(self, pid: int) -> None:
        """Have a daemon killed that nobody wants any more."""
        self._unclaimed.pop(pid, None)
        self._discarded.append(pid)
        self._discard()

    def _discard(self) -> None:
        while self._discarded:
            try:
                self._socket.send(marshal.dumps(("discard", self._discarded[0])))
            except BlockingIOError:  # it is stopped; tried again when it says something
                return
            except OSError:  # it is gone, and so is the daemon
                pass
            del self._discarded[0]

    def _expect(self) -> tuple[int, _Answer]:
        if self.lost is not None:
            raise ReaperGoneError(self.lost)
        number = next(self._numbers)
        self._answers[number] = answer = _Answer()
        return number, answer

    async def _await(self, answer: _Answer) -> None:
        # Shielded as long as it usually takes, so that a cancelled caller can say what became of
        # it; then not, for a program on a dead disk may take for ever to start.
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE_S):
            await answer.come.wait()
        if not answer.come.is_set():
            self.slow = True
            await answer.come.wait()

    def _give_up(self, number: int, answer: _Answer) -> None:
        answer.abandoned = True
        if answer.come.is_set():
            self._answers.pop(number, None)
            if answer.message[:1] == ("spawned",):
                self.discard(answer.message[1])
                if answer.pidfd >= 0:
                    os.close(answer.pidfd)

    async def _send(self, message: tuple[Any, ...], descriptors: Sequence[int] = ()) -> None:
        packet = marshal.dumps(message)
        if len(packet) <= _BY_MEMFD:
            await self._send_packet(packet, descriptors)
            return
        memfd = _in_memfd(packet)
        try:
            head = marshal.dumps(("memfd", message[1], len(packet)))
            await self._send_packet(head, [*descriptors, memfd])
        finally:
            os.close(memfd)

    async def _send_packet(self, packet: bytes, descriptors: Sequence[int]) -> None:
        rights = array.array("i", descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        while True:
            try:
                self._socket.sendmsg([packet], ancillary)
            except BlockingIOError:
                async with self._writing:
                    await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                self._lose(f"it takes no requests ({error.strerror})")
                raise ReaperGoneError(self.lost) from error
            else:
                return

    # --- hearing ---

    # Ctrl-C between a message and what it is about would lose it; any task may come by here.
    @trio.lowlevel.enable_ki_protection
    def take_in(self, wait_s: float = 0.0) -> None:
        """Take in all that it has said, or else what it says within some seconds."""
        if self.lost is not None or (wait_s and not is_readable(self._socket.fileno(), wait_s)):
            return
        room = socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS)
        while True:
            try:
                packet, ancillary, _, _ = self._socket.recvmsg(_ROOM, room, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:  # it has ended without having read what we said
                packet, ancillary = b"", []
            if not packet:
                self._lose("a process of the reaper was killed, or has crashed")
                return
            descriptors = array.array("i")
            for _, _, rights in ancillary:
                descriptors.frombytes(rights[: len(rights) - len(rights) % 4])
            self.slow = False
            self._discard()
            self._hear(marshal.loads(packet), descriptors[0] if descriptors else -1)

    def _hear(self, message: tuple[Any, ...], pidfd: int) -> None:
        match message:
            case ("spawned" | "failed" | "signalled" as kind, number, *facts):
                self._take_answer(number, (kind, *facts), pidfd)
            case ("ended", pid, status, gone):
                if pid in self._unclaimed:
                    self._unclaimed[pid] = status, gone
                    return
                ward = self.wards.pop(pid, None) if gone else self.wards.get(pid)
                if ward is not None:
                    ward.on_ended(status, gone)
                if self.retired:
                    self.retire()
            case ("stray", pid, daemons):
                for ward in filter(None, map(self.wards.get, daemons)):
                    ward.on_stray(pid)
            case ("hello", pid):
                self.inner, self._inner_pidfd = pid, pidfd
                self._greeted.set()

    def _take_answer(self, number: int, message: tuple[Any, ...], pidfd: int) -> None:
        answer = self._answers.pop(number, None)
        if answer is not None and not answer.abandoned:
            answer.message, answer.pidfd = message, pidfd
            if message[0] == "spawned":
                self._unclaimed[message[1]] = None
            answer.come.set()
        else:
            if pidfd >= 0:
                os.close(pidfd)
            if message[0] == "spawned":
                self.discard(message[1])
        if self.retired:
            self.retire()

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        text = os.pread(self._tracebacks, _ROOM, 0).decode(errors="replace").strip()
        if text:
            _log.error("a reaper (process %d) failed:\n%s", self.outer, text)
        for answer in self._answers.values():
            answer.come.set()
        self._answers.clear()
        self._greeted.set()
        wards, self.wards = self.wards, {}
        for ward in wards.values():
            ward.on_lost(reason)


_EMFILE: Final = errno.EMFILE


def _in_memfd(packet: bytes) -> int:
    memfd = os.memfd_create("request", os.MFD_CLOEXEC)
    try:
        with open(memfd, "wb", closefd=False) as file:
            file.write(packet)
    except BaseException:
        os.close(memfd)
        raise
    return memfd


def _reap(pid: int) -> None:
    with suppress(OSError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
