"""Ready when the daemon says READY=1 by sd_notify(3), as daemons do under systemd."""

import math
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._listen_socket import LONGEST_SOCKET_PATH_BYTES
from trio_lifecycle._paths import absolute
from trio_lifecycle._requests import NOTIFY_VARIABLE, WATCHDOG_VARIABLE
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle._secrets import Secrets
from trio_lifecycle.abc import (
    ArmedReady,
    Datagram,
    Inbox,
    Process,
    Progress,
    ReadyMode,
    Report,
    Start,
)
from trio_lifecycle.ready._conversation import LONGEST_MESSAGE_BYTES, Conversation, Message
from trio_lifecycle.ready._notify_socket import NAME_BYTES, NotifySocket

# At a last look: those who go on sending must not keep us here for ever. As many as that can wait
# in a socket's queue only where net.unix.max_dgram_qlen was raised far above its 10.
_MOST_LOOKED_AT: Final = 512

# How long that look may take. On this machine nothing is waited for.
_LAST_WORDS_LIMIT_S: Final = 1.0


def _watchdog(value: float | None) -> float | None:
    return None if value is None else check_seconds("watchdog", value)


def _directory(value: "str | os.PathLike[str] | None") -> Path | None:
    if value is None:
        return None
    given: object = value
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise ConfigError("path", f"must be the path of a directory, or None, not {value!r}")
    if not os.fspath(given) or "\0" in os.fspath(given):
        raise ConfigError("path", f"{value!r} can't be the path of a directory")
    directory = absolute("path", os.fspath(given))
    spare = LONGEST_SOCKET_PATH_BYTES - NAME_BYTES - 1
    if len(os.fsencode(directory)) > spare:
        problem = f"{directory} is too long for the address of a socket; at most {spare} bytes are"
        raise ConfigError("path", f"{problem} left for it")
    return directory


@frozen(kw_only=True)
class Notify(ReadyMode):
    """Ready when the daemon says ``READY=1`` by the protocol of systemd, sd_notify(3).

    It finds the address of a datagram socket in ``NOTIFY_SOCKET``. Only a process of its tree is
    believed; the kernel says who has sent a message. One that ends at once after it has sent may be
    gone before it was looked at, and is not believed then (``systemd-notify`` waits). The daemon's
    status stands in ``daemon.report["status"]`` as it was when it became ready, and in the message
    of a time-out. What it says while it starts, and while it runs (``STATUS``, ``RELOADING``,
    ``STOPPING`` and others), is told as the event ``Said``. ``EXTEND_TIMEOUT_USEC`` gives it more
    time, up to ``max_ready_timeout``.

    It is heard until it ends, if it has an owner. One that is left running is heard until it is
    ready; later it sends to nobody, which it is told as an error that daemons ignore.

    The socket is made on the machine that the daemon runs on. Only on Linux.

    Attributes:
        watchdog: Seconds within which the daemon is to send ``WATCHDOG=1`` again and again, once it
            is ready; most do it in half of the time. It is told by ``WATCHDOG_USEC``. If it does
            not, or sends ``WATCHDOG=trigger``, the event ``Said`` tells of it, and
            ``daemon.check()`` says ``"unknown"`` until it does again; nothing is killed. Defaults
            to None: it is not asked for. Too short, it cries wolf on a busy machine.
        path: A directory in which the socket is made, with a name of its own. Defaults to None: it
            is in the abstract namespace, which leaves no file behind. Give one for a daemon in a
            container or another network namespace, and share it with that. The directory must be
            there, and open to the daemon's user; the socket is removed in the end, but not after
            SIGKILL of this program. For a daemon on another machine it is a directory there; write
            it in full, since a relative path is taken from where this program stands.
    """

    watchdog: float | None = field(default=None, converter=_watchdog)
    path: Path | None = field(default=None, converter=_directory)

    @property
    def channels(self) -> frozenset[str]:
        """NOTIFY_SOCKET."""
        return frozenset({NOTIFY_VARIABLE})

    async def arm(self, start: Start) -> "ArmedNotify":
        """Make the socket.

        Raises:
            ReadyError: It can't be made.
        """
        try:
            return ArmedNotify(start, await self._open_inbox(start), self.watchdog)
        except OSError as error:
            where = "" if self.path is None else f" in {self.path}"
            problem = f"its notify socket can't be made{where}: {error.strerror or error}"
            raise ReadyError(start.name, problem) from error

    async def _open_inbox(self, start: Start) -> Inbox:
        if not start.prober.is_here:
            return await start.prober.open_inbox(self.path, start.user, LONGEST_MESSAGE_BYTES)
        if sys.platform != "linux":
            raise ReadyError(start.name, "only Linux says who has sent a message by sd_notify")
        return NotifySocket(self.path, start.user)


