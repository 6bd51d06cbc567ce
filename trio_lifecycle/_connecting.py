"""Connecting: on this machine at once; and what the errors of it mean."""

import errno
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import trio

# A host in digits and a port, or the path of a UNIX socket.
Address = tuple[str, int] | str

# What a machine without IPv6 says of ::1, such as most containers.
_NO_IPV6: Final = frozenset({errno.EADDRNOTAVAIL, errno.ENETUNREACH, errno.EAFNOSUPPORT})

# What connect(2) says of a path that leads nowhere.
_NO_PATH: Final = frozenset({errno.ENOENT, errno.ENOTDIR})

# Errors of connect(2) that mean: nothing is there. A time-out is not among them: it means that
# nobody knows.
_ABSENT: Final = frozenset({errno.ECONNREFUSED, errno.EHOSTUNREACH, *_NO_IPV6, *_NO_PATH})

# What a resolver says when it is sure (getaddrinfo(3)). With EAI_AGAIN and EAI_FAIL nobody knows.
_NO_SUCH_HOST: Final = frozenset({socket.EAI_NONAME, socket.EAI_NODATA})

REFUSED: Final = "refused the connection"

# struct ucred of unix(7): pid, user, group.
_CREDENTIALS: Final = struct.Struct("=iII")

# struct linger of socket(7): closed by a reset, there is no TIME_WAIT.
_RESET: Final = struct.pack("=ii", 1, 0)


def new_socket(address: Address) -> socket.socket:
    """Give a socket for an address of this machine; it never blocks."""
    if isinstance(address, str):
        family = socket.AF_UNIX
    else:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family)
    sock.setblocking(False)
    return sock


def connect_now(sock: socket.socket, address: Address) -> int:
    """Connect to an address of this machine; give the number of the error, or 0.

    With 0 the connection may still be on its way, if the listener's queue is full.
    """
    error = sock.connect_ex(address)
    if error == errno.EINPROGRESS:
        # What a loopback connection came to is known by now, unless that queue is full.
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if not error and not isinstance(address, str) and reaches_itself(sock):
        return errno.ECONNREFUSED
    return error


def reaches_itself(sock: "socket.socket | trio.socket.SocketType") -> bool:
    """Say whether a connection has its own other end; if so, nothing stays of it once it is closed.

    Where nobody listens, the kernel may choose the very port that is connected to as the one to
    connect from: RFC 9293 section 3.5, a simultaneous open. It would then keep the daemon from its
    port, for a minute more than it lasts.
    """
    try:
        if sock.getsockname() != sock.getpeername():
            return False
    except OSError:  # on its way still
        return False
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return True


def explain_here(address: Address, number: int) -> tuple[str, bool]:
    """Say why an address of this machine can't be connected to, and whether nothing is there."""
    if number == errno.ECONNREFUSED:
        return REFUSED, True
    if isinstance(address, str):
        if number == errno.EAGAIN:
            return "could not be connected to (too many wait already)", False
        is_missing = number in _NO_PATH
    else:
        is_missing = ":" in address[0] and number in _NO_IPV6
    return f"could not be connected to ({os.strerror(number)})", is_missing


def explain(error: BaseException) -> tuple[str, bool]:
    """Say why a connection to anywhere failed, and whether nothing is there."""
    for cause in causes(error):
        if isinstance(cause, socket.gaierror):
            problem = f"has a host that can't be resolved ({cause.strerror})"
            return problem, cause.errno in _NO_SUCH_HOST
        if isinstance(cause, OSError) and cause.errno in _ABSENT:
            return f"could not be connected to ({os.strerror(cause.errno)})", True
    return f"could not be connected to ({reason(error)})", False


def causes(error: BaseException | None) -> list[BaseException]:
    """Give an error and all that it came from.

    Httpx wraps the socket's error three deep, one of them a group.
    """
    if error is None:
        return []
    inside = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    below = [cause for each in inside for cause in causes(each)]
    return [error, *below, *causes(error.__cause__ or error.__context__)]


def reason(error: BaseException) -> str:
    """Say what went wrong, in a few words."""
    # The innermost error says most: of a certificate that is not trusted, only that one speaks.
    said = (str(cause) for cause in reversed(causes(error)))
    return next(filter(None, said), type(error).__name__)


def listener_pid(sock: socket.socket) -> int | None:
    """Say who has called listen(2) at the other end of a UNIX socket: SO_PEERCRED of unix(7).

    None where that can't be told, as of a process in another pid namespace.
    """
    if sys.platform != "linux":
        return None
    found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid: int = _CREDENTIALS.unpack(found)[0]
    return pid or None
