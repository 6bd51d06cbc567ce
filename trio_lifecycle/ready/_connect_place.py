"""An address that is asked by connecting, and by nothing more."""

from collections.abc import Awaitable, Callable

import trio

from trio_lifecycle.abc import Contact, Process, Start, Verdict
from trio_lifecycle.ready._polled import NOT_ACCEPTED, Outcome, Reply

Again = Callable[[], Awaitable[bool]]


class ConnectPlace:
    """One address.

    Args:
        connect: Connects to it.
        address: Where to look for who listens; None where everybody is believed.
        whose: Says whose it is, given the daemon and a way to ask once more.
        limit_s: How long one connection may take.
        start: The spawn; None before there is one.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Contact]],
        address: tuple[str, int] | None,
        whose: Callable[[Process, Again], Awaitable[Verdict]],
        limit_s: float,
        start: Start | None,
    ) -> None:
        self.address = address
        self._connect = connect
        self._whose = whose
        self._limit_s = limit_s
        self._start = start
        self._has_queued = False

    async def ask(self, *, patient: bool = False) -> Reply:
        """Connect once; to a passed socket, once until the daemon has accepted it."""
        if not self._has_queued:
            reply = await self._ask()
            self._has_queued = reply.outcome is Outcome.UP and self._is_passed
            if not self._has_queued:
                return reply
        if self._is_queued:
            # The system takes connections for it before the daemon is there.
            return Reply(Outcome.NOT_YET, NOT_ACCEPTED)
        self._has_queued = False
        return Reply(Outcome.UP, "took the connection")

    async def _ask(self) -> Reply:
        with trio.move_on_after(self._limit_s):
            contact = await self._connect()
            outcome = Outcome.UP if contact.made else Outcome.NOT_YET
            return Reply(outcome, str(contact), contact.absent)
        return Reply(Outcome.NOT_YET, f"took no connection within {self._limit_s} s")

    @property
    def _is_queued(self) -> bool | None:
        if self._start is None or self.address is None:
            return None
        return self._start.queue_at(*self.address)

    @property
    def _is_passed(self) -> bool:
        return self._is_queued is not None

    async def whose(self, process: Process) -> Verdict:
        """Look who listens."""
        return await self._whose(process, self._is_up)

    async def _is_up(self) -> bool:
        return (await self._ask()).outcome is Outcome.UP
