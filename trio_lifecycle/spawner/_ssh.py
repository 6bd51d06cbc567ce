"""Daemons on another machine, over SSH."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._errors import ConfigError, GuaranteeError
from trio_lifecycle._guarantee import OWNED, Guarantee
from trio_lifecycle._ssh._machine import Machine, machine
from trio_lifecycle._ssh._target import (
    DEFAULT_CONNECT_TIMEOUT_S,
    LEFT_OUT,
    LeftOut,
    Paths,
    SSHTarget,
)
from trio_lifecycle.abc import (
    DaemonRecord,
    Prober,
    Process,
    Report,
    ReservedPort,
    Spawner,
    SpawnRequest,
)
from trio_lifecycle.spawner import _remote_finding, _remote_spawning
from trio_lifecycle.spawner._reaching import reach
from trio_lifecycle.spawner._remote_port import reserve_port
from trio_lifecycle.spawner._remote_prober import RemoteProber
from trio_lifecycle.spawner._uploads import Uploads

File = str | PathLike[str]


class SSHSpawner(Spawner):
    """Starts daemons on another machine, which needs an SSH server, Linux and a POSIX ``sh``.

    Nothing has to be installed there. With Python 3.7 or newer there, a daemon that has an owner is
    ``"guarded"`` as on this machine: a small guard, a subreaper, ends it with all that it has
    started when this program is killed, or when the connection is lost or silent for
    ``keepalive_interval`` x ``keepalive_count`` seconds, as when this machine dies. Without, it is
    ``"scoped"``: the same is done, but what has left its session and lost its parents is not found.

    The connection is made when it is first needed, and shared by all spawners of a Trio run that
    would make the same; it lasts as long as that. (Where the application runs a trio-asyncio loop
    itself, what is first needed inside it is connected by it, and ends with it.) Daemons that have
    an owner and are ``"scoped"`` keep a session each, of which a server allows ten on a connection:
    more are made for more of them. The key of the machine is always checked. A lost connection is
    no end: the daemon's state is unknown until it is seen again, over a new connection.

    Where a daemon serves at a loopback address, that of its own machine is meant; ``handle.url``
    and ``handle.port`` are then those of a forward on this one, which lasts as long as the handle's
    owner; without an owner, until its handle has stopped it, or the Trio run ends. A URL with any
    other host is asked over the network. Paths in a configuration are those of the other machine,
    relative ones count from the directory of the login there.

    Args:
        host: The machine: a name, an address, or a ``Host`` of the configuration file.
        user: Who logs in there. Defaults to what the configuration file says, or to this program's
            user.
        port: Where the SSH server listens. Defaults to what the configuration file says, or to 22.
        config: The OpenSSH configuration file, or several, of which Host, HostName, Port, User,
            IdentityFile, UserKnownHostsFile, GlobalKnownHostsFile, ProxyJump, ProxyCommand and
            ServerAlive* are heeded.
            Left out: ``~/.ssh/config``. None: none.
        known_hosts: The file, or several, with the keys of machines. Left out: those that the
            configuration file names, or ``~/.ssh/known_hosts`` and ``/etc/ssh/ssh_known_hosts``.
        host_key: The machine's own key, or several, as a line of its ``.pub`` file: then no other
            one is accepted, and files are only asked for what is revoked. There is no way to accept
            any key.
        client_keys: Files with private keys to log in with. Left out: those of the configuration
            file, or the usual ones in ``~/.ssh``.
        passphrase: What they are encrypted with. It stands in no message.
        agent: The socket of an SSH agent. Left out: the configuration's IdentityAgent, or
            ``SSH_AUTH_SOCK``. None: none is asked.
        tunnel: A machine to go through, as ``"user@host:port"``, or several parted by commas, the
            nearest first; their keys are checked by the same files. Left out: the configuration's
            ProxyJump. None: none.
        guarantee: What must be promised for the end of a daemon that has an owner: ``"guarded"`` or
            ``"scoped"``; what can't be had is a GuaranteeError. Defaults to None: the most that the
            machine can give; ``handle.guarantee`` says which. ``"contained"`` can't be had yet.
        upload: Files to bring there before a start: file of this machine -> path there, absolute,
            ``~/...`` or relative to the directory of the login. What is there already with the
            same size and digest (SHA-256) is left as it is. Asked once in a Trio run, and again
            when the file here has changed or the machine was booted anew.
        connect_timeout: Seconds to connect and log in at most. Defaults to 10; a machine that has
            to wake up takes longer.
        keepalive_interval: Seconds between two signs of life. Left out: the configuration's
            ServerAliveInterval, or 5. With less than 1 a busy machine is taken for a dead one.
        keepalive_count: How many of them may be missed. Left out: the configuration's
            ServerAliveCountMax, or 3. Together: when this machine was silent for 15 s, a daemon
            that has an owner is ended there; when the other one was silent for at most 20 s, it is
            given up here.

    Raises:
        ConfigError: A value can't be meant. That the extra ``ssh`` is missing is said by the first
            start or search.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        config: Paths | LeftOut | None = LEFT_OUT,
        known_hosts: Paths | LeftOut = LEFT_OUT,
        host_key: str | Sequence[str] | None = None,
        client_keys: Paths | LeftOut = LEFT_OUT,
        passphrase: str | None = None,
        agent: File | LeftOut | None = LEFT_OUT,
        tunnel: str | LeftOut | None = LEFT_OUT,
        guarantee: Guarantee | None = None,
        upload: Mapping[File, File] | None = None,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT_S,
        keepalive_interval: float | LeftOut = LEFT_OUT,
        keepalive_count: int | LeftOut = LEFT_OUT,
    ) -> None:
        self.guarantee: Final = _guarantee(guarantee)
        self._target = SSHTarget(
            host=host,
            user=user,
            port=port,
            config=config,
            known_hosts=known_hosts,
            host_key=host_key,
            client_keys=client_keys,
            passphrase=passphrase,
            agent=agent,
            tunnel=tunnel,
            connect_timeout=connect_timeout,
            keepalive_interval=keepalive_interval,
            keepalive_count=keepalive_count,
        )
        self._uploads = Uploads({} if upload is None else upload)

    def __repr__(self) -> str:
        return f"SSHSpawner({str(self._target)!r})"

    @property
    def is_here(self) -> bool:
        """Not on this machine, also where the other one is this one."""
        return False

    @property
    def _machine(self) -> Machine:
        return machine(self._target)

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Start by the guard there, or by a launcher of its own."""
        if self.guarantee == "contained":
            raise GuaranteeError(
                request.name, "contained", "control groups of other machines are not managed"
            )
        await self._uploads.bring(self._machine)
        return await _remote_spawning.spawn(self._machine, request, nursery, self.guarantee)

    async def find_process(self, record: DaemonRecord) -> Process | None:
        """Look among the processes of the other machine."""
        return await _remote_finding.find_process(self._machine, record)

    async def find_strays(self, process: Process, instance_id: str) -> Process | None:
        """Look there for all that were started with the id of the instance in their environment."""
        return await _remote_finding.find_strays(self._machine, process, instance_id)

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Look there, by the rules of this machine; files to be uploaded are brought first."""
        await self._uploads.bring(self._machine)
        return await _remote_finding.find_binary(self._machine, name, search_path)

    async def reserve_port(self) -> ReservedPort:
        """Choose there, outside of the range that the kernel takes ports from by itself."""
        return await reserve_port(self._machine)

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        """Forward a port of this machine to a loopback address of the other."""
        return await reach(self._machine, report, nursery, process)

    def open_prober(self) -> Prober:
        """Ask from the other machine."""
        return RemoteProber(self, self._target)


def _guarantee(guarantee: object) -> Guarantee | None:
    if guarantee == "detached":
        raise ConfigError(
            "guarantee",
            "a daemon is detached by detach=True in its configuration and a bare "
            "ensure_running(), not by its spawner",
        )
    if guarantee is not None and guarantee not in OWNED:
        known = ", ".join(map(repr, OWNED))
        raise ConfigError("guarantee", f"must be one of {known} or None, not {guarantee!r}")
    return guarantee  # type: ignore[return-value]  # it is one of them
