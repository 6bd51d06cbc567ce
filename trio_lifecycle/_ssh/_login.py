"""How a connection is made: what the configuration says, whose key is accepted, who logs in."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from attrs import define, field

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ssh._bridge import Bridge
from trio_lifecycle._ssh._failures import (
    CHECKING,
    CONNECTING,
    LOGGING_IN,
    Progress,
    explain_setting,
)
from trio_lifecycle._ssh._target import (
    DEFAULT_KEEPALIVE_COUNT,
    DEFAULT_KEEPALIVE_INTERVAL_S,
    LEFT_OUT,
    LeftOut,
    SSHTarget,
)
from trio_lifecycle._ssh_errors import SSHConnectError

if TYPE_CHECKING:
    import asyncssh

_USERS_FILES: Final = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_MACHINES_FILES: Final = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


def require_asyncssh() -> Any:
    """Import asyncssh, which takes a fifth of a second.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        import asyncssh
    except ImportError as error:
        raise ConfigError(
            "host", "SSH needs more packages: pip install 'trio-lifecycle[ssh]'"
        ) from error
    return asyncssh


@define(eq=False)
class Login:
    """One attempt to get into a machine: what is known before, and what was seen.

    Attributes:
        hops: The ``ProxyJump`` of the configuration.
        address: Where its server is connected to, unless that is another's work.
    """

    target: SSHTarget
    progress: Progress
    settings: dict[str, Any]
    hops: str | None
    address: tuple[str, int] | None
    keepalive_interval: float
    keepalive_count: int
    pinned: "list[asyncssh.SSHKey]" = field(factory=list)

    @property
    def silence_limit_s(self) -> float:
        """How long the machine may be silent, or this program, until the other gives it up."""
        return self.keepalive_interval * self.keepalive_count


async def prepare(bridge: Bridge, target: SSHTarget) -> Login:
    """Read the configuration, without connecting to anything.

    Raises:
        SSHConnectError: It can't be read.
        ConfigError: A pinned key is none.
    """
    asyncssh = require_asyncssh()
    progress = Progress(target.host, target.user, target.port)
    settings = _settings(target)
    progress.keys = () if isinstance(target.client_keys, LeftOut) else target.client_keys
    pinned = [_pinned_key(asyncssh, key) for key in target.host_key]
    try:
        plan = await bridge.call(
            asyncssh.SSHClientConnectionOptions.construct,
            **{**settings, "client_keys": None},
        )
    except (ValueError, OSError) as error:
        raise explain_setting(error, progress) from error
    progress.user, progress.port, progress.address = plan.username, plan.port, plan.host
    progress.files, progress.is_pinned = _files(target, plan.config), bool(pinned)
    return Login(
        target,
        progress,
        settings,
        plan.tunnel if isinstance(plan.tunnel, str) else None,
        None if plan.tunnel or plan.proxy_command else (plan.host, plan.port),
        plan.keepalive_interval or DEFAULT_KEEPALIVE_INTERVAL_S,
        plan.keepalive_count_max or DEFAULT_KEEPALIVE_COUNT,
        pinned,
    )


async def log_in(
    bridge: Bridge, login: Login, tunnel: Any, lost: Callable[[Exception | None], None]
) -> Any:
    """Connect, and give the connection.

    Args:
        tunnel: The connection to go through, or None.
        lost: Hears of the end of the connection, and why.

    Raises:
        SSHConnectError: The keys can't be read.
        Exception: Whatever went wrong; ``explain`` says what it means.
    """
    asyncssh = require_asyncssh()
    login.progress.phase, login.progress.connection = CONNECTING, None
    _require_files(login)
    return await bridge.call(
        asyncssh.connect,
        **{
            **login.settings,
            "tunnel": tunnel,
            "keepalive_interval": login.keepalive_interval,
            "keepalive_count_max": login.keepalive_count,
            "known_hosts": _Doorman(asyncssh, login).known_keys,
            "client_factory": lambda: _client(asyncssh, login.progress, lost),
        },
    )


def _require_files(login: Login) -> None:
    for path in login.progress.keys:
        try:
            Path(path).open("rb").close()
        except OSError as error:
            raise explain_setting(error, login.progress) from error


