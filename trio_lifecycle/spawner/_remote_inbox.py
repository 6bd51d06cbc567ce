"""An inbox on another machine: the guard there holds its socket, and passes on what is sent."""

import os
import secrets
from collections import deque
from pathlib import Path
from typing import Any, Final

import trio

from trio_lifecycle._errors import ConfigError, GuaranteeError
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh.guard_letters import MOST_UNDER_WAY
from trio_lifecycle.abc import Datagram, Inbox

_RANDOM_BYTES: Final = 8

# What else says that a daemon is ready there.
_CURE: Final = "use another ready mode, such as LogLine, Callback or HealthCheck"


async def open_inbox(
    machine: Machine, directory: Path | None, user: str | int | None, longest_bytes: int
) -> Inbox:
    """Have the guard make a socket.

    Raises:
        ConfigError: There is no guard.
        OSError: It can't be made.
        SSHConnectError: The machine can't be reached.
    """
    guard = await _guard(machine)
    name = secrets.token_hex(_RANDOM_BYTES)
    address = f"@trio-lifecycle/{name}" if directory is None else f"{directory}/notify-{name}"
    number = guard.new_number()
    inbox = RemoteInbox(guard, number, address, longest_bytes)
    order = {"do": "listen", "id": number, "address": address, "user": user, "most": longest_bytes}
    try:
        answer = await guard.ask(order)
        if "errno" in answer:
            raise OSError(answer["errno"], os.strerror(answer["errno"]))
    except LostError as error:
        inbox.let_go()
        raise machine.failure("making a socket for notifications", error) from error
    except BaseException:
        # The guard does one thing after the other, so this comes after it was made.
        inbox.let_go()
        raise
    inbox.expect(frozenset(answer["uids"]))
    return inbox


async def _guard(machine: Machine) -> GuardLink:
    try:
        guard = await machine.guard("the ready mode")
    except GuaranteeError as error:
        raise ConfigError("ready_mode", f"Notify: {error.problem}; {_CURE}") from error
    if guard is None:
        problem = f"Notify needs python3 of at least 3.7 on {machine.host}, which has none"
        raise ConfigError("ready_mode", f"{problem}; {_CURE}")
    return guard


class RemoteInbox(Inbox):
    """What has come to a socket of the guard.

    Args:
        guard: Who holds it.
        number: The socket's for the guard.
        address: Where it is, there.
        longest_bytes: How long a message may be.
    """

    def __init__(self, guard: GuardLink, number: int, address: str, longest_bytes: int) -> None:
        self._guard = guard
        self._longest_bytes = longest_bytes
        self._number = number
        self._address = address
        self._uids: frozenset[int] = frozenset()
        self._letters: deque[Datagram] = deque()
        self._unfinished = b""
        self._news = trio.Event()
        self._is_closed = False
        guard.inboxes[number] = self._hear

    @property
    def address(self) -> str:
        """A name, or a path there."""
        return self._address

    @property
    def uids(self) -> frozenset[int]:
        """Root, who is logged in there, and the one who was asked for."""
        return self._uids

    def expect(self, uids: frozenset[int]) -> None:
        """Take note whom the daemon is expected to send as."""
        self._uids = uids

    def _hear(self, facts: dict[str, Any], raw: bytes) -> None:
        # The guard keeps these bounds; whoever else stands in its place must not fill this memory.
        if facts["n"] > self._longest_bytes or len(self._letters) > MOST_UNDER_WAY:
            return
        # A message may come in pieces.
        self._unfinished += raw
        if len(self._unfinished) < facts["n"]:
            return
        content, self._unfinished = self._unfinished, b""
        sender = facts["pid"], facts["uid"], facts["cut"], tuple(facts["ancestors"])
        self._letters.append(Datagram(content, *sender))
        self._news.set()

    def receive(self) -> Datagram | None:
        """Give what has come; the guard sends only so many ahead."""
        if not self._letters:
            return None
        self._guard.tell({"do": "taken", "id": self._number, "count": 1})
        return self._letters.popleft()

    async def wait(self) -> None:
        """Wait for the next to come."""
        await trio.lowlevel.checkpoint()
        while not self._letters and not self._is_closed:
            self._news = trio.Event()
            await self._news.wait()
        if self._is_closed:
            raise trio.ClosedResourceError

    async def uids_of(self, pid: int) -> frozenset[int]:
        """Ask the guard."""
        try:
            return frozenset(await self._guard.ask({"do": "users", "pid": pid}))
        except LostError:
            return frozenset()

    async def close(self) -> None:
        """Have the guard close it, and wait for nothing."""
        self.let_go()

    def let_go(self) -> None:
        """Do the same outside of a task."""
        if not self._is_closed:
            self._is_closed = True
            self._letters.clear()
            self._guard.inboxes.pop(self._number, None)
            self._guard.tell({"do": "unlisten", "id": self._number})
            self._news.set()
