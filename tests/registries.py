"""Records and registries to look at."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import PATIENCE_S
from trio_lifecycle._record_errors import RegistryError
from trio_lifecycle.abc import DaemonRecord
from trio_lifecycle.registry._sqlite import SQLiteRegistry

MakeRegistry = Callable[[], SQLiteRegistry]

# From 3.12 on Python warns of a fork beside threads, such as Trio's idle ones.
FORKING = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}


def record(name: str = "queen", **changes: Any) -> DaemonRecord:
    """A record of a daemon that is only thought of."""
    usual: dict[str, Any] = {
        "instance_id": "instance",
        "host": "machine",
        "boot_id": "boot",
        "pid": 4242,
        "start_time": 1000,
        "started_at": 1.5,
        "heartbeat_at": 2.5,
    }
    return DaemonRecord(name=name, **(usual | changes))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a registry can be, in a directory that is not there yet."""
    return tmp_path / "state" / "registry.sqlite"


def execute(path: Path, *statements: str) -> list[Any]:
    """Do something in a database behind the registry's back; give what the last one found."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return [connection.execute(statement).fetchall() for statement in statements][-1]


def contents(directory: Path) -> dict[str, bytes | None]:
    """Every file below a directory with what is in it, directories and the like with None."""
    return {
        str(found.relative_to(directory)): found.read_bytes() if found.is_file() else None
        for found in sorted(directory.rglob("*"))
    }


def open_files(path: Path, pid: int | str = "self") -> list[str]:
    """The descriptors of a process that lead to a registry's files, removed ones included."""
    descriptors = Path(f"/proc/{pid}/fd")
    targets = []
    for descriptor in os.listdir(descriptors):  # noqa: PTH208 - a Path would keep it open longer
        try:
            targets.append(os.readlink(descriptors / descriptor))  # noqa: PTH115
        except FileNotFoundError:
            continue
    return sorted(target for target in targets if target.startswith(str(path)))


def mode_of(file: Path) -> int:
    """Who may do what with a file."""
    return stat.S_IMODE(file.lstat().st_mode)


def bad_files(path: Path) -> list[Path]:
    """What was set aside of a registry."""
    return sorted(path.parent.glob("*.bad-*"))


async def refusal(path: Path) -> str:
    """What is said of a registry that can't be used, in the same way by all of its methods."""
    registry = SQLiteRegistry(path)
    said = []
    for call in (registry.daemons, lambda: registry.put(record()), lambda: anext(registry.watch())):
        with pytest.raises(RegistryError) as caught, trio.fail_after(PATIENCE_S):
            await call()
        assert str(path) == caught.value.registry
        said.append(caught.value.problem)
    assert 1 == len(set(said))
    return said[0]
