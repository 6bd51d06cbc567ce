"""Ready when the daemon's port takes connections."""

from typing import Final

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT, Marker, fill, show
from trio_lifecycle._urls import addresses, check_host, loopback_addresses
from trio_lifecycle.abc import Prober, ReadyMode, Report, Sighting, Start
from trio_lifecycle.ready._connect_place import ConnectPlace
from trio_lifecycle.ready._filled import port_values
from trio_lifecycle.ready._polled import (
    DEFAULT_INTERVAL_S,
    DEFAULT_PROBE_TIMEOUT_S,
    ArmedPolled,
    check_interval,
    check_probe_timeout,
    find_there,
    whose_listener,
)

DEFAULT_HOST: Final = "127.0.0.1"


def _port(port: int | str) -> int | Marker:
    if port == FREE_PORT:
        return FREE_PORT
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
        shown = show(port) if isinstance(port, str) else port
        raise ConfigError("port", f"must be a number from 1 to 65535 or FREE_PORT, not {shown!r}")
    return port


def _host(host: str) -> str:
    return check_host("host", host)


@frozen
class TCPPort(ReadyMode):
    """Ready when a TCP connection to the daemon's port is taken.

    On an address of this machine, given as digits or as ``localhost``, it must be the daemon's own
    processes that listen. The connection is closed at once; some daemons write a line about that.

    That a connection is taken means only that the program listens: the kernel takes connections for
    it from then on. etcd and PostgreSQL listen long before they serve, and so do many others. Where
    a program can be asked whether it serves, use that: ``HealthCheck``, ``GRPCHealth``, ``Exec``.
    Through a socket that is passed to the daemon, it is ready when it has accepted a connection.

    Attributes:
        port: The port: a number, or FREE_PORT.
        host: The host. Defaults to 127.0.0.1. ``localhost`` means 127.0.0.1, then ::1.
        interval: Seconds between two probes at most. Defaults to 0.1; the pause grows up to it from
            1 ms. Above 1 the news of readiness is late.
        probe_timeout: Seconds that one probe may take. Defaults to 1. On this machine a connection
            is taken or refused at once.
    """

    port: int | Marker = field(converter=_port)
    host: str = field(default=DEFAULT_HOST, converter=_host)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval, kw_only=True)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )

    @property
    def texts(self) -> tuple[str, ...]:
        """The host and the port."""
        return (self.host, str(self.port))

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> ArmedPolled:
        """Nothing is to be taken."""
        port = int(fill(str(self.port), port_values(start)))
        places = self._places(start.prober, port, start)
        return ArmedPolled(start, self._shown(port), places, Report(None, port), self.interval)

    async def arm_again(self, start: Start) -> ArmedPolled:
        """Ask the port that the daemon has."""
        return await self.arm(start)

    async def arm_unfinished(self, start: Start) -> ArmedPolled | None:
        """Ask it; None where it may be passed, for then the system takes the connection."""
        return None if start.passes_sockets else await self.arm(start)

    async def find_running(self, prober: Prober) -> Sighting | None:
        """Send one probe, if the port is known before the spawn."""
        if isinstance(self.port, Marker):
            return None
        places = self._places(prober, self.port, None)
        return await find_there(places, self._shown(self.port), Report(None, self.port))

    def _places(self, prober: Prober, port: int, start: Start | None) -> list[ConnectPlace]:
        here = loopback_addresses(self.host)
        hosts = here if len(here) > 1 else (self.host,)
        return [self._place(prober, host, port, start) for host in hosts]

    def _place(self, prober: Prober, host: str, port: int, start: Start | None) -> ConnectPlace:
        address = next(((digits, port) for digits in addresses(host)), None)
        return ConnectPlace(
            lambda: prober.connect(host, port),
            address,
            lambda process, is_up: whose_listener(process, address, is_up),
            self.probe_timeout,
            start,
        )

    def _shown(self, port: int) -> str:
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"
