"""Which registry a command asks, and which daemons it means."""

import os
import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._machine import host_name, this_boot
from trio_lifecycle._names import check_name
from trio_lifecycle._state_dir import registry_path
from trio_lifecycle.abc import DaemonRecord, Registry
from trio_lifecycle.registry._default import default_registry
from trio_lifecycle.registry._memory import MemoryRegistry
from trio_lifecycle.registry._sqlite import SQLiteRegistry


def registry_at(path: str | None) -> Registry:
    """Give the registry in this file, or this user's; it is made if it is not there.

    Raises:
        ConfigError: There can't be one.
        RegistryError: It can't be used.
    """
    if path is None:
        return default_registry()
    return SQLiteRegistry(_path(path))


def registry_to_read(path: str | None) -> Registry:
    """Give the same, or an empty one where there is none: asking makes no files.

    Raises:
        ConfigError: There can't be one.
        RegistryError: It can't be used.
    """
    place = registry_path(os.environ) if path is None else _path(path)
    return MemoryRegistry() if _is_missing(place) else registry_at(path)


def _is_missing(place: Path) -> bool:
    try:
        place.lstat()
    except FileNotFoundError:
        return True
    except OSError:
        # Such as a directory that may not be looked into. Whoever reads it says so.
        return False
    return False


def _path(text: str) -> Path:
    if not text:
        raise ConfigError("--registry", "wants the path of a file; it is empty")
    return Path(text)


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Give each name once, in order.

    Raises:
        ConfigError: One can't be a daemon's.
    """
    return tuple(dict.fromkeys(check_name("NAME", name) for name in names))


def unrecorded(name: str, records: Iterable[DaemonRecord]) -> str:
    """Say that a daemon is not recorded, and which one may be meant."""
    known = [record.name for record in records]
    close = get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"nothing of that name is recorded{hint}"


def is_elsewhere(record: DaemonRecord) -> bool:
    """Say whether a daemon is recorded as running on another machine than this."""
    return record.boot_id != this_boot() and record.host != host_name()


def how_to_stop(name: str, path: str | None, *options: str) -> str:
    """Write the command that stops a daemon of the registry in this file."""
    place = () if path is None else ("--registry", path)
    return shlex.join(["trio-lifecycle", "stop", *options, *place, name])


def none_recorded(path: str | None, host: str | None) -> str:
    """Say that nothing is recorded in a registry, or nothing of that machine."""
    where = "" if path is None else f" in {path}"
    return f"no daemon is recorded{where}" + ("" if host is None else f" as running on {host}")
