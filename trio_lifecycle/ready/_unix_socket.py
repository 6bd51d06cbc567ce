"""Ready when the daemon's UNIX socket takes connections."""

import os

from attrs import field, frozen

from trio_lifecycle._markers import markers_in, show
from trio_lifecycle.abc import Prober, ReadyMode, Report, Sighting, Start
from trio_lifecycle.ready._connect_place import ConnectPlace
from trio_lifecycle.ready._polled import (
    DEFAULT_INTERVAL_S,
    DEFAULT_PROBE_TIMEOUT_S,
    ArmedPolled,
    check_interval,
    check_probe_timeout,
    find_there,
)
from trio_lifecycle.ready._unix_place import check_socket_path, socket_path, whose_socket


def _path(path: str | os.PathLike[str]) -> str:
    return check_socket_path("path", path)


@frozen(repr=False)
class UnixSocket(ReadyMode):
    """Ready when a connection to the daemon's UNIX socket is taken.

    It must be a stream socket, and the daemon's own processes must listen there. A socket that was
    left behind takes no connection. As with ``TCPPort``, a program that takes connections need not
    serve yet, and a socket that is passed to it must have accepted one.

    Attributes:
        path: The socket's path, 107 bytes at most. It may hold FREE_PORT. A relative one is
            relative to the daemon's ``working_dir``, and is asked only after the spawn.
        interval: Seconds between two probes at most. Defaults to 0.1; the pause grows up to it from
            1 ms. Above 1 the news of readiness is late.
        probe_timeout: Seconds that one probe may take. Defaults to 1. A connection is taken or
            refused at once.
    """

    path: str = field(converter=_path)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval, kw_only=True)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        limits = f"interval={self.interval}, probe_timeout={self.probe_timeout}"
        return f"UnixSocket({show(self.path)!r}, {limits})"

    @property
    def texts(self) -> tuple[str, ...]:
        """The path."""
        return (self.path,)

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> ArmedPolled:
        """Nothing is to be taken.

        Raises:
            ConfigError: With the daemon's directory the path is too long.
        """
        path = socket_path("path", self.path, start)
        place = self._place(start.prober, path, start)
        return ArmedPolled(start, path, [place], Report(None, start.port), self.interval)

    async def arm_again(self, start: Start) -> ArmedPolled:
        """Ask the same socket."""
        return await self.arm(start)

    async def arm_unfinished(self, start: Start) -> ArmedPolled | None:
        """Ask it; None where it may be passed, for then the system takes the connection."""
        return None if start.passes_sockets else await self.arm(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Send one probe, if the path is known before the spawn."""
        if markers_in([self.path]) or not self.path.startswith("/"):
            return None
        place = self._place(prober, self.path, None)
        return await find_there([place], self.path, Report())

    def _place(self, prober: Prober, path: str, start: Start | None) -> ConnectPlace:
        return ConnectPlace(
            lambda: prober.connect_unix(path),
            (path, 0),
            lambda process, is_up: whose_socket(prober, process, path, is_up),
            self.probe_timeout,
            start,
        )
