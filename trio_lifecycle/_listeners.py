"""Listeners: which of the sockets on a port the kernel gives a connection to."""

from collections.abc import Iterable
from typing import NamedTuple


class Listener(NamedTuple):
    """A TCP socket that waits for connections.

    Attributes:
        address: Where it listens, such as ``127.0.0.1``, ``0.0.0.0`` or ``::``.
        port: Its port.
        inode: What links in /proc/PID/fd call it.
        uid: The user who made it.
        interface: The index of the network interface that it is bound to, or 0.
        ipv6_only: True for an IPv6 socket that takes no IPv4 connections. False also where that
            can't be seen.
    """

    address: str
    port: int
    inode: int
    uid: int
    interface: int = 0
    ipv6_only: bool = False


def answering(listeners: Iterable[Listener], host: str) -> list[Listener]:
    """Say which of these sockets the kernel gives a connection to an address of this machine.

    Args:
        listeners: All who listen on the port.
        host: The address that is connected to, as digits.

    Returns:
        Several when they share the port on purpose (SO_REUSEPORT); none when the connection would
        be refused.
    """
    scored = [(_score(listener, host), listener) for listener in listeners]
    best = max((score for score, _ in scored), default=0)
    return [listener for score, listener in scored if score == best and score > 0]


def _score(listener: Listener, host: str) -> int:
    """Rank as the kernel does: an exact address, then an interface or a family of its own.

    This is ``compute_score`` of net/ipv4/inet_hashtables.c and net/ipv6/inet6_hashtables.c, which
    is asked for the exact address first and for the wildcard after that.
    """
    wants_ipv6 = ":" in host
    if listener.ipv6_only and not wants_ipv6:
        return 0
    address = unmapped(listener.address)
    is_exact = address == host
    if not is_exact and address not in (("::",) if wants_ipv6 else ("0.0.0.0", "::")):
        return 0
    is_of_family = wants_ipv6 or ":" not in listener.address
    return 4 * is_exact + (2 if listener.interface else 1) + is_of_family


def unmapped(address: str) -> str:
    """Give an IPv4 address that an IPv6 socket wears as ``::ffff:127.0.0.1`` its plain form."""
    return address.removeprefix("::ffff:") if "." in address else address
