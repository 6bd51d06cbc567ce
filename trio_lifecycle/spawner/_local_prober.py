"""Asking daemons on this machine, and finding the process behind an address."""

import os
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle import _contacts, _loopback_http
from trio_lifecycle._connecting import Address
from trio_lifecycle._holders import describe_holder, find_main
from trio_lifecycle._http import HTTPClient
from trio_lifecycle._proc import all_stats, listeners_at, open_pidfd
from trio_lifecycle.abc import (
    Answer,
    Command,
    Contact,
    FileMark,
    Prober,
    Process,
    Question,
    Ran,
    Spawner,
)
from trio_lifecycle.spawner._found_process import FoundProcess
from trio_lifecycle.spawner._running import run_command
from trio_lifecycle.spawner._unseen_process import UnseenProcess

_INIT_PID: Final = 1


class LocalProber(Prober):
    """Asks from this machine.

    Args:
        spawner: Runs commands.
    """

    def __init__(self, spawner: Spawner) -> None:
        self._spawner = spawner
        self._client = HTTPClient()
        self._met: dict[int, FoundProcess] = {}
        self._run: trio.lowlevel.TrioToken | None = None
        self._listening: set[Address] = set()
        self._one_look: trio.CapacityLimiter | None = None

    async def prepare(self, question: Question) -> None:
        """Import what a question to this machine needs; httpx waits for the first to another."""
        _loopback_http.prepare()
        self._listening.clear()
        await self._client.prepare(question)

    async def ask(self, question: Question) -> Answer:
        """Ask, over a loopback address or a UNIX socket by the shorter way."""
        address = _loopback_http.way_to(question)
        if address is not None:
            return await _loopback_http.ask(question, address)
        return await self._refusal(question) or await self._client.ask(question)

    async def _refusal(self, question: Question) -> Answer | None:
        """Ask first whether anybody listens, until somebody does.

        To be refused takes a tenth of what a client for TLS or HTTP/2 takes to find that out.
        """
        address = _loopback_http.address_of(question)
        if address is None or address in self._listening:
            return None
        contact = await (
            self.connect_unix(address) if isinstance(address, str) else self.connect(*address)
        )
        if contact.absent:
            return Answer(None, contact.problem, absent=True)
        self._listening.add(address)
        return None

    async def connect(self, host: str, port: int) -> Contact:
        """Connect."""
        return await _contacts.connect(host, port)

    async def connect_unix(self, path: str) -> Contact:
        """Connect."""
        return await _contacts.connect_unix(path)

    async def find_binary(self, name: str, search_path: tuple[Path, ...] = ()) -> str:
        """Look on this machine."""
        return await self._spawner.find_binary(name, search_path)

    async def run(self, command: Command) -> Ran:
        """Run it under the spawner's own guarantee."""
        return await run_command(self._spawner, command)

    async def find_file(self, path: str) -> FileMark | None:
        """Look in a thread, for a file system of another machine may hang.

        One look at once: those that hang are left behind, and must not take up all threads.
        """
        self._enter_run()
        if self._one_look is None:
            self._one_look = trio.CapacityLimiter(1)
        return await trio.to_thread.run_sync(
            _mark_of, path, abandon_on_cancel=True, limiter=self._one_look
        )

    async def owner_of(self, host: str, port: int) -> Process:
        """Find who holds the listening socket.

        One that was met before is asked only whether it still does.
        """
        inodes = [listener.inode for listener in listeners_at(host, port)]
        if not inodes:
            # A UNIX socket may have been bound by another name.
            pid = (await self.connect_unix(host)).pid if host.startswith("/") else None
            return _follow(pid) or UnseenProcess()
        self._enter_run()
        known = self._met.get(inodes[0])
        if known is not None and not known.ended:
            return known
        found = _follow(find_main(inodes[0]))
        if found is None:
            return UnseenProcess()
        self._met = {inodes[0]: found}
        return found

    def _enter_run(self) -> None:
        """Forget what belongs to another run: what waits for it, and threads that still look."""
        run = trio.lowlevel.current_trio_token()
        if run is not self._run:
            self._run, self._met, self._one_look = run, {}, None

    async def describe_owner(self, host: str, port: int) -> str:
        """Give pid and command."""
        await trio.lowlevel.checkpoint()
        return describe_holder(host, port) or "a process that can't be seen from here"


def _mark_of(path: str) -> FileMark | None:
    try:
        stat = Path(path).stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return FileMark(stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)


def _follow(pid: int | None) -> FoundProcess | None:
    # The first process of the machine, or of a container, is nobody's daemon: it can't be stopped.
    stat = all_stats().get(pid) if pid not in (None, _INIT_PID, os.getpid()) else None
    pidfd = open_pidfd(stat) if stat is not None else None
    return FoundProcess(stat, pidfd) if stat is not None and pidfd is not None else None
