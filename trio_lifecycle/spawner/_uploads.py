"""Files of this machine that a daemon needs on another."""

import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Final, NamedTuple

import trio
from attrs import define, evolve, field

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._paths import absolute
from trio_lifecycle._ssh._host_facts import HostFacts
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle._texts import check_plain_path
from trio_lifecycle.spawner._bringing import Bringing, unreadable

File = str | PathLike[str]

_PERMISSIONS: Final = 0o777


class _Errand(NamedTuple):
    """One file to bring.

    Attributes:
        field: How it is called in errors.
        local: The file, absolute.
        remote: Its path there, which may begin with ``~/``, or where the login does.
    """

    field: str
    local: Path
    remote: str


class Uploads:
    """The files of one spawner.

    Args:
        files: File of this machine -> path there.

    Raises:
        ConfigError: That is no pair of paths; names the file.
    """

    def __init__(self, files: Mapping[File, File]) -> None:
        self._errands = tuple(_errands(files))

    async def bring(self, machine: Machine) -> None:
        """Bring those that this Trio run has not brought there yet, or that have changed since.

        Raises:
            ConfigError: A file can't be read here.
            SSHConnectError: A file could not be brought.
        """
        await trio.lowlevel.checkpoint()
        for errand in self._errands:
            await _way(machine, errand).bring()


# --- what is asked for ----------------------------------------------------------------------------


def _errands(files: object) -> Iterator[_Errand]:
    if not isinstance(files, Mapping):
        problem = f"must be a mapping of paths here to paths there, not {type(files).__name__}"
        raise ConfigError("upload", problem)
    taken: dict[str, str] = {}
    for local, remote in files.items():
        shown = local if isinstance(local, str) else str(local)
        name = f"upload[{shown!r}]"
        there = _remote(name, remote)
        # The login begins in the home directory.
        other = taken.setdefault(there.removeprefix("~/"), shown)
        if other != shown:
            raise ConfigError(name, f"{there!r} is where {other!r} goes, too")
        yield _Errand(name, _local(name, local), there)


def _local(name: str, path: object) -> Path:
    text = check_plain_path(name, path)
    try:
        return absolute(name, Path(text).expanduser())
    except RuntimeError as error:
        raise ConfigError(name, f"{text!r} leads to no home directory: {error}") from error


def _remote(name: str, path: object) -> str:
    text = check_plain_path(name, path)
    first, *rest = text.split("/")
    if first.startswith("~") and (first != "~" or not rest):
        problem = f"must be an absolute path there, '~/...', or relative to it, not {text!r}"
        raise ConfigError(name, problem)
    parts = [part for part in rest if part not in ("", ".")]
    if (parts or [first])[-1] in (".", "..", "~", ""):
        raise ConfigError(name, f"{text!r} names no file")
    is_plain = first == "." and not parts[0].startswith("~")
    return "/".join(parts if is_plain else [first, *parts])


# --- what was brought -----------------------------------------------------------------------------


class _State(NamedTuple):
    """What an upload was about; a file that was changed has another one.

    Attributes:
        boot_id: The boot of the machine: what stood in memory only is gone after it.
        device: The file here: where it is.
        inode: Its number there.
        size: Its bytes.
        mtime_ns: When it was changed.
        mode: Its permissions.
    """

    boot_id: str
    device: int
    inode: int
    size: int
    mtime_ns: int
    mode: int


@define(eq=False)
class _Way:
    """A file's way to one machine, in one Trio run."""

    machine: Machine
    errand: _Errand
    turn: trio.Lock
    brought: _State | None = field(default=None, init=False)
    error: ConfigError | SSHConnectError | None = field(default=None, init=False)

    async def bring(self) -> None:
        """Bring it once; all who ask meanwhile share what becomes of it."""
        if self.brought == await self._state(await self.machine.facts()):
            return
        last_error = self.error
        async with self.turn:
            if self.error is not None and self.error is not last_error:
                raise evolve(self.error)
            await self._bring()

    async def _bring(self) -> None:
        try:
            facts = await self.machine.facts()
            state = await self._state(facts)
            if state == self.brought:
                return
            await Bringing(
                machine=self.machine,
                field=self.errand.field,
                local=self.errand.local,
                remote=_complete(facts, self.errand),
                size=state.size,
                mode=state.mode,
            ).run()
            self.brought = state
        except (ConfigError, SSHConnectError) as error:
            self.error = evolve(error)  # without its traceback, which would keep much alive
            raise

    async def _state(self, facts: HostFacts) -> _State:
        local = self.errand.local
        try:
            about = await trio.to_thread.run_sync(os.stat, local)
        except OSError as error:
            raise unreadable(self.errand.field, local, error) from error
        if not stat.S_ISREG(about.st_mode):
            raise ConfigError(self.errand.field, f"{local} is no regular file")
        return _State(
            facts.boot_id,
            *(about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns),
            about.st_mode & _PERMISSIONS,
        )


def _complete(facts: HostFacts, errand: _Errand) -> str:
    if not errand.remote.startswith("~/"):
        return posixpath.join(facts.login_dir, errand.remote)
    if not facts.home:
        raise ConfigError(errand.field, "the user has no home there; give an absolute path")
    return posixpath.join(facts.home, errand.remote.removeprefix("~/"))


@define(eq=False)
class _Ways:
    """Those to one machine, on which one file is on its way at a time."""

    turn: trio.Lock = field(factory=trio.Lock)
    ways: dict[_Errand, _Way] = field(factory=dict)


_ways: Final = trio.lowlevel.RunVar[dict[Machine, _Ways]]("trio_lifecycle.uploads")


def _way(machine: Machine, errand: _Errand) -> _Way:
    try:
        known = _ways.get()
    except LookupError:
        known = {}
        _ways.set(known)
    here = known.setdefault(machine, _Ways())
    return here.ways.setdefault(errand, _Way(machine, errand, here.turn))
