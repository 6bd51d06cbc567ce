"""A socket that is open before its daemon is there, as it is written into a configuration."""

import ipaddress
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT, Marker

DEFAULT_HOST: Final = "127.0.0.1"

# What Linux permits at most by default since 5.4 (net.core.somaxconn); more is cut to that.
DEFAULT_BACKLOG: Final = 4_096
DEFAULT_MODE: Final = 0o600

# struct sockaddr_un, unix(7): 108 bytes with the NUL at the end.
LONGEST_SOCKET_PATH_BYTES: Final = 107

# sd_listen_fds(3): printable ASCII without the colon that separates them.
_NAME: Final = re.compile(r"[ -9;-~]{1,255}")

# What sd_listen_fds(3) itself calls one without a name.
UNNAMED: Final = "unknown"

_HIGHEST_PORT: Final = 65_535

# As many descriptors as a daemon can be given: DESCRIPTOR_NUMBERS.
_MOST_SOCKETS: Final = 247


def _host(host: str) -> str:
    if host == "localhost":
        return DEFAULT_HOST
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        problem = f"host must be an address of this machine in digits, or localhost, not {host!r}"
        raise ConfigError("listen", problem) from None


def _port(port: "int | Marker | None") -> "int | Marker | None":
    if port is None or port == FREE_PORT:
        return port
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= _HIGHEST_PORT:
        problem = f"port must be FREE_PORT or a number from 1 to {_HIGHEST_PORT}, not {port!r}"
        raise ConfigError("listen", problem)
    return port


def _path(path: "str | os.PathLike[str] | None") -> Path | None:
    if path is None:
        return None
    text: object = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError("listen", f"unix must be the path of a socket file, not {path!r}")
    if len(os.fsencode(text)) > LONGEST_SOCKET_PATH_BYTES:
        problem = f"the path {text!r} is longer than {LONGEST_SOCKET_PATH_BYTES} bytes (unix(7))"
        raise ConfigError("listen", problem)
    return Path(text)


def _name(name: str | None) -> str | None:
    value: object = name
    if value is not None and not (isinstance(value, str) and _NAME.fullmatch(value)):
        problem = (
            "a name has 1 to 255 printable ASCII characters and no colon "
            f"(sd_listen_fds(3)), not {name!r}"
        )
        raise ConfigError("listen", problem)
    return name


def _mode(mode: int | None) -> int | None:
    if mode is not None and (isinstance(mode, bool) or mode not in range(0o1000)):
        raise ConfigError("listen", f"mode must be permissions such as 0o660, not {mode!r}")
    return mode


def _backlog(backlog: int) -> int:
    value: object = backlog
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 2**31:
        raise ConfigError("listen", f"backlog must be a number from 1 on, not {backlog!r}")
    return backlog


@frozen
class ListenSocket:
    """A socket that this program binds and listens on, and its daemon accepts from.

    It is open before the daemon is spawned, so nobody is refused meanwhile: connections wait in it.
    The daemon finds it by systemd's protocol, sd_listen_fds(3): the sockets are its descriptors 3,
    4, ... in the order of ``listen``, as LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID say. They are
    blocking, as from systemd.

    Attributes:
        host: The address, in digits, or ``localhost``, which is the default: 127.0.0.1. 0.0.0.0 and
            :: are all addresses of their family.
        port: The TCP port: a number, or FREE_PORT, for which the kernel chooses one. FREE_PORT is
            then this one wherever it stands, and nobody else can ever have it.
        unix: The path of a UNIX socket instead. A file that a dead listener has left there is
            replaced, and it is removed at the end. The directory must exist.
        mode: The permissions of that file. Defaults to 0o600. With more, other users may connect.
        name: What LISTEN_FDNAMES calls it. Defaults to ``unknown``, as in systemd.
        backlog: How many connections may wait. Defaults to 4,096; the kernel cuts it to
            net.core.somaxconn. With few, clients of a daemon that is restarted are kept from
            connecting.

    Raises:
        ConfigError: A value can't be meant.
    """

    host: str = field(default=DEFAULT_HOST, converter=_host)
    port: "int | Marker | None" = field(default=None, converter=_port)
    unix: Path | None = field(default=None, converter=_path, kw_only=True)
    mode: int | None = field(default=None, converter=_mode, kw_only=True)
    name: str | None = field(default=None, converter=_name, kw_only=True)
    backlog: int = field(default=DEFAULT_BACKLOG, converter=_backlog, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if (self.port is None) == (self.unix is None):
            raise ConfigError("listen", "a ListenSocket has either a port or unix=PATH")
        if self.unix is not None and self.host != DEFAULT_HOST:
            raise ConfigError("listen", "a UNIX socket has no host")
        if self.unix is None and self.mode is not None:
            raise ConfigError("listen", "mode is for the file of a UNIX socket")

    def __str__(self) -> str:
        if self.unix is not None:
            return str(self.unix)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port!r}"

    @property
    def is_free_port(self) -> bool:
        """Whether the kernel chooses its port."""
        return self.port == FREE_PORT

    @property
    def address(self) -> tuple[str, str]:
        """What no two sockets have in common."""
        return (self.host, str(self.port)) if self.unix is None else ("", str(self.unix))


def read_listen(sockets: Iterable[ListenSocket]) -> tuple[ListenSocket, ...]:
    """Read the field ``listen`` of a configuration.

    Raises:
        ConfigError: It is no list of sockets, or two of them can't be had together.
    """
    value: object = sockets
    if isinstance(value, (ListenSocket, str)) or not isinstance(value, Iterable):
        raise ConfigError(
            "listen", f"must be a list such as [ListenSocket(port=8080)], not {value!r}"
        )
    listed = tuple(sockets)
    for one in listed:
        if not isinstance(one, ListenSocket):
            raise ConfigError("listen", f"must be a list of ListenSocket(...), not of {one!r}")
    if len(listed) > _MOST_SOCKETS:
        raise ConfigError("listen", f"can hold {_MOST_SOCKETS} sockets, not {len(listed)}")
    if sum(one.is_free_port for one in listed) > 1:
        raise ConfigError("listen", "FREE_PORT is one port, so only one socket can have it")
    if len({one.address for one in listed}) < len(listed):
        raise ConfigError("listen", "names the same address twice")
    return listed
