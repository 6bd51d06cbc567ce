"""A free port of another machine."""

import trio

from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._ssh import _remote_sockets
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_sockets import RemotePort
from trio_lifecycle._ssh._session import LostError


async def reserve_port(machine: Machine) -> "ReservedThere":
    """Choose a port there, and keep others from it.

    Raises:
        OSError: None is free.
        SSHConnectError: The machine can't be reached.
    """
    lines: list[Line] = []

    async def look(line: Line) -> RemotePort:
        lines[:] = [line]
        return await _remote_sockets.reserve_port(line)

    port = await machine.look(look)
    return ReservedThere(lines[0], port)


class ReservedThere:
    """A port that nobody else who asks will get there until it is released."""

    def __init__(self, line: Line, port: RemotePort) -> None:
        self._line = line
        self._port = port
        self._is_held = True

    @property
    def number(self) -> int:
        """The port."""
        return self._port.number

    def release(self) -> None:
        """Let others have it, in a task of its own. Calling it again is fine."""
        if self._is_held:
            self._is_held = False
            trio.lowlevel.spawn_system_task(self._release, name=f"release port {self.number}")

    async def _release(self) -> None:
        try:
            await _remote_sockets.release_port(self._line, self._port)
        except (LostError, LifecycleError):
            pass  # the line's end does the same
