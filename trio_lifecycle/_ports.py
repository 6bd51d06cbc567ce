"""A free port, kept free for its daemon."""

import errno
import secrets
import socket
import sys
from types import TracebackType
from typing import Final, Self

from attrs import define, field, setters

# Linux's own; what this machine has stands in ip_local_port_range.
DEFAULT_EPHEMERAL: Final = range(32_768, 61_000)

# Well-known services live below, and so do ports that only root may have.
LOWEST_PORT: Final = 10_000
_LOWEST_UNPRIVILEGED: Final = 1_024
_END_OF_PORTS: Final = 65_536

# Fewer ports than this are soon used up, and two programs that begin at random meet too often.
SMALLEST_CHOICE: Final = 1_000

# A tenth of a millisecond each. A thousand taken ports in a row are no chance any more.
MOST_TRIES: Final = 1_000

# What a bind says where there is no IPv6.
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


@define(eq=False)
class ReservedPort:
    """A TCP port that no other program with this package gets until it is released.

    Attributes:
        number: The port.
    """

    number: int = field(on_setattr=setters.frozen)
    _mark: socket.socket = field(repr=False)

    def release(self) -> None:
        """Let others have the port; again is fine. The end of this program does the same."""
        self._mark.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def reserve_port(host: str = "127.0.0.1", *, ephemeral: range = DEFAULT_EPHEMERAL) -> ReservedPort:
    """Find a TCP port that nobody uses, and keep it from other programs that look for one, too.

    Nothing is bound to the port when this returns, so a daemon can bind it at once, without
    SO_REUSEADDR. It is kept by a mark: an abstract UNIX socket (unix(7)) that is named after the
    port. Like a port it belongs to the network namespace, and the kernel removes it when this
    program ends, however that happens. Programs that are executed do not inherit it; a mere fork
    does, and keeps the mark for as long as it lives.

    The port lies outside the range from which the kernel serves outgoing connections and port 0,
    so that only a program that asks for this very number can still take it.

    Args:
        host: Where the daemon will listen; an address of this machine, as digits.
        ephemeral: The range that the kernel serves itself from. Defaults to Linux's own; with one
            that is too small, some outgoing connection sooner or later has the port already.

    Raises:
        OSError: No port is free (EADDRINUSE), or ``host`` is no address of this machine
            (EADDRNOTAVAIL).
    """
    choice = choose_range(ephemeral)
    # Not from the random module, whose state a fork copies: two forks would try the same ports.
    start = secrets.randbelow(len(choice))
    for step in range(min(len(choice), MOST_TRIES)):
        number = choice[(start + step) % len(choice)]
        mark = _mark(number)
        if mark is None:
            continue
        # Looked at behind the mark: whoever has it looks alone.
        try:
            is_unused = _is_unused(host, number)
        except BaseException:
            mark.close()
            raise
        if is_unused:
            return ReservedPort(number, mark)
        mark.close()
    raise OSError(errno.EADDRINUSE, f"none of {MOST_TRIES} ports from {choice[start]} on is free")


def choose_range(ephemeral: range) -> range:
    """Say from which ports to choose: below the kernel's own, else above them, else among them."""
    below = range(LOWEST_PORT, min(ephemeral.start, _END_OF_PORTS))
    above = range(max(ephemeral.stop, LOWEST_PORT), _END_OF_PORTS)
    for choice in (below, above):
        if len(choice) >= SMALLEST_CHOICE:
            return choice
    return range(max(ephemeral.start, _LOWEST_UNPRIVILEGED), min(ephemeral.stop, _END_OF_PORTS))


def _mark(number: int) -> socket.socket | None:
    """Take the mark of a port, or None if somebody has it."""
    mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if sys.platform != "linux":
        # There are no abstract names elsewhere, so that others are not kept from it.
        return mark
    try:
        mark.bind(b"\0trio-lifecycle/port/%d" % number)
    except OSError as error:
        mark.close()
        if error.errno != errno.EADDRINUSE:
            raise
        return None
    return mark


def _is_unused(host: str, number: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return (
        _can_bind(socket.AF_INET, "0.0.0.0", number)
        and _can_bind_ipv6(number)
        and _can_bind(family, host, number)
    )


def _can_bind_ipv6(number: int) -> bool:
    try:
        return _can_bind(socket.AF_INET6, "::", number)
    except OSError as error:
        if error.errno in _NO_IPV6:
            return True
        raise


def _can_bind(family: int, address: str, number: int) -> bool:
    """Say whether a port is free at an address; the wildcard asks for all addresses at once.

    Without SO_REUSEADDR, which would let connections pass that have not quite ended (TIME_WAIT) and
    that a daemon without it would trip over.
    """
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if family == socket.AF_INET6:
            # Or the IPv6 wildcard would ask for IPv4, too, and refuse what one family alone has.
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            probe.bind((address, number))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True
