"""One connection to another machine, and what can be opened over it."""

import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

import trio
from trio.abc import HalfCloseableStream

from trio_lifecycle._ssh._bridge import Bridge
from trio_lifecycle._ssh._failures import explain_refusal
from trio_lifecycle._ssh._flow import Flow
from trio_lifecycle._ssh._login import Login
from trio_lifecycle._ssh._session import LostError, Session
from trio_lifecycle._ssh._streams import ChannelSession, ChannelStream
from trio_lifecycle._ssh._upload import Upload
from trio_lifecycle._ssh_errors import SSHConnectError

# OpenSSH allows 10 (MaxSessions); two are left to others on the same connection's way.
MOST_SESSIONS: Final = 8

# How long a server is given to open one more where it has fewer than that.
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 0.5

_CONNECT_FAILED: Final = 2
_SHORTAGE: Final = 4

# What a server may have on its way for one session, before an end is told: 0.5 s at 2 Mbit/s.
_SESSION_WINDOW_BYTES: Final = 128 * 1024

_GOODBYE_S: Final = 1.0
_OPENING: Final = "opening a session"

# Connections that nobody has accepted yet; more are refused.
_BACKLOG: Final = 128


class Transport:
    """One connection to another machine.

    Attributes:
        target: The machine.
        silence_limit_s: How long it may be silent, or this program, until the other gives it up.
        channels_opened: How many were opened over it, which is how often it was asked something.
        lost: Why the connection is gone, as a part of a sentence; None while it stands.
    """

    def __init__(self, bridge: Bridge, login: Login) -> None:
        self.target = login.target
        self.silence_limit_s = login.silence_limit_s
        self.channels_opened = 0
        self.lost: str | None = None
        self.connection: Any = None
        self._bridge = bridge
        self._progress = login.progress
        self._gone = trio.Event()
        self._slots = trio.CapacityLimiter(MOST_SESSIONS)
        self._slot_freed = trio.lowlevel.ParkingLot()
        self._listeners: WeakSet[RemoteListener] = WeakSet()

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits for one of its sessions to end."""
        return bool(self._slots.statistics().tasks_waiting)

    @property
    def free_sessions(self) -> int:
        """How many can be opened at once, before one has to wait for another's end."""
        return int(self._slots.available_tokens)

    def hear_end(self, error: Exception | None) -> None:
        """Take note that the connection is gone."""
        if self.lost is None:
            self.lost = _why(self._progress.host, error)
        self._gone.set()
        for listener in self._listeners:
            listener.hear_end()

    async def wait_lost(self) -> None:
        """Wait until the connection is gone."""
        await self._gone.wait()

    async def open_session(self, command: str, patience_s: float | None = None) -> Session:
        """Run a command there; waits while eight are open.

        Args:
            command: What is run, by the login shell.
            patience_s: How long to wait for one of the eight, in seconds. Defaults to None: as long
                as for a connection.

        Raises:
            SSHConnectError: The machine would not run one more, or eight stayed open.
            LostError: The connection is gone.
        """
        start = partial(
            self._conn("create_session"),
            command=command,
            encoding=None,
            request_pty=False,
            window=_SESSION_WINDOW_BYTES,
        )
        patience_s = self.target.connect_timeout if patience_s is None else patience_s
        flow = await self._in_a_slot(lambda flow: partial(start, lambda: flow), patience_s)
        return ChannelSession(flow)

    async def open_tcp(self, host: str, port: int) -> HalfCloseableStream:
        """Connect to a TCP port, from there.

        Raises:
            OSError: That machine could not connect; as a connect from here would raise it.
            SSHConnectError: Its server forbids this.
            LostError: The connection is gone.
        """
        return await self._connect("create_connection", f"{host}:{port}", host, port)

    async def open_unix(self, path: str) -> HalfCloseableStream:
        """Connect to a UNIX socket there.

        Raises:
            OSError: That machine could not connect; its server does not tell why. OpenSSH says no
                more where it forbids this.
            SSHConnectError: Its server says that it forbids this.
            LostError: The connection is gone.
        """
        return await self._connect("create_unix_connection", path, path)

    async def listen(self, host: str = "127.0.0.1", port: int = 0) -> "RemoteListener":
        """Listen there; 0 is a port that the machine chooses.

        Raises:
            SSHConnectError: Its server would not.
            LostError: The connection is gone.
        """
        listener = RemoteListener(self._bridge, lambda: self.lost)
        phase = f"listening on {host}:{port} there"
        with self._patiently(phase):
            try:
                found = await self._bridge.see_through(
                    self._conn("create_server"),
                    *(listener.welcome, host, port),
                    late=listener.opened_late,
                    encoding=None,
                )
            except Exception as error:
                self._check(error)
                problem = f"the server has refused ({error})"
                cure = (
                    "Allow it by AllowTcpForwarding in its sshd_config (and PermitListen), "
                    "without DisableForwarding. Else the port may be taken."
                )
                raise self._progress.fail(SSHConnectError, problem, cure, phase) from error
        listener.opened(found)
        self._listeners.add(listener)
        return listener

    async def put(
        self,
        local: Path,
        remote: str,
        beside: str,
        hear: Callable[[int, int], None] | None = None,
        check: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        """Copy a file there, under its name only when it is complete.

        Args:
            local: A regular file.
            remote: Its path there.
            beside: The path there that it has until then, on the same file system.
            hear: Told the bytes that were copied and those in all.
            check: Looks at the complete copy beside; when this raises, the copy is removed.

        Raises:
            OSError: The file here can't be read.
            SSHConnectError: The machine would not take it.
            LostError: The connection is gone.
        """
        upload = Upload(self._bridge, self._progress, local, remote, beside, check)
        flow = Flow(self._bridge, lambda: self.lost)
        await self._take_slot(flow)
        try:
            await upload.run(self._conn("start_sftp_client"), hear)
            self.channels_opened += 1
        except LostError:
            raise
        except Exception as error:
            self._check(error)
            raise
        finally:
            self._free_slot(flow)

    async def close(self) -> None:
        """Close the connection and all that was opened over it; bounded, and never raises."""
        if self.lost is None:
            self.lost = "it was closed"
        # Who closes may be cancelled, and a second is all that is spent on a silent machine.
        with trio.move_on_after(_GOODBYE_S, shield=True):
            with self._bridge.entered():
                self.connection.close()
            try:
                await self._bridge.call(self.connection.wait_closed)
            except LostError:
                pass
        self.abort()

    def abort(self) -> None:
        """Close the connection without a word."""
        with self._bridge.entered():
            self.connection.abort()

    async def _connect(self, method: str, where: str, *address: object) -> HalfCloseableStream:
        flow = Flow(self._bridge, lambda: self.lost)
        try:
            await self._open(
                flow, partial(self._conn(method), lambda: flow, *address, encoding=None)
            )
        except LostError:
            raise
        except Exception as error:
            self._check(error)
            raise explain_refusal(error, self._progress, where) from error
        return ChannelStream(flow)

    async def _in_a_slot(
        self, start: Callable[[Flow], Callable[..., Awaitable[Any]]], patience_s: float
    ) -> Flow:
        flow = Flow(self._bridge, lambda: self.lost, released=self._free_slot)
        await self._take_slot(flow, patience_s)
        deadline = trio.current_time() + self.target.connect_timeout
        pause = _FIRST_PAUSE_S
        while True:
            try:
                with self._patiently(_OPENING):
                    await self._open(flow, start(flow))
                return flow
            except SSHConnectError:
                flow.release()
                raise
            except LostError:
                raise
            except Exception as error:
                self._check(error)
                is_busy = getattr(error, "code", None) in (_CONNECT_FAILED, _SHORTAGE)
                if not is_busy or trio.current_time() + pause > deadline:
                    raise self._no_session(error) from error
            # A server counts a session until its command has ended, also one that was closed here.
            flow = Flow(self._bridge, lambda: self.lost, released=self._free_slot)
            with trio.move_on_after(pause * random.uniform(0.5, 1.5)):
                await self._slot_freed.park()
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            await self._take_slot(flow, patience_s)

    async def _open(self, flow: Flow, start: Callable[..., Awaitable[Any]]) -> None:
        try:
            await self._bridge.see_through(start, late=flow.opened_late)
        except trio.Cancelled:
            raise
        except BaseException:
            flow.release()
            raise
        self.channels_opened += 1

    async def _take_slot(self, flow: Flow, patience_s: float = inf) -> None:
        with trio.move_on_after(patience_s) as patience:
            await self._slots.acquire_on_behalf_of(flow)
        if patience.cancelled_caught:
            raise self._progress.fail(
                SSHConnectError,
                f"all {MOST_SESSIONS} sessions of the connection are in use, and none was free in "
                f"{patience_s:g} s",
                "A daemon with the guarantee 'scoped' holds one as long as it has an owner. Have "
                "fewer at once, or Python 3.7 or later there: then one session serves all.",
                "opening a session",
            )
        if self.lost is not None:
            self._free_slot(flow)
            raise LostError(self.lost)

    def _free_slot(self, flow: Flow) -> None:
        self._slots.release_on_behalf_of(flow)
        self._slot_freed.unpark_all()

    def _no_session(self, error: Exception) -> SSHConnectError:
        return self._progress.fail(
            SSHConnectError,
            f"the server would not run a command ({getattr(error, 'reason', error)})",
            "It may allow too few at once (MaxSessions in its sshd_config), or none.",
            _OPENING,
        )

    @contextmanager
    def _patiently(self, phase: str) -> Iterator[None]:
        """Bound a wait for the server: that the connection lives does not mean that it answers."""
        # One that is silent altogether is lost before, and for that reason.
        limit_s = self.target.connect_timeout + self.silence_limit_s
        try:
            with trio.fail_after(limit_s):
                yield
        except trio.TooSlowError as error:
            problem = f"the server has not answered for {limit_s:g} s"
            cure = "See whether it is overloaded, and what it logs."
            raise self._progress.fail(SSHConnectError, problem, cure, phase) from error

    def _conn(self, method: str) -> Callable[..., Awaitable[Any]]:
        if self.lost is not None:
            raise LostError(self.lost)
        function: Callable[..., Awaitable[Any]] = getattr(self.connection, method)
        return function

    def _check(self, error: Exception) -> None:
        if self.lost is not None:
            raise LostError(self.lost) from error


class RemoteListener:
    """A TCP port on the other machine; whoever connects to it there is connected to us."""

    def __init__(self, bridge: Bridge, why_lost: Callable[[], str | None]) -> None:
        self.host = ""
        self.port = 0
        self._bridge = bridge
        self._why_lost = why_lost
        self._listener: Any = None
        self._put, self._got = trio.open_memory_channel[tuple[Flow, tuple[str, int]]](_BACKLOG)

    async def accept(self) -> tuple[HalfCloseableStream, tuple[str, int]]:
        """Wait for a connection; give it, and who has made it: host and port there.

        Raises:
            LostError: The connection to that machine is gone.
            trio.ClosedResourceError: The listener was closed.
        """
        try:
            flow, peer = await self._got.receive()
        except trio.EndOfChannel:
            raise LostError(self._why_lost() or "the server listens no more") from None
        return ChannelStream(flow), peer

    def close(self) -> None:
        """Listen no more; what was accepted stays. Again is fine."""
        self._put.close()
        while self._got.statistics().current_buffer_used:
            self._got.receive_nowait()[0].close()
        self._got.close()
        self._end()

    def welcome(self, host: str, port: int) -> Flow:
        """Take a connection; called by what speaks SSH."""
        return Flow(self._bridge, self._why_lost, made=partial(self._made, (host, port)))

    def opened(self, listener: Any) -> None:
        """Take note that the machine listens."""
        self._listener = listener
        self.port = listener.get_port()

    def opened_late(self, listener: Any) -> None:
        """End what nobody waits for any more."""
        self._listener = listener
        self.close()

    def hear_end(self) -> None:
        """Take note that the connection is gone."""
        self._put.close()

    def _made(self, peer: tuple[str, int], flow: Flow) -> None:
        try:
            self._put.send_nowait((flow, peer))
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            flow.close()

    def _end(self) -> None:
        if self._listener is not None and self._why_lost() is None:
            with self._bridge.entered():
                self._listener.close()


def _why(host: str, error: Exception | None) -> str:
    about = f"the connection to {host} is lost"
    return f"{about}: {str(error).rstrip('.')}" if error is not None and str(error) else about