class ArmedNotify(ArmedReady):
    """What one spawn says."""

    def __init__(self, start: Start, inbox: Inbox, watchdog_s: float | None) -> None:
        self._start = start
        self._inbox = inbox
        self._watchdog_s = watchdog_s
        self._conversation = Conversation(watchdog_s, Secrets(start.secrets))
        self._turn = trio.Lock()
        # Taken from the socket, and not judged yet: who judges may be cancelled.
        self._unheard: Datagram | None = None
        self._report: Report | None = None
        self._refused = 0
        self._last_refusal = ""

    @property
    def env(self) -> Mapping[str, str]:
        """The address, and the limit of the watchdog."""
        env = {NOTIFY_VARIABLE: self._inbox.address}
        if self._watchdog_s is not None:
            env[WATCHDOG_VARIABLE] = str(math.ceil(self._watchdog_s * 1e6))
        return env

    @property
    def awaited(self) -> str:
        """A message."""
        return "its notification"

    @property
    def last_seen(self) -> str:
        """What it said last, and why a message was refused."""
        said = self._conversation.summary
        if not self._refused:
            return said
        refused = f"the last message was refused: {self._last_refusal} ({self._refused} refused)"
        return f"{said}; {refused}"

    @property
    def follows(self) -> bool:
        """It always does."""
        return True

    async def wait(self, process: Process) -> Report:
        """Hear messages until one says that it is ready."""
        while not self._conversation.is_up:
            await self._hear(process)
        return self._remember()

    def _remember(self) -> Report:
        if self._report is None:
            self._report = Report(None, self._start.port, self._conversation.facts)
        return self._report

    async def ask(self, process: Process) -> Report | None:
        """Hear what was sent already."""
        await trio.lowlevel.checkpoint()
        for _ in range(_MOST_LOOKED_AT):
            if not await self._take_one(process):
                break
        self._tell(self._conversation.look(trio.current_time()))
        return self._remember() if self._conversation.is_up else None

    async def follow(self, process: Process) -> None:
        """Hear messages, and mind the watchdog."""
        try:
            with suppress(trio.ClosedResourceError):
                while True:
                    await self._hear(process)
        finally:
            # What it said just before its end. Shielded, because that end has cancelled this;
            # bounded, because who a sender was may have to be asked on another machine.
            with trio.move_on_after(_LAST_WORDS_LIMIT_S, shield=True):
                await self.ask(process)

    async def _hear(self, process: Process) -> None:
        """Hear one message, or wait for one."""
        if await self._take_one(process):
            # Others must have their turn however much is sent; news of readiness is not kept back.
            if self._report is not None or not self._conversation.is_up:
                await trio.lowlevel.checkpoint()
            return
        # Only now: a message that lay here while this program was busy is not late.
        self._tell(self._conversation.look(trio.current_time()))
        with trio.move_on_at(self._conversation.due):
            await self._inbox.wait()

    async def _take_one(self, process: Process) -> bool:
        # Not by "async with", which lets others have a turn first: news would be late by that.
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        try:
            return await self._take_next(process)
        finally:
            self._turn.release()

    async def _take_next(self, process: Process) -> bool:
        datagram = self._unheard = self._unheard or self._inbox.receive()
        if datagram is None:
            return False
        try:
            await self._judge(datagram, process)
        except ValueError as refusal:
            self._refused += 1
            self._last_refusal = str(refusal)
        self._unheard = None
        return True

    async def _judge(self, datagram: Datagram, process: Process) -> None:
        """Take a message.

        Raises:
            ValueError: It is refused; says why.
        """
        if datagram.is_cut:
            raise ValueError(f"it is longer than {LONGEST_MESSAGE_BYTES} bytes")
        message = Message.read(datagram.content)
        await self._check_sender(datagram, process)
        main_pid = message.number("MAINPID")
        is_ours = main_pid is not None and await _is_of(process, main_pid)
        if is_ours:
            self._conversation.main_pid = main_pid
        self._tell(self._conversation.take(message, trio.current_time()))
        if main_pid is not None and not is_ours:
            raise ValueError(f"MAINPID={main_pid} is no process of the daemon")

    async def _check_sender(self, datagram: Datagram, process: Process) -> None:
        pid, uid = datagram.pid, datagram.uid
        if pid == 0:
            raise ValueError("which process has sent it can't be seen from here")
        if process.pid not in datagram.ancestors and not await _is_of(process, pid):
            if not await self._inbox.uids_of(pid):
                raise ValueError(f"process {pid} had ended before it could be looked at")
            raise ValueError(f"process {pid} does not belong to the daemon")
        # Only root can put in another process's number; it may forget the user.
        if uid not in self._inbox.uids and uid not in await self._inbox.uids_of(pid):
            raise ValueError(f"process {pid} does not run as user {uid}, who has sent it")

    def _tell(self, told: list[Progress]) -> None:
        for progress in told:
            self._start.hear(progress)

    async def disarm(self) -> None:
        """Close the socket; the daemon's word stays as it was."""
        self._conversation.mind_no_watchdog()
        await self._inbox.close()


async def _is_of(process: Process, pid: int) -> bool:
    """Say whether a process is known to be of the tree; most often it is the main one."""
    return pid == process.pid or await process.contains(pid) is True
