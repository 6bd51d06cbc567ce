"""Forwards: a port of this machine that leads to one where a daemon runs."""

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio

Opener = Callable[[], Awaitable[trio.abc.HalfCloseableStream]]

# As much as one read of a channel brings at most.
_READ_BYTES: Final = 65_536

# The pause when this program has no descriptor or memory for one more connection.
_CAPACITY_PAUSE_S: Final = 0.05

_log: Final = logging.getLogger("trio_lifecycle")


class Forward:
    """A port of a loopback address; who connects there talks to the daemon.

    Args:
        host: The loopback address of this machine to listen at.
        open_there: Makes a connection to the daemon. What it raises of OSError hangs up on who has
            connected here.

    Attributes:
        port: The port.
        users: For how many daemons it is kept, where no nursery ends it.
    """

    def __init__(self, host: str, open_there: Opener) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family) as listener:
            listener.bind((host, 0))
            listener.listen()
            self.port: Final[int] = listener.getsockname()[1]
            self._listener = trio.socket.from_stdlib_socket(listener.dup())
        self.users = 0
        self._open_there = open_there
        self._scope = trio.CancelScope()

    @trio.lowlevel.enable_ki_protection
    async def run(self) -> None:
        """Serve until cancelled, or ended."""
        with self._listener, self._scope:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        connection, _ = await self._listener.accept()
                    except (ConnectionError, BlockingIOError):  # whoever knocked is gone
                        continue
                    except OSError:
                        await trio.sleep(_CAPACITY_PAUSE_S)
                        continue
                    nursery.start_soon(self._serve, trio.SocketStream(connection))

    @trio.lowlevel.enable_ki_protection
    async def _serve(self, here: trio.SocketStream) -> None:
        try:
            async with here:
                there = await self._open_there()
                async with there:
                    await join(here, there)
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # whoever has connected sees that its connection ends
        except Exception as error:
            _log.warning("a connection to port %d could not be passed on: %s", self.port, error)

    def end(self) -> None:
        """Have ``run`` end, with all connections. Again is fine."""
        self._scope.cancel()

    def close(self) -> None:
        """Listen no more, if nobody serves. Again is fine."""
        self._listener.close()


async def join(one: trio.abc.HalfCloseableStream, other: trio.abc.HalfCloseableStream) -> None:
    """Pass on all that either says to the other, until both have said all."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_pass_on, one, other)
        nursery.start_soon(_pass_on, other, one)


@trio.lowlevel.enable_ki_protection
async def _pass_on(
    source: trio.abc.HalfCloseableStream, target: trio.abc.HalfCloseableStream
) -> None:
    try:
        while data := await source.receive_some(_READ_BYTES):
            await target.send_all(data)
        await target.send_eof()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        # The connection is of no more use in either direction.
        await trio.aclose_forcefully(source)
        await trio.aclose_forcefully(target)
