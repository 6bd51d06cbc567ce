"""Another machine, as one Trio run of this program knows it."""

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Final, TypeVar

import trio
from attrs import define, field

from trio_lifecycle._errors import ConfigError, GuaranteeError
from trio_lifecycle._ssh._connections import connection
from trio_lifecycle._ssh._forward import Forward
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._host_facts import HostFacts
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError, Session
from trio_lifecycle._ssh._target import SSHTarget
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle._ssh_errors import SSHConnectError

T = TypeVar("T")

# What is run on the other machine, and nothing else: every login shell knows how to start it.
COMMAND: Final = "sh -s"

# Left free on the first connection: for the line or the guard, should they be made anew, and for an
# upload.
_SHORT_SESSIONS: Final = 2


@define(eq=False)
class Machine:
    """A machine that is reached over SSH: its connection, and what is kept open on it.

    All is made when it is first needed, and made anew when the connection was lost. Those who own
    daemons on it share it.

    Attributes:
        target: How it is reached.
        own_name: What it calls itself; known once it was reached.
        forwards: Those that no nursery ends: addresses and port there -> the forward.
        passes_unix: The last connection that has passed one on to a UNIX socket there.
        resolved: Programs there -> the files that they are, links resolved, as far as known.
    """

    target: SSHTarget
    own_name: str = field(default="", init=False)
    passes_unix: Transport | None = field(default=None, init=False)
    resolved: dict[str, str] = field(factory=dict, init=False)
    forwards: dict[tuple[tuple[str, ...], int], Forward] = field(factory=dict, init=False)
    _turn: trio.Lock = field(factory=trio.Lock, init=False)
    _transport: Transport | None = field(default=None, init=False)
    _line: Line | None = field(default=None, init=False)
    _guard_turn: trio.Lock = field(factory=trio.Lock, init=False)
    _guard: GuardLink | None = field(default=None, init=False)

    @property
    def host(self) -> str:
        """The machine, as it was named."""
        return self.target.host

    @property
    def is_crowded(self) -> bool:
        """Whether somebody waits for a session of the connection."""
        return self._transport is not None and self._transport.is_crowded

    async def transport(self) -> Transport:
        """Give the connection.

        Raises:
            SSHConnectError: There can be none.
        """
        return await connection(self.target)

    async def silence_limit_s(self) -> float:
        """Give how long this program may be silent until it is given up there.

        Raises:
            SSHConnectError: It can't be reached.
        """
        try:
            return (await self.transport()).silence_limit_s
        except LostError as error:
            raise self.failure("connecting", error) from error

    async def line(self) -> Line:
        """Give the line, over which this machine is looked at.

        Raises:
            SSHConnectError: There can be none.
            LostError: The connection was lost meanwhile.
        """
        transport = await self.transport()
        async with self._turn:
            if (
                self._line is None
                or self._line.lost is not None
                or self._transport is not transport
            ):
                session = await transport.open_session(COMMAND)
                try:
                    self._line = await Line.open(session)
                except BaseException:
                    session.close()
                    raise
                self._transport = transport
                self.own_name = self._line.facts.host
            return self._line

    async def facts(self) -> HostFacts:
        """Give what is known of it."""
        return await self.look(_facts)

    async def look(self, ask: Callable[[Line], Awaitable[T]], *, again: bool = True) -> T:
        """Have something looked at, with one more try over a new connection.

        Args:
            ask: Asks.
            again: Whether what may have been heard may be asked again; a signal may not be sent
                twice.

        Raises:
            SSHConnectError: It can't be reached, or is lost again and again.
        """
        try:
            line = await self.line()
        except LostError:
            line = await self._line_at_last()
        try:
            return await _ask(line, ask)
        except LostError as error:
            if not again:
                raise self.failure("looking", error) from error
        try:
            return await _ask(await self._line_at_last(), ask)
        except LostError as error:
            raise self.failure("looking", error) from error

    async def _line_at_last(self) -> Line:
        try:
            return await self.line()
        except LostError as error:
            raise self.failure("opening the line", error) from error

    async def open_session(self, patience_s: float | None = None) -> Session:
        """Open a session of its own.

        Args:
            patience_s: How many seconds to wait for a free one; None is as long as for a
                connection.

        Raises:
            SSHConnectError: There can be none.
        """
        try:
            return await (await self.transport()).open_session(COMMAND, patience_s)
        except LostError as error:
            raise self.failure("opening a session", error) from error

    async def open_kept_session(self) -> Session:
        """Open a session that may be kept for as long as a daemon starts, or lives.

        Raises:
            SSHConnectError: There can be none.
        """
        try:
            return await (await self._roomy_transport()).open_session(COMMAND)
        except LostError as error:
            raise self.failure("opening a session", error) from error

    async def _roomy_transport(self) -> Transport:
        """Give the connection, or one more where it has no room for a session that is kept.

        Whoever waited for room would wait for the end of another daemon.
        """
        transport, needed = await self.transport(), 1 + _SHORT_SESSIONS
        more = count(1)
        # No checkpoint from where room is seen until it is taken.
        while transport.free_sessions < needed:
            transport, needed = await connection(self.target, next(more)), 1
        return transport

    async def guard(self, name: str) -> GuardLink | None:
        """Give the guard; None where the machine has no Python to run it.

        Args:
            name: The daemon's that is to be guarded, for messages.

        Raises:
            SSHConnectError: It can't be reached.
            GuaranteeError: It has Python, but the guard does not start there.
        """
        python = (await self.facts()).python3
        if python is None:
            return None
        async with self._guard_turn:
            if self._guard is None or self._guard.lost is not None:
                transport = await self.transport()
                session = await self.open_session()
                try:
                    self._guard = await GuardLink.open(
                        session, python, heartbeat_limit_s=transport.silence_limit_s
                    )
                except (LostError, OSError, ImportError) as error:
                    session.close()
                    if transport.lost is not None:
                        raise self.failure("starting the guard", error) from error
                    problem = f"the guard could not be started on {self.host}: {error}"
                    raise GuaranteeError(name, "guarded", problem) from error
                except BaseException:
                    session.close()
                    raise
                trio.lowlevel.spawn_system_task(self._guard.serve, name=f"guard on {self.host}")
            return self._guard

    def failure(self, phase: str, error: Exception) -> SSHConnectError:
        """Give the error of a connection that was lost."""
        target = self.target
        return SSHConnectError(target.host, target.user, target.port, phase, str(error))


async def _ask(line: Line, ask: Callable[[Line], Awaitable[T]]) -> T:
    try:
        return await ask(line)
    except ConfigError:
        raise
    except (ValueError, LookupError) as error:
        # Tools there that say something else than everywhere; or it means no good.
        line.close()
        raise LostError(f"its answer makes no sense ({error})") from error


async def _facts(line: Line) -> HostFacts:
    await trio.lowlevel.checkpoint()
    return line.facts


_machines: Final = trio.lowlevel.RunVar[dict[SSHTarget, Machine]]("trio_lifecycle.machines")


def machine(target: SSHTarget) -> Machine:
    """Give the machine of a target; the same for all of this Trio run."""
    try:
        known = _machines.get()
    except LookupError:
        known = {}
        _machines.set(known)
    return known.setdefault(target, Machine(target))
