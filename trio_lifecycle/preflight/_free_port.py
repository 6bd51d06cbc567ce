"""A check that a port is free."""

import errno
import os
import socket
from typing import Final

import trio
from attrs import Attribute, field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._holders import describe_any_holder, describe_holder
from trio_lifecycle._urls import addresses
from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import Elsewhere, Told
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._port_told import describe_holder as holder_told
from trio_lifecycle.preflight._port_told import find_refusal, look_for
from trio_lifecycle.preflight._thread import in_thread

# A bind takes microseconds; to find out who holds the port takes 3 us for each descriptor that is
# open on the machine.
DEFAULT_CHECK_TIMEOUT_S: Final = 5.0

_HIGHEST_PORT: Final = 65_535

# What a bind says where there is no IPv6.
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)


def _is_port(check: object, attribute: "Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _HIGHEST_PORT:
        raise ConfigError(
            attribute.name,
            f"must be a port from 1 to {_HIGHEST_PORT}, not {value!r} (FREE_PORT needs no check)",
        )


def _is_host(check: object, attribute: "Attribute[str]", value: object) -> None:
    is_wildcard = value in ("0.0.0.0", "::")
    if not isinstance(value, str) or not (is_wildcard or addresses(value)):
        raise ConfigError(
            attribute.name, f"must be an address in digits, or 'localhost', not {value!r}"
        )


@frozen(repr=False)
class FreePort:
    """The port can be listened on, as a daemon with SO_REUSEADDR sees it.

    So connections that have not quite ended (TIME_WAIT) are in nobody's way. Where it fails, it
    says who listens there, by pid and command, as far as that can be seen.

    Attributes:
        port: The port.
        host: Where the daemon will listen: an address of this machine in digits, or ``localhost``,
            which is 127.0.0.1 and, where there is IPv6, ::1. Defaults to 127.0.0.1. ``0.0.0.0`` and
            ``::`` ask for the port at every address.
        wait_for_recovery: Seconds at most that a stop waits until the port is free again. Defaults
            to 0: it does not wait. A server that has handed its socket to another process frees it
            late.
        check_timeout: Seconds that the check may take. Defaults to 5, a thousand times what it
            takes; it is there for a machine that hangs.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    port: int = field(validator=_is_port)
    host: str = field(default="127.0.0.1", validator=_is_host)
    wait_for_recovery: float = field(default=0.0, converter=_values.wait_for_recovery, kw_only=True)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Try to have the port, for an instant.

        Raises:
            CheckFailed: It can't be had.
        """
        await trio.lowlevel.checkpoint()
        for address in self._addresses():
            number = _find_error(address, self.port)
            if not number or self._may_lack(number):
                continue
            is_taken = number == errno.EADDRINUSE
            holder = await in_thread(_describe, address, self.port) if is_taken else ""
            raise CheckFailed(self._explain(address, number, holder))

    def at(self, prober: Prober) -> Preflight:
        """Give the check of a port of the prober's machine, by who listens there."""
        return Elsewhere(
            self,
            prober,
            look_for(self.port, self._addresses()),
            f"whether port {self.port} of {self.host} is free",
            judge=self._judge_told,
            wait_for_recovery=self.wait_for_recovery,
        )

    def _judge_told(self, told: Told) -> None:
        for address in self._addresses():
            number = find_refusal(told, address, self.port)
            if number and not self._may_lack(number):
                raise CheckFailed(self._explain(address, number, holder_told(told, address)))

    def _may_lack(self, number: int) -> bool:
        return self.host.startswith("localhost") and number in _NO_IPV6

    async def recovery(self) -> Preflight:
        """Give the check itself: it was free before."""
        return self

    def _addresses(self) -> tuple[str, ...]:
        return (self.host,) if self.host in ("0.0.0.0", "::") else addresses(self.host)

    def _explain(self, address: str, number: int, holder: str) -> str:
        place = f"port {self.port} of {address}"
        match number:
            case errno.EADDRINUSE:
                return f"{place} is in use by {holder}: stop that, or choose another port"
            case errno.EACCES:
                return (
                    f"{place} may not be had by this user: choose one from 1024 on, "
                    "or give the program the capability CAP_NET_BIND_SERVICE"
                )
            case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
                return f"{place} can't be had: {address} is no address of this machine"
        return f"{place} can't be had: {os.strerror(number)}"


def _find_error(address: str, port: int) -> int:
    """Give the number of the error that a bind gives, or 0."""
    try:
        _bind(address, port)
    except OSError as error:
        return error.errno or 0
    return 0


def _bind(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((address, port))


def _describe(address: str, port: int) -> str:
    # A wildcard meets whoever has the port at any address.
    is_wildcard = address in ("0.0.0.0", "::")
    holder = describe_any_holder(port) if is_wildcard else describe_holder(address, port)
    return holder or describe_any_holder(port) or "a connection or a socket that does not listen"
