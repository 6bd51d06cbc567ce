"""Processes as the kernel shows them.

A process is told by its number and its start time together (proc_pid_stat(5), field 22), for
numbers are given again. A zombie counts as gone, and so does what vanishes under our eyes.
"""

import errno
import os
import signal
import socket
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import Final

from trio_lifecycle._listeners import Listener, answering, unmapped
from trio_lifecycle._procfs import ABSENT, all_pids, namespace, read, read_about, unix_listeners
from trio_lifecycle._sock_diag import (
    LISTEN,
    TCPSocket,
    find_connection,
    listening_at_file,
    listening_sockets,
    parse_row,
)
from trio_lifecycle._stat import Stat, parse_stat
from trio_lifecycle._texts import on_one_line

__all__ = [
    "DEFAULT_EPHEMERAL_PORTS",
    "Listener",
    "Stat",
    "all_stats",
    "command_line",
    "connection_uid",
    "ephemeral_ports",
    "has_variable",
    "holder_of",
    "holders_of",
    "holds_socket",
    "is_descendant",
    "listeners_at",
    "namespace",
    "open_pidfd",
    "read_about",
    "read_stat",
    "signal_process",
    "tree_of",
    "wchan",
]

# Linux's own, where the file that says it can't be read (ip-sysctl, ip_local_port_range).
DEFAULT_EPHEMERAL_PORTS: Final = range(32_768, 61_000)

# A command line in a message; what tells two daemons apart stands at its beginning.
LONGEST_COMMAND_CHARS: Final = 200

_INIT_PID: Final = 1


# --- this machine ---------------------------------------------------------------------------------


def ephemeral_ports() -> range:
    """Give the ports that the kernel takes for itself, for outgoing connections and for port 0."""
    with suppress(OSError):
        low, high = read("/proc/sys/net/ipv4/ip_local_port_range").split()
        return range(int(low), int(high) + 1)
    return DEFAULT_EPHEMERAL_PORTS


# --- one process ----------------------------------------------------------------------------------


def read_stat(pid: int) -> Stat | None:
    """Look at one process; None when there is none of that number, or only a thread.

    Raises:
        OSError: It can't be told: this program has no descriptor or memory left.
    """
    stat = _read_stat(pid)
    return stat if stat is not None and _is_process(pid) else None


def all_stats() -> dict[int, Stat]:
    """Look at every process, in one pass; nothing when there is no /proc.

    Raises:
        OSError: As with ``read_stat``.
    """
    stats = (_read_stat(pid) for pid in all_pids())
    return {stat.pid: stat for stat in stats if stat is not None}


def _read_stat(pid: int) -> Stat | None:
    text = read_about(pid, "stat")
    return None if text is None else parse_stat(text)


def _is_process(pid: int) -> bool:
    """Say whether it is a process: /proc answers for the number of a mere thread, too."""
    try:
        os.close(os.pidfd_open(pid))
    except ProcessLookupError:
        return False
    except OSError as error:
        # A thread's number is EINVAL or, on newer kernels, ENOENT; anything else (no descriptor
        # left, a sandbox) says nothing about it.
        return error.errno not in (errno.EINVAL, errno.ENOENT)
    return True


def wchan(pid: int) -> str:
    """Say where in the kernel a process waits; empty when it does not or it can't be known."""
    with suppress(OSError):
        place = read(f"/proc/{pid}/wchan").decode(errors="replace").strip()
        return "" if place == "0" else place
    return ""


def has_variable(pid: int, name: str, value: str) -> bool:
    """Say whether a process was started with this variable in its environment.

    A hint, no proof: a program may overwrite the place, and anybody may set a variable.
    """
    with suppress(OSError):
        return os.fsencode(f"{name}={value}") in read(f"/proc/{pid}/environ").split(b"\0")
    return False


def command_line(pid: int) -> str:
    """Give a process's command line for people: one line of at most 200 characters.

    It is ``[name]`` where there are no arguments (kernel threads, zombies), and empty when the
    process is gone. Every user can read it, and with it a password that somebody put there.
    """
    try:
        arguments = read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    line = b" ".join(arguments).decode(errors="backslashreplace")
    if not line:
        stat = _read_stat(pid)
        line = f"[{stat.command}]" if stat else ""
    return on_one_line(line, LONGEST_COMMAND_CHARS)


