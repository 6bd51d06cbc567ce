"""The way back from another machine: a port there that leads to a server of this program."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_lifecycle._listeners import unmapped
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_sockets import connection_uid, holder_of
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh._transport import RemoteListener
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle.abc import Caller, Peer, WayBack

# Every machine has it; the server there need not know of IPv6.
_HOST: Final = "127.0.0.1"

_READ_BYTES: Final = 65_536

# How long answers that are under way may take when the way ends.
_LAST_ANSWERS_S: Final = 1.0

# Each takes a descriptor of this program; more have to wait.
_MOST_CARRIED: Final = 256

End = tuple[str, int]

_log: Final = logging.getLogger("trio_lifecycle")


@asynccontextmanager
async def open_way_back(machine: Machine, host: str, port: int) -> AsyncIterator[WayBack]:
    """Have the machine listen, and lead who connects there to a server here.

    Raises:
        SSHConnectError: The machine can't be reached, or its server forbids this.
    """
    try:
        listener = await (await machine.transport()).listen(_HOST)
    except LostError as error:
        raise machine.failure("listening there", error) from error
    way = RemoteWayBack(machine, listener, (host, port))
    # No nursery: who enters is not who leaves.
    trio.lowlevel.spawn_system_task(way.run, name=f"way back from {machine.host}")
    try:
        yield way
    finally:
        await way.end()  # noqa: ASYNC102 - it shields itself, and is bounded


class RemoteWayBack(WayBack):
    """Carries connections from a port of another machine to a server here.

    Args:
        machine: Where it listens.
        listener: How.
        server: Where the server here listens.
    """

    def __init__(self, machine: Machine, listener: RemoteListener, server: End) -> None:
        super().__init__(_HOST, listener.port)
        self._machine = machine
        self._listener = listener
        self._server = server
        # Who has connected there, by the end of our own connection that the server here sees.
        self._callers: dict[End, End] = {}
        # Connections over which something was asked that has no answer yet.
        self._unanswered: set[object] = set()
        self._all_answered = trio.Event()
        self._slots = trio.CapacityLimiter(_MOST_CARRIED)
        self._is_over = trio.Event()

    async def caller(self, peer: Peer) -> Caller | None:
        """Look there whose socket it is."""
        far = self._callers.get(_plain(peer.client))
        if far is None:
            await trio.lowlevel.checkpoint()
            return None

        async def look(line: Line) -> Caller | None:
            return await self._look(line, far)

        try:
            return await self._machine.look(look)
        except SSHConnectError:
            return None

    async def _look(self, line: Line, far: End) -> Caller | None:
        found = await connection_uid(line, far, (self.host, self.port))
        if found is None:
            return None
        uid, inode = found
        if uid == line.facts.uid:
            return Caller(uid, None, is_same_user=True)
        # Root sees it; who is not root sees only what is the user's own.
        return Caller(uid, await holder_of(line, inode), is_same_user=False)

    # --- carrying ---

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Carry until the way ends, or the connection is lost; raises nothing."""
        try:
            async with trio.open_nursery() as nursery:
                await self._accept_forever(nursery)
                with trio.move_on_after(_LAST_ANSWERS_S):
                    await self._wait_answered()
                nursery.cancel_scope.cancel()
        finally:
            self._is_over.set()

    async def _accept_forever(self, nursery: trio.Nursery) -> None:
        while True:
            try:
                there, far = await self._listener.accept()
            except (LostError, trio.ClosedResourceError):
                return
            nursery.start_soon(self._carry, there, far)

    async def _wait_answered(self) -> None:
        while self._unanswered:
            self._all_answered = trio.Event()
            await self._all_answered.wait()

    @trio.lowlevel.enable_ki_protection
    async def _carry(self, there: trio.abc.HalfCloseableStream, far: End) -> None:
        try:
            async with there, self._slots:
                here = await trio.open_tcp_stream(*self._server)
                async with here:
                    await self._join(there, here, far)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever calls sees that the connection ends
        except Exception as error:
            _log.warning("a call from %s could not be led here: %s", self._machine.host, error)

    async def _join(
        self, there: trio.abc.HalfCloseableStream, here: trio.SocketStream, far: End
    ) -> None:
        near = _plain(here.socket.getsockname())
        self._callers[near] = far
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_calls, there, here)
                await self._pass_answers(here, there)
                nursery.cancel_scope.cancel()
        finally:
            del self._callers[near]
            self._note_answer(here)

    @trio.lowlevel.enable_ki_protection
    async def _pass_calls(
        self, there: trio.abc.HalfCloseableStream, here: trio.SocketStream
    ) -> None:
        try:
            while data := await there.receive_some(_READ_BYTES):
                self._unanswered.add(here)
                await here.send_all(data)
            await here.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(here)

    async def _pass_answers(
        self, here: trio.SocketStream, there: trio.abc.HalfCloseableStream
    ) -> None:
        try:
            while data := await here.receive_some(_READ_BYTES):
                await there.send_all(data)
                self._note_answer(here)
            await there.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the ends is gone

    def _note_answer(self, here: trio.SocketStream) -> None:
        self._unanswered.discard(here)
        if not self._unanswered:
            self._all_answered.set()

    # --- its end ---

    async def end(self) -> None:
        """Listen no more, and let answers that are under way arrive."""
        self._listener.close()
        # Shielded, because who leaves may be cancelled; most often nothing is waited for.
        with trio.CancelScope(shield=True):
            await self._is_over.wait()


def _plain(end: End) -> End:
    return unmapped(end[0]), end[1]
