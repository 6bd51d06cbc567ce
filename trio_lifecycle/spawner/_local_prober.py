"""Asking daemons on this machine, and finding the process behind an address."""

import errno
import os
import socket
from typing import Final

import trio

from trio_lifecycle._http import HTTPClient, refused
from trio_lifecycle._proc import (
    all_stats,
    answering,
    command_line,
    holds_socket,
    listeners,
    open_pidfd,
)
from trio_lifecycle._urls import host_of, loopback_addresses, port_of
from trio_lifecycle.abc import Answer, Prober, Process
from trio_lifecycle.spawner._found_process import FoundProcess, UnseenProcess

_REFUSED: Final = errno.ECONNREFUSED


class LocalProber(Prober):
    """Asks from this machine."""

    def __init__(self) -> None:
        self._client = HTTPClient()
        self._met: dict[int, FoundProcess] = {}

    async def prepare(self) -> None:
        """Import httpx."""
        self._client.prepare()

    async def get(self, url: str) -> Answer:
        """Send one GET."""
        return await self._client.get(url)

    async def find_absent(self, url: str) -> Answer | None:
        """Connect to a loopback address without waiting.

        A refusal comes at once, for 15 us instead of a millisecond.
        """
        hosts = loopback_addresses(host_of(url))
        if len(hosts) != 1:
            return None
        # Without a checkpoint a wait with a short interval would keep the loop to itself.
        await trio.lowlevel.checkpoint()
        family = socket.AF_INET6 if ":" in hosts[0] else socket.AF_INET
        with socket.socket(family) as sock:
            sock.setblocking(False)
            error = sock.connect_ex((hosts[0], port_of(url)))
        return refused(error) if error == _REFUSED else None

    async def owner_of(self, host: str, port: int) -> Process:
        """Find who holds the listening socket.

        One that was met before is asked only whether it still does.
        """
        await trio.lowlevel.checkpoint()
        inodes = [listener.inode for listener in answering(listeners(port), host)]
        if not inodes:
            return UnseenProcess()
        known = self._met.get(inodes[0])
        if known is not None and not known.ended:
            return known
        found = _find_holder(inodes[0])
        if found is None:
            return UnseenProcess()
        self._met = {inodes[0]: found}
        return found

    def describe_owner(self, host: str, port: int) -> str:
        """Give pid and command."""
        for listener in answering(listeners(port), host):
            pid = _find_main(listener.inode)
            if pid is not None:
                return f"process {pid} ({command_line(pid)})"
        return "a process that can't be seen from here"


def _find_main(inode: int) -> int | None:
    """Find the process that holds a socket.

    Of several, a server and its workers, the one that the others come from.
    """
    holders = {pid: stat for pid, stat in all_stats().items() if holds_socket(pid, inode)}
    tops = [stat for stat in holders.values() if stat.ppid not in holders]
    return min(tops, key=lambda stat: stat.start_time).pid if tops else None


def _find_holder(inode: int) -> FoundProcess | None:
    pid = _find_main(inode)
    stat = all_stats().get(pid) if pid not in (None, os.getpid()) else None
    pidfd = open_pidfd(stat) if stat is not None else None
    return FoundProcess(stat, pidfd) if stat is not None and pidfd is not None else None
