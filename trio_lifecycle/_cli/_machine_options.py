"""On which machine: the options that say so, and what starts and finds daemons there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from attrs import frozen
from cyclopts import Parameter

from trio_lifecycle._cli._options import MACHINE, option
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle.abc import Spawner
from trio_lifecycle.spawner._local import LocalSpawner

if TYPE_CHECKING:
    from trio_lifecycle._cli._elsewhere import Elsewhere

_NONE: Final = "none"

# The last @ parts the user from the machine, as for ssh(1): a user's name may have one, too.
_ADDRESS: Final = re.compile(
    r"(?:(?P<user>.+)@)?(?:\[(?P<v6>[^\]@]+)\]|(?P<host>[^@:\[\]]+))(?::(?P<port>[0-9]{1,5}))?"
)

# What a key looks like, and no path does.
_KEY: Final = re.compile(r"\s*[a-z][\w.@-]*\s+[A-Za-z0-9+/]{16,}")

# Which option each argument of SSHSpawner is given by.
_OPTIONS: Final = {
    "host": "--host",
    "user": "--host",
    "port": "--host",
    "client_keys": "--identity",
    "known_hosts": "--known-hosts",
    "host_key": "--host-key",
    "config": "--ssh-config",
    "tunnel": "--jump",
}


@Parameter(name="*")
@frozen(kw_only=True)
class MachineOptions:
    """What was said of it; it is this one, if nothing was."""

    host: Annotated[
        str | None,
        option(
            MACHINE,
            "Another machine, over SSH; nothing has to be installed there. It may be a Host of "
            "~/.ssh/config.",
            value="[USER@]HOST[:PORT]",
        ),
    ] = None
    identity: Annotated[
        list[str] | None,
        option(
            MACHINE,
            "A private key to log in with, instead of those that ssh would use. May be repeated.",
            value="FILE",
        ),
    ] = None
    no_agent: Annotated[bool, option(MACHINE, "Ask no SSH agent for keys.")] = False
    known_hosts: Annotated[
        list[str] | None,
        option(
            MACHINE,
            "The keys of machines, instead of ~/.ssh/known_hosts. May be repeated.",
            value="FILE",
        ),
    ] = None
    host_key: Annotated[
        list[str] | None,
        option(
            MACHINE,
            "The machine's public key, or the file of it; no other one is accepted then. May be "
            "repeated.",
            value="KEY",
        ),
    ] = None
    jump: Annotated[
        str | None,
        option(
            MACHINE,
            "Go through this machine, or several parted by commas; none: through none, whatever "
            "~/.ssh/config says.",
            value="[USER@]HOST[:PORT]",
        ),
    ] = None
    ssh_config: Annotated[
        str | None,
        option(MACHINE, "This file instead of ~/.ssh/config; none: none at all.", value="FILE"),
    ] = None

    @property
    def is_here(self) -> bool:
        """Whether it is this machine."""
        return self.host is None

    def spawner(self, guarantee: Guarantee | None = None, *, forwards: bool = False) -> Spawner:
        """Give what starts and finds daemons there.

        Args:
            guarantee: What must be promised for a daemon's end; None is the most there is.
            forwards: Whether a daemon's address is to be one of this machine, for as long as the
                command goes on; if not, it is the one that it has on its own machine.

        Raises:
            ConfigError: That can't be meant; it names the option.
        """
        if self.host is not None:
            return self.elsewhere(guarantee, forwards=forwards)
        for name in self._given():
            raise ConfigError(name, "is about another machine; name that by --host")
        return LocalSpawner() if guarantee is None else LocalSpawner(guarantee=guarantee)

    def elsewhere(
        self, guarantee: Guarantee | None = None, *, forwards: bool = False
    ) -> "Elsewhere":
        """Give the same for a machine that is not this one."""
        # What it needs takes time to import.
        from trio_lifecycle._cli._elsewhere import Elsewhere

        arguments = self._arguments()
        try:
            return Elsewhere(forwards=forwards, guarantee=guarantee, **arguments)
        except ConfigError as error:
            raise ConfigError(_OPTIONS.get(error.field, error.field), error.problem) from None

    def _arguments(self) -> dict[str, Any]:
        address = _ADDRESS.fullmatch(self.host or "")
        if address is None:
            raise ConfigError(
                "--host",
                f"wants [USER@]HOST[:PORT], such as gpu-2 or ada@[::1]:2222, not {self.host!r}",
            )
        port = address["port"]
        given = {
            "user": address["user"],
            "port": None if port is None else int(port),
            "client_keys": _files("--identity", self.identity),
            "known_hosts": _files("--known-hosts", self.known_hosts),
            "host_key": list(self._host_keys()) or None,
            "tunnel": self.jump,
            "config": self.ssh_config,
        }
        said = {name: value for name, value in given.items() if value is not None}
        none = {name: None for name in ("tunnel", "config") if said.get(name) == _NONE}
        if self.no_agent:
            none["agent"] = None
        if "config" in said and "config" not in none:
            _files("--ssh-config", _listed(self.ssh_config))
        return {"host": address["v6"] or address["host"], **said, **none}

    def _host_keys(self) -> Iterator[str]:
        for text in self.host_key or ():
            lines = [text] if _KEY.match(text) else _read("--host-key", text).splitlines()
            keys = [line for line in lines if line.strip() and not line.startswith("#")]
            if not keys:
                raise ConfigError("--host-key", f"there is no key in {text!r}")
            yield from keys

    def words(self) -> tuple[str, ...]:
        """Write them again, for a command that a person may give next."""
        return tuple(word for name, value in self._said() for word in (name, value) if word)

    def _given(self) -> Iterator[str]:
        yield from dict(self._said())

    def _said(self) -> Iterator[tuple[str, str]]:
        for name, several in (
            ("--host", _listed(self.host)),
            ("--identity", self.identity),
            ("--no-agent", [""] if self.no_agent else None),
            ("--known-hosts", self.known_hosts),
            ("--host-key", self.host_key),
            ("--jump", _listed(self.jump)),
            ("--ssh-config", _listed(self.ssh_config)),
        ):
            for value in several or ():
                yield name, value


HERE: Final = MachineOptions()


def _listed(text: str | None) -> list[str] | None:
    return None if text is None else [text]


def _files(name: str, paths: list[str] | None) -> list[str] | None:
    """Refuse at once what would fail only once the machine has answered."""
    for path in paths or ():
        _read(name, path)
    return paths


def _read(name: str, path: str) -> str:
    if not path:
        raise ConfigError(name, "wants the path of a file; it is empty")
    try:
        return Path(path).expanduser().read_text(errors="replace")
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(name, f"{path!r} can't be read: {why}") from None