def _settings(target: SSHTarget) -> dict[str, Any]:
    """Put a target into asyncssh's words, where ``()`` is what was left out."""
    given = {
        "keepalive_interval": target.keepalive_interval,
        "keepalive_count_max": target.keepalive_count,
        "client_keys": _listed(target.client_keys),
        "agent_path": target.agent,
    }
    return {
        "host": target.host,
        "port": target.port or (),
        "username": target.user or (),
        "config": () if isinstance(target.config, LeftOut) else list(target.config) or None,
        "passphrase": target.passphrase,
        "tunnel": () if target.tunnel is LEFT_OUT else None,
        # Other ways to trust a machine than by the keys that the caller knows of.
        "x509_trusted_certs": None,
        "x509_trusted_cert_paths": [],
        "gss_kex": False,
        # A daemon has no terminal, no window, and no use for the user's own keys.
        "request_pty": False,
        "x11_forwarding": False,
        "agent_forwarding": False,
        **{name: () if value is LEFT_OUT else value for name, value in given.items()},
    }


def _listed(paths: tuple[str, ...] | LeftOut) -> list[str] | LeftOut:
    # To asyncssh, a tuple would be a key and its certificate.
    return list(paths) if isinstance(paths, tuple) else paths


def _pinned_key(asyncssh: Any, text: str) -> Any:
    try:
        return asyncssh.import_public_key(text)
    except ValueError as error:
        raise ConfigError("host_key", f"{text[:80]!r} is no public key: {error}") from error


def _files(target: SSHTarget, config: Any) -> tuple[str, ...]:
    if not isinstance(target.known_hosts, LeftOut):
        return target.known_hosts
    # `none` in the configuration is an empty list: no file, and so no known machine.
    users = config.get("UserKnownHostsFile", _USERS_FILES) or ()
    machines = config.get("GlobalKnownHostsFile", _MACHINES_FILES) or ()
    return tuple(str(Path(path).expanduser()) for path in (*users, *machines))


@define(eq=False)
class _Doorman:
    """Says which keys a machine may have."""

    asyncssh: Any
    login: Login

    def known_keys(self, host: str, address: str, port: int | None) -> Any:
        """Give the accepted keys and authorities, and what is revoked, as asyncssh wants them."""
        progress = self.login.progress
        progress.phase = CONNECTING
        known = self._read(progress)
        # As ssh(1): by its address only where that is its name. Else who lies about the address of
        # a name could lead to any other machine that is known.
        by_port, by_name = (known.match(host, "", number) for number in (port, None))
        # With a port of its own, a machine is also known by its name alone; see sshd(8). What is
        # revoked by either, or by its address, is revoked.
        found = by_port if by_port[0] or by_port[1] else by_name
        by_address = (known.match("", address, number) for number in (port, None))
        revoked = [key for each in (by_port, by_name, *by_address) for key in each[2]]
        keys, authorities = list(found[0]), list(found[1])
        if self.login.pinned:
            keys, authorities = self.login.pinned, []
        progress.knows_others = bool(keys or authorities)
        return keys, authorities, revoked

    def _read(self, progress: Progress) -> Any:
        # A missing file knows nobody, and must not be taken for a broken connection.
        files = [path for path in progress.files if os.access(path, os.R_OK)]
        try:
            return self.asyncssh.read_known_hosts(files)
        except (OSError, ValueError) as error:
            raise progress.fail(
                SSHConnectError,
                f"{', '.join(files)}: {getattr(error, 'strerror', None) or error}",
                "Correct the file, or name another one with known_hosts=.",
                "reading the known hosts",
            ) from error


def _client(asyncssh: Any, progress: Progress, lost: Callable[[Exception | None], None]) -> Any:
    class Client(asyncssh.SSHClient):  # type: ignore[misc]
        def connection_made(self, conn: Any) -> None:
            progress.connection = conn

        def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
            # Asked only for a key that is none of the known ones.
            progress.shown_key = f"{key.get_algorithm()} {key.get_fingerprint()}"
            progress.phase = CHECKING
            return False

        def begin_auth(self, username: str) -> None:
            progress.phase = LOGGING_IN

        def connection_lost(self, exc: Exception | None) -> None:
            lost(exc)

    return Client()
