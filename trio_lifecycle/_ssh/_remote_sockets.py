"""Sockets of another machine: who listens, who calls, and a free port."""

import errno
import secrets
import socket
from collections.abc import Iterable
from typing import NamedTuple

from trio_lifecycle._listeners import Listener, answering, unmapped
from trio_lifecycle._sock_diag import LISTEN, TCPSocket, parse_row
from trio_lifecycle._ssh._host_facts import split
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError

# Where to begin to look for a free port; more than there are ports.
_SEEDS = 1_000_000


class Holder(NamedTuple):
    """A process that holds a socket.

    Attributes:
        inode: The socket.
        pid: The process.
        start_time: When it was started, in clock ticks since the machine's boot.
        ppid: Its parent.
    """

    inode: int
    pid: int
    start_time: int
    ppid: int


class Listening(NamedTuple):
    """Who would get a connection.

    Attributes:
        listeners: The sockets; several share a port on purpose. None when it would be refused.
        holders: Who holds them, as far as that can be seen: another user's process can't.
    """

    listeners: list[Listener]
    holders: list[Holder]

    @property
    def main(self) -> Holder | None:
        """The holder that the others come from, a server's and not its workers'."""
        pids = {holder.pid for holder in self.holders}
        tops = [holder for holder in self.holders if holder.ppid not in pids]
        return min(tops, key=lambda holder: holder.start_time, default=None)


async def listening_at(line: Line, host: str, port: int) -> Listening:
    """Find who would get a connection to an address, if it were made on that machine.

    What only sock_diag(7) tells can't be seen: which interface a socket is bound to, and whether an
    IPv6 socket takes no IPv4 connections.

    Args:
        line: The machine.
        host: The address, as digits; or the path of a UNIX socket as it was bound, with port 0.
        port: The port.

    Raises:
        LostError: It can't be told.
    """
    if host.startswith("/"):
        return await _listening_at_path(line, host)
    looked = await line.run("tl_listening", unmapped(host), _digits(host), f"{port:04X}")
    first, _, holders = looked.output.decode().partition("\n\n")
    place, *rows = first.splitlines() or [""]
    if place not in ("here", "elsewhere"):
        raise LostError("its sockets can't be read now")
    found = [parse_row(row) for row in rows] if place == "here" else []
    listeners = answering(
        (Listener(row.local[0], port, row.inode, row.uid) for row in found), unmapped(host)
    )
    inodes = {listener.inode for listener in listeners}
    return Listening(listeners, [each for each in _holders(holders) if each.inode in inodes])


async def _listening_at_path(line: Line, path: str) -> Listening:
    looked = await line.run("tl_listening_unix", path)
    inodes, _, holders = looked.output.decode().partition("\n\n")
    listeners = [Listener(path, 0, int(inode), uid=-1) for inode in inodes.split()]
    return Listening(listeners, list(_holders(holders)))


async def unix_listeners(line: Line, path: str) -> frozenset[str]:
    """Find which sockets listen at the path of a UNIX socket that this user may connect to.

    Raises:
        PermissionError: He may not, or that can't be seen.
        LostError: It can't be told.
    """
    try:
        kind, *said = split((await line.run("tl_unix_state", path)).output)
    except ValueError as error:
        raise LostError(f"its answer makes no sense ({error})") from error
    if kind == "unknown":
        raise PermissionError(errno.EACCES, f"{path}: {said[0]}")
    return frozenset(said)


async def connection_uid(
    line: Line, local: tuple[str, int], remote: tuple[str, int]
) -> tuple[int, int] | None:
    """Find whose socket it is that stands at the other end of a connection within that machine.

    As ``trio_lifecycle._proc.connection_uid``: ``local`` is what the server sees as its peer,
    ``remote`` the server's own address.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_tcp", f"{local[1]:04X}", "", f"{remote[1]:04X}")
    rows = map(parse_row, looked.output.decode().splitlines())
    wanted = _plain(local), _plain(remote)
    found = (row for row in rows if row.state != LISTEN and wanted == _ends(row))
    row = next(found, None)
    return (row.uid, row.inode) if row is not None and row.inode else None


async def holder_of(line: Line, inode: int) -> int | None:
    """Find a process there that holds a socket; None where that can't be seen.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_holders", inode)
    return next((each.pid for each in _holders(looked.output.decode())), None)


def _ends(row: TCPSocket) -> tuple[tuple[str, int], tuple[str, int]]:
    return _plain(row.local), _plain(row.remote)


def _plain(end: tuple[str, int]) -> tuple[str, int]:
    return unmapped(end[0]), end[1]


def _digits(host: str) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_pton(family, host).hex()


def _holders(text: str) -> Iterable[Holder]:
    for row in text.splitlines():
        inode, pid, start_time, ppid = map(int, row.split())
        yield Holder(inode, pid, start_time, ppid)


# --- ports ----------------------------------------------------------------------------------------


class RemotePort(NamedTuple):
    """A free port, kept from others that ask in the same way while the line is open.

    Attributes:
        number: The port.
        mark: What keeps it.
    """

    number: int
    mark: str


async def reserve_port(line: Line) -> RemotePort:
    """Find a TCP port that no socket there has, and keep it until ``release_port``.

    Nothing is bound to it. It lies outside the range from which the kernel there serves outgoing
    connections and port 0.

    Raises:
        OSError: No port is free, or there is no place for a mark.
        LostError: It can't be told.
    """
    looked = await line.run("tl_reserve_port", secrets.randbelow(_SEEDS))
    if looked.status:
        where = f"{line.facts.temporary_dir} of {line.facts.host}"
        cause = "can't be written, or what is to keep ports there is another user's"
        raise OSError(f"{where} {cause}" if looked.status > 1 else f"{line.facts.host} has no port")
    try:
        number, mark = split(looked.output)
    except ValueError as error:
        raise LostError(f"its answer makes no sense ({error})") from error
    return RemotePort(int(number), mark)


async def release_port(line: Line, port: RemotePort) -> None:
    """Let others have it; again is fine. The line's end does the same.

    Raises:
        LostError: The line is gone, and its mark counts no more.
    """
    await line.run("tl_release_port", port.mark)
