"""Which machine is meant, who logs in there, and how it is known to be the right one."""

import os
import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Final, TypeAlias

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle._texts import check_text


class LeftOut(Enum):
    """What stands where the caller said nothing, which is not the same as ``None``."""

    LEFT_OUT = "left out"

    def __repr__(self) -> str:
        return self.name


LEFT_OUT: Final = LeftOut.LEFT_OUT

# A machine that is up answers in well under a second; one behind a bad line, in two or three.
DEFAULT_CONNECT_TIMEOUT_S: Final = 10.0

# A dead connection is noticed after 20 s at most. Shorter, a machine that swaps is taken for lost.
DEFAULT_KEEPALIVE_INTERVAL_S: Final = 5.0
DEFAULT_KEEPALIVE_COUNT: Final = 3

_Path: TypeAlias = str | os.PathLike[str]
Paths: TypeAlias = _Path | Sequence[_Path]

_AUTHORITY: Final = re.compile(
    r"(?:(?P<user>[^@]+)@)?(?P<host>[^@:\[\]]+|\[(?P<v6>[^\]]+)\])(?::(?P<port>\d+))?"
)
# What a shell, or whoever splits a command into words, would take for more than a part of a name:
# ProxyCommand and Match exec of a configuration may hold the host and the user. As in ssh(1).
_META: Final = re.compile(r"['\"`$\\;&<>|(){}\s]")
_PUBLIC_KEY: Final = re.compile(r"[a-z0-9][\w.@-]* [A-Za-z0-9+/]{16,}={0,2}(?: [^\0\r\n]*)?")


def _is_odd(text: str, more: str) -> bool:
    return _META.search(text) is not None or any(char in text for char in more)


def _host(host: object) -> str:
    """Check a host, which may be an alias of the configuration as well."""
    text = check_text("host", host)
    if not text or text.startswith("-") or not text.isprintable() or _is_odd(text, "/@,"):
        raise ConfigError(
            "host",
            f"must be a machine such as 'gpu-2', not {text!r}; who logs in there is user=, and the "
            "way through other machines is tunnel=",
        )
    return text


def _user(user: object) -> str | None:
    if user is None:
        return None
    text = check_text("user", user)
    if not text or text.startswith("-") or not text.isprintable() or _is_odd(text, ""):
        raise ConfigError("user", f"must be a login name such as 'worker', not {text!r}")
    return text


def _port(port: object) -> int | None:
    if port is None:
        return None
    if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigError("port", f"must be a number from 1 to 65535, not {port!r}")
    return port


def _paths(name: str, value: object) -> tuple[str, ...]:
    """Give one path or several as absolute ones; ``~`` is the user's home."""
    several = [value] if isinstance(value, (str, os.PathLike)) else value
    if not isinstance(several, Sequence) or isinstance(several, bytes):
        raise ConfigError(name, f"must be a path or a list of paths, not {type(value).__name__}")
    return tuple(_path(name, path) for path in several)


def _path(name: str, value: object) -> str:
    text = check_text(name, value)
    if not text:
        raise ConfigError(name, "'' is no path")
    try:
        return str(Path(text).expanduser().absolute())
    except RuntimeError as error:
        raise ConfigError(name, f"{text!r} leads to no home directory: {error}") from error


def _config(value: object) -> tuple[str, ...] | LeftOut:
    return value if isinstance(value, LeftOut) else () if value is None else _paths("config", value)


def _known_hosts(value: object) -> tuple[str, ...] | LeftOut:
    if isinstance(value, LeftOut):
        return value
    if value is None or callable(value):
        raise ConfigError(
            "known_hosts",
            "must be the path of a file or a list of paths: host keys are always checked. For a "
            "new machine, give its public key as host_key",
        )
    return _paths("known_hosts", value)


def _client_keys(value: object) -> tuple[str, ...] | LeftOut:
    if isinstance(value, LeftOut):
        return value
    paths = () if value is None else _paths("client_keys", value)
    if not paths:
        raise ConfigError(
            "client_keys", "must name at least one private key; left out, the user's own are used"
        )
    return paths


def _agent(value: object) -> str | LeftOut | None:
    return value if value is None or isinstance(value, LeftOut) else _path("agent", value)


def _host_keys(value: object) -> tuple[str, ...]:
    """Check keys in the form of OpenSSH's public keys; what they say is not read here."""
    keys = [value] if isinstance(value, str) else value
    if keys is None:
        return ()
    if not isinstance(keys, Sequence) or isinstance(keys, bytes):
        raise ConfigError("host_key", f"must be a text or a list, not {type(value).__name__}")
    for key in keys:
        if not isinstance(key, str) or not _PUBLIC_KEY.fullmatch(key.strip()):
            raise ConfigError(
                "host_key",
                f"must be a public key such as 'ssh-ed25519 AAAAC3Nz...', not {str(key)[:80]!r}; "
                "on the machine it is a line of /etc/ssh/ssh_host_ed25519_key.pub",
            )
    return tuple(" ".join(key.split()[:2]) for key in keys)


