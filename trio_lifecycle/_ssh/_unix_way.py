"""The way to a UNIX socket of another machine, or why there is none."""

import errno

import trio

from trio_lifecycle._ssh._failures import UNIX_CURE
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_sockets import unix_listeners
from trio_lifecycle._ssh._transport import Transport
from trio_lifecycle._ssh_errors import SSHConnectError


async def open_unix(machine: Machine, path: str) -> trio.abc.HalfCloseableStream:
    """Connect to a UNIX socket, from there.

    OpenSSH says one thing of all that may be in the way: nobody listens, too many wait, this user
    may not connect, the server passes on no such connection. Only he is absent who does not listen;
    so that is looked at.

    Raises:
        OSError: Nobody takes the connection, or this user may not connect.
        SSHConnectError: The machine can't be reached, or its server passes nothing on.
        LostError: The connection to it is gone.
    """
    seen: frozenset[str] = frozenset()
    while True:
        transport = await machine.transport()
        try:
            stream = await transport.open_unix(path)
        except ConnectionRefusedError as error:
            refusal = error
        else:
            machine.passes_unix = transport
            return stream
        # Not where it is handled: it is no cause of what comes of the look.
        listening = await _listeners(machine, path)
        if not listening:
            raise refusal
        # A socket that was there before this try, too, refuses nobody.
        if seen & listening:
            raise _ignored(machine, transport, path) from None
        seen = listening


async def _listeners(machine: Machine, path: str) -> frozenset[str]:
    async def look(line: Line) -> frozenset[str]:
        return await unix_listeners(line, path)

    return await machine.look(look)


def _ignored(machine: Machine, transport: Transport, path: str) -> Exception:
    if machine.passes_unix is transport:
        return BlockingIOError(errno.EAGAIN, f"{path}: too many wait already")
    target = machine.target
    return SSHConnectError(
        target.host,
        target.user,
        target.port,
        f"connecting to {path} there",
        "the server does not pass it on, although somebody listens there",
        f"{UNIX_CURE} Else the daemon accepts none, and as many wait as may.",
    )
