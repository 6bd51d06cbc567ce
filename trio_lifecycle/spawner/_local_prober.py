"""Asking daemons on this machine, and finding the process behind an address."""

import os
from typing import Final

import trio

from trio_lifecycle import _loopback_http
from trio_lifecycle._holders import describe_holder, find_main
from trio_lifecycle._http import HTTPClient
from trio_lifecycle._proc import all_stats, listeners_at, open_pidfd
from trio_lifecycle.abc import Answer, Prober, Process
from trio_lifecycle.spawner._found_process import FoundProcess
from trio_lifecycle.spawner._unseen_process import UnseenProcess

_INIT_PID: Final = 1


class LocalProber(Prober):
    """Asks from this machine."""

    def __init__(self) -> None:
        self._client = HTTPClient()
        self._met: dict[int, FoundProcess] = {}
        self._run: trio.lowlevel.TrioToken | None = None

    async def prepare(self) -> None:
        """Import what a question to this machine needs; httpx waits for the first to another."""
        _loopback_http.prepare()

    async def get(self, url: str, body_bytes: int = 0) -> Answer:
        """Send one GET, over a loopback address by the shorter way."""
        address = _loopback_http.loopback_address(url)
        if address is None:
            return await self._client.get(url, body_bytes)
        return await _loopback_http.get(url, address, body_bytes)

    async def owner_of(self, host: str, port: int) -> Process:
        """Find who holds the listening socket.

        One that was met before is asked only whether it still does.
        """
        inodes = [listener.inode for listener in listeners_at(host, port)]
        if not inodes:
            return UnseenProcess()
        run = trio.lowlevel.current_trio_token()
        known = self._met.get(inodes[0]) if run is self._run else None
        if known is not None and not known.ended:
            return known
        found = _find_holder(inodes[0])
        if found is None:
            return UnseenProcess()
        # What waits for it belongs to one run; another thread may have one of its own.
        self._run, self._met = run, {inodes[0]: found}
        return found

    def describe_owner(self, host: str, port: int) -> str:
        """Give pid and command."""
        return describe_holder(host, port) or "a process that can't be seen from here"


def _find_holder(inode: int) -> FoundProcess | None:
    pid = find_main(inode)
    # The first process of the machine, or of a container, is nobody's daemon: it can't be stopped.
    stat = all_stats().get(pid) if pid not in (None, _INIT_PID, os.getpid()) else None
    pidfd = open_pidfd(stat) if stat is not None else None
    return FoundProcess(stat, pidfd) if stat is not None and pidfd is not None else None