def _passphrase(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ConfigError("passphrase", f"must be a string, not {type(value).__name__}")
    return value


def _timeout(value: float) -> float:
    return check_seconds("connect_timeout", value)


def _interval(value: float | LeftOut) -> float | LeftOut:
    return value if isinstance(value, LeftOut) else check_seconds("keepalive_interval", value)


def _count(value: object) -> int | LeftOut:
    if isinstance(value, LeftOut):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 1000:
        raise ConfigError("keepalive_count", f"must be a number from 1 to 1000, not {value!r}")
    return value


def _tunnel(value: object) -> Any:
    if value is None or isinstance(value, (str, SSHTarget, LeftOut)):
        return value
    raise ConfigError("tunnel", f"must be an SSHTarget or such as 'user@host', not {value!r}")


@frozen(kw_only=True)
class SSHTarget:
    """A machine that is reached over SSH, and how; equal ones share one connection.

    Args:
        host: Its name or address, or a ``Host`` of the configuration.
        user: Who logs in; left out, the configuration's ``User``, or who runs this program.
        port: Left out, the configuration's, or 22.
        config: Files in the form of ssh_config(5). Left out, ``~/.ssh/config``; None is none.
        known_hosts: Files of known host keys. Left out, the configuration's, or
            ``~/.ssh/known_hosts`` and ``/etc/ssh/ssh_known_hosts``. One that is not there knows no
            machine.
        host_key: Its public keys, as OpenSSH writes them. With any, only these are accepted.
        client_keys: Files of private keys. Left out, the configuration's, or those in ``~/.ssh``.
        passphrase: What unlocks the private keys.
        agent: Socket of the agent that holds keys. Left out, the configuration's, or
            ``SSH_AUTH_SOCK``; None is none.
        tunnel: The machine to go through, as a target of its own or as ``"user@host:port"``, then
            with this one's files and keys; several are parted by commas, the nearest first. Left
            out, the configuration's ``ProxyJump``; None is none.
        connect_timeout: Seconds until a connection must stand, with all attempts. Defaults to 10.
        keepalive_interval: Seconds of silence after which the machine is asked whether it is still
            there. Left out, the configuration's ``ServerAliveInterval``, or 5.
        keepalive_count: Questions that may stay without an answer; at the next one, the connection
            is lost. Left out, the configuration's ``ServerAliveCountMax``, or 3.

    Raises:
        ConfigError: A value can't be meant; names the field.
    """

    host: str = field(converter=_host)
    user: str | None = field(default=None, converter=_user)
    port: int | None = field(default=None, converter=_port)
    config: tuple[str, ...] | LeftOut = field(default=LEFT_OUT, converter=_config)
    known_hosts: tuple[str, ...] | LeftOut = field(default=LEFT_OUT, converter=_known_hosts)
    host_key: tuple[str, ...] = field(default=(), converter=_host_keys)
    client_keys: tuple[str, ...] | LeftOut = field(default=LEFT_OUT, converter=_client_keys)
    passphrase: str | None = field(default=None, converter=_passphrase, repr=False)
    agent: str | LeftOut | None = field(default=LEFT_OUT, converter=_agent)
    connect_timeout: float = field(default=DEFAULT_CONNECT_TIMEOUT_S, converter=_timeout)
    keepalive_interval: float | LeftOut = field(default=LEFT_OUT, converter=_interval)
    keepalive_count: int | LeftOut = field(default=LEFT_OUT, converter=_count)
    tunnel: "SSHTarget | LeftOut | None" = field(default=LEFT_OUT, converter=_tunnel)

    def __attrs_post_init__(self) -> None:
        tunnel: object = self.tunnel
        if isinstance(tunnel, str):
            # A frozen value's own hand: the hops take over what it says of files and keys.
            object.__setattr__(self, "tunnel", self.through(tunnel, None))

    def __str__(self) -> str:
        user = "" if self.user is None else f"{self.user}@"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" if self.port is None else f"{user}{host}:{self.port}"

    def through(self, hops: str, first: "SSHTarget | LeftOut | None") -> "SSHTarget":
        """Give the last of some hops, which are reached one through the other.

        Args:
            hops: As ssh_config(5) has them in ``ProxyJump``, without ``ssh://``.
            first: What the first one is reached through.
        """
        tunnel: SSHTarget | LeftOut | None = first
        for hop in hops.split(","):
            tunnel = self._hop(hop.strip(), tunnel)
        assert isinstance(tunnel, SSHTarget)
        return tunnel

    def _hop(self, hop: str, tunnel: "SSHTarget | LeftOut | None") -> "SSHTarget":
        parts = _AUTHORITY.fullmatch(hop)
        if parts is None:
            raise ConfigError("tunnel", f"must be such as 'user@host:22', not {hop!r}")
        try:
            return SSHTarget(
                host=parts["v6"] or parts["host"],
                user=parts["user"],
                port=None if parts["port"] is None else int(parts["port"]),
                config=self.config,
                known_hosts=self.known_hosts,
                client_keys=self.client_keys,
                passphrase=self.passphrase,
                agent=self.agent,
                connect_timeout=self.connect_timeout,
                keepalive_interval=self.keepalive_interval,
                keepalive_count=self.keepalive_count,
                tunnel=tunnel,
            )
        except ConfigError as error:
            raise ConfigError("tunnel", f"{hop!r} leads nowhere: {error.problem}") from error