# --- acting on a process --------------------------------------------------------------------------


def open_pidfd(stat: Stat) -> int | None:
    """Open a descriptor of exactly this process; it is readable once the process has ended.

    Returns:
        The descriptor, for the caller to close; None when the process is gone, also when its number
        is another's now. A zombie still gets one, readable at once.
    """
    try:
        pidfd = os.pidfd_open(stat.pid)
    except OverflowError:
        return None
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL, errno.ENOENT):
            return None
        raise
    # In this order: the descriptor stays with one process, whatever becomes of the number.
    try:
        now = _read_stat(stat.pid)
    except BaseException:
        os.close(pidfd)
        raise
    if now is None or now.start_time != stat.start_time:
        os.close(pidfd)
        return None
    return pidfd


def signal_process(stat: Stat, signum: int) -> bool:
    """Send a signal to exactly this process, never to one that got its number later.

    Returns:
        True when it was sent; False when the process is gone, a zombie included.

    Raises:
        PermissionError: It is another user's.
        ValueError: It is this program itself or process 1, which are nobody's daemon.
    """
    if stat.pid in (_INIT_PID, os.getpid()):
        raise ValueError(f"process {stat.pid} is nobody's daemon; it is never signalled")
    pidfd = open_pidfd(stat)
    if pidfd is None:
        return False
    try:
        now = _read_stat(stat.pid)
        if now is None or now.dead:
            return False
        signal.pidfd_send_signal(pidfd, signum)
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)
    return True


# --- families of processes ------------------------------------------------------------------------


def tree_of(leader: Stat | int, stats: Mapping[int, Stat]) -> list[Stat]:
    """Find the living processes of a daemon, parents before their children.

    They are the leader, who is in the session or the process group that it leads, and all
    descendants of these. When the leader is gone, the rest is still found: the kernel gives no
    number again while a session or group bears it. When its number is another's now, there can be
    no rest, and the list is empty.

    This program, its ancestors and process 1 lead nobody and are never in the list, nor is what
    descends from the leader only through them.

    Args:
        leader: The daemon's main process; as a mere number it is believed.
        stats: What ``all_stats`` gave.
    """
    pid = leader if isinstance(leader, int) else leader.pid
    first = stats.get(pid)
    left_alone = _never_ours(stats)
    if pid in left_alone:
        return []
    if first and isinstance(leader, Stat) and first.start_time != leader.start_time:
        return []
    children = defaultdict(list)
    for stat in stats.values():
        children[stat.ppid].append(stat)
    waiting = [first] if first else []
    waiting += [stat for stat in stats.values() if stat.is_led_by(pid) and stat.pid != pid]
    found: dict[int, Stat] = {}
    while waiting:
        stat = waiting.pop(0)
        if stat.pid not in found and stat.pid not in left_alone:
            found[stat.pid] = stat
            waiting += children[stat.pid]
    return [stat for stat in found.values() if not stat.dead]


def is_descendant(pid: int, ancestor_pid: int) -> bool:
    """Say whether a process is another one, descends from it, or is in a session or group it leads.

    A descendant whose parents in between have ended still belongs to it if it kept the session.
    """
    seen: set[int] = set()
    while pid != ancestor_pid:
        stat = _read_stat(pid)
        # A number that was given again between two readings could close a circle.
        if stat is None or pid in seen:
            return False
        if stat.is_led_by(ancestor_pid):
            return True
        seen.add(pid)
        pid = stat.ppid
    return True


def _never_ours(stats: Mapping[int, Stat]) -> Collection[int]:
    """Give this program, its ancestors and process 1."""
    pids = {_INIT_PID, os.getpid()}
    stat = stats.get(os.getpid())
    while stat and stat.ppid not in pids:
        pids.add(stat.ppid)
        stat = stats.get(stat.ppid)
    return pids


# --- who listens, who calls -----------------------------------------------------------------------


