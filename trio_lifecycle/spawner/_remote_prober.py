"""Asking daemons of another machine from there, and finding the process behind an address."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle import _loopback_http
from trio_lifecycle._connecting import REFUSED, explain
from trio_lifecycle._http import HTTPClient
from trio_lifecycle._ssh._machine import Machine, machine
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh._target import SSHTarget
from trio_lifecycle._ssh._unix_way import open_unix
from trio_lifecycle._urls import host_of, loopback_addresses, port_of
from trio_lifecycle.abc import (
    Answer,
    Command,
    Contact,
    FileMark,
    Inbox,
    Prober,
    Process,
    Question,
    Ran,
    Spawner,
    WayBack,
)
from trio_lifecycle.spawner import _remote_finding
from trio_lifecycle.spawner._reaching import open_one_of
from trio_lifecycle.spawner._remote_inbox import open_inbox
from trio_lifecycle.spawner._remote_way_back import open_way_back
from trio_lifecycle.spawner._running import run_command

_LOST: Final = "could not be asked, for the connection to its machine was lost"


class RemoteProber(Prober):
    """Connects from there, except to ask a URL that is not on loopback: that goes over the network.

    Args:
        spawner: Runs commands there.
        target: The machine.
    """

    def __init__(self, spawner: Spawner, target: SSHTarget) -> None:
        self._spawner = spawner
        self._target = target
        self._client = HTTPClient()

    @property
    def is_here(self) -> bool:
        """It asks from the other machine."""
        return False

    @property
    def _machine(self) -> Machine:
        return machine(self._target)

    async def prepare(self, question: Question) -> None:
        """Import what a question needs."""
        _loopback_http.prepare()
        await self._client.prepare(question)

    # --- connections ---

    async def ask(self, question: Question) -> Answer:
        """Ask over a channel of the connection, or over the network."""
        hosts = loopback_addresses(host_of(question.url))
        if question.unix_path is None and not hosts:
            return await self._client.ask(question)
        opened = await self._open(question.unix_path, hosts, question)
        if isinstance(opened, Answer):
            return opened
        try:
            if _loopback_http.is_plain(question):
                return await _loopback_http.ask_over(opened, question)
            return await self._client.ask(question, opened)
        finally:
            await trio.aclose_forcefully(opened)

    async def _open(
        self, path: str | None, hosts: tuple[str, ...], question: Question
    ) -> trio.abc.HalfCloseableStream | Answer:
        try:
            if path is not None:
                return await open_unix(self._machine, path)
            return await open_one_of(self._machine, hosts, port_of(question.url))
        except LostError:
            return Answer(None, _LOST)
        except OSError as error:
            problem, absent = _explain(error)
            return Answer(None, problem, absent)

    async def connect(self, host: str, port: int) -> Contact:
        """Connect from there, to wherever it is."""
        hosts = loopback_addresses(host) or (host,)
        return await _try(partial(open_one_of, self._machine, hosts, port))

    async def connect_unix(self, path: str) -> Contact:
        """Connect from there."""
        return await _try(partial(open_unix, self._machine, path))

    # --- commands and files ---

    async def find_binary(self, name: str, search_path: tuple[Path, ...] = ()) -> str:
        """Look there."""
        return await self._spawner.find_binary(name, search_path)

    async def run(self, command: Command) -> Ran:
        """Run it there under the spawner's own guarantee."""
        return await run_command(self._spawner, command)

    async def find_file(self, path: str) -> FileMark | None:
        """Look there."""
        return await _remote_finding.find_file(self._machine, path)

    # --- what is told from there ---

    def open_way_back(self, host: str, port: int) -> AbstractAsyncContextManager[WayBack]:
        """Forward a port of the machine's loopback address to the server here."""
        return open_way_back(self._machine, host, port)

    async def open_inbox(
        self, directory: Path | None, user: str | int | None, longest_bytes: int
    ) -> Inbox:
        """Have the guard there hear, also for a daemon that is not in its care."""
        return await open_inbox(self._machine, directory, user, longest_bytes)

    # --- who it is ---

    async def owner_of(self, host: str, port: int) -> Process:
        """Find who holds the listening socket there."""
        return await _remote_finding.owner_of(self._machine, host, port)

    async def describe_owner(self, host: str, port: int) -> str:
        """Give pid and command."""
        return await _remote_finding.describe_owner(self._machine, host, port)


def _explain(error: OSError) -> tuple[str, bool]:
    if isinstance(error, ConnectionRefusedError):
        return REFUSED, True
    return explain(error)


async def _try(open_there: Callable[[], Awaitable[trio.abc.HalfCloseableStream]]) -> Contact:
    try:
        stream = await open_there()
    except LostError:
        return Contact(False, _LOST)
    except OSError as error:
        return Contact(False, *_explain(error))
    await trio.aclose_forcefully(stream)
    return Contact(True)
