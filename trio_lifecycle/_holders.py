"""Who holds a port of this machine."""

import socket
from collections.abc import Iterable
from contextlib import suppress

from trio_lifecycle._proc import all_stats, command_line, holds_socket, listeners_at
from trio_lifecycle._sock_diag import listening_sockets
from trio_lifecycle._strays import owners_among


def describe_holder(host: str, port: int) -> str | None:
    """Say who listens at an address of this machine: pid and command, as far as they can be told.

    Returns:
        None when nobody listens there.
    """
    return _describe([listener.inode for listener in listeners_at(host, port)])


def describe_any_holder(port: int) -> str | None:
    """Say who listens on a port, at whatever address; None when nobody does."""
    inodes: list[int] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with suppress(OSError):
            inodes += [found.inode for found in listening_sockets(family, port)]
    return _describe(inodes)


def _describe(inodes: Iterable[int]) -> str | None:
    seen = None
    for inode in inodes:
        pid = find_main(inode)
        if pid is not None:
            return f"process {pid} ({command_line(pid)})"
        seen = "a process that can't be seen from here"
    return seen


def find_main(inode: int) -> int | None:
    """Find the process that holds a socket.

    Of several, a server and its workers, the one that the others come from.
    """
    holders = {pid: stat for pid, stat in all_stats().items() if holds_socket(pid, inode)}
    # Who has passed it to his daemon does not answer there himself.
    for owner in owners_among(holders):
        del holders[owner]
    tops = [stat for stat in holders.values() if stat.ppid not in holders]
    return min(tops, key=lambda stat: stat.start_time).pid if tops else None