def listeners_at(host: str, port: int) -> list[Listener]:
    """List who would get a connection to an address; ``answering`` says when it is several.

    None for an address of another machine. The address's own family is asked first: one that
    listens at exactly this address leaves none for the other family.
    A UNIX socket is its path, and port 0.
    """
    if host.startswith("/"):
        # By its file first: several may have been bound to a path, one after the other.
        inodes = listening_at_file(host) or unix_listeners(host)
        return [Listener(host, port, inode, uid=-1) for inode in inodes]
    if not _is_here(host):
        return []
    families = (
        (socket.AF_INET6, socket.AF_INET) if ":" in host else (socket.AF_INET, socket.AF_INET6)
    )
    found: list[Listener] = []
    for family in families:
        found += _listeners(family, port)
        best = answering(found, host)
        if any(listener.address == host for listener in best):
            break
    return answering(found, host)


def _is_here(host: str) -> bool:
    """Say whether an address, as digits, is one of this machine's own."""
    if host.startswith("127.") or host == "::1":
        return True
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            # Sends nothing, but chooses the source: to an address of one's own it is that address.
            probe.connect((host, 1))
            return bool(probe.getsockname()[0] == host)
    except OSError:
        return False


def _listeners(family: socket.AddressFamily, port: int) -> Iterator[Listener]:
    try:
        sockets = listening_sockets(family, port)
    except OSError:
        sockets = [row for row in _tcp_table() if _is_listening(row, family, port)]
    for row in sockets:
        yield Listener(row.local[0], port, row.inode, row.uid, row.interface, row.ipv6_only)


def _is_listening(row: TCPSocket, family: socket.AddressFamily, port: int) -> bool:
    is_ipv6 = ":" in row.local[0]
    return row.state == LISTEN and row.local[1] == port and is_ipv6 == (family == socket.AF_INET6)


def connection_uid(local: tuple[str, int], remote: tuple[str, int]) -> tuple[int, int] | None:
    """Find whose socket it is that stands at the other end of a connection within this machine.

    Args:
        local: The wanted socket's own address and port: what the server sees as its peer.
        remote: The address and port that it is connected to: the server's own.

    Returns:
        The user's number and the socket's inode. None when there is no such socket here, or when no
        process holds it any more: the kernel may then name user 0, and that would be root.
    """
    ends = _ends(local, remote)
    try:
        found = find_connection(*ends)
    except OSError:
        rows = (row for row in _tcp_table() if row.state != LISTEN)
        found = next((row for row in rows if ends == _ends(row.local, row.remote)), None)
    return (found.uid, found.inode) if found and found.inode else None


def _ends(
    local: tuple[str, int], remote: tuple[str, int]
) -> tuple[tuple[str, int], tuple[str, int]]:
    return (unmapped(local[0]), local[1]), (unmapped(remote[0]), remote[1])


def holds_socket(pid: int, inode: int) -> bool | None:
    """Say whether a process has a descriptor of this socket.

    Returns:
        None when that may not be known: the process is another user's.
    """
    try:
        with os.scandir(f"/proc/{pid}/fd") as descriptors:
            return any(_is_socket(descriptor.path, inode) for descriptor in descriptors)
    except PermissionError:
        return None
    except ABSENT:
        return False


def _is_socket(link: str, inode: int) -> bool:
    try:
        return os.readlink(link) == f"socket:[{inode}]"  # noqa: PTH115 - the target is no path
    except FileNotFoundError:  # closed since the listing
        return False


def holders_of(inode: int) -> Iterator[int]:
    """Find the processes that have a descriptor of this socket.

    It takes some 3 microseconds for each descriptor that is open on the machine.
    Where none is found, one may be another user's, which can't be looked at.
    """
    return (pid for pid in all_pids() if holds_socket(pid, inode))


def holder_of(inode: int) -> int | None:
    """Find one of them, or None."""
    return next(holders_of(inode), None)


def _tcp_table() -> Iterator[TCPSocket]:
    """Read what every kernel has; that takes a hundred times as long as asking over netlink."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(*ABSENT):  # no IPv6 here
            yield from map(parse_row, read(table).decode().splitlines()[1:])
