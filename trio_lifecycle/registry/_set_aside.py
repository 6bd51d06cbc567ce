"""Damaged databases: set aside with all that belongs to them, never emptied."""

import logging
import os
import time
from itertools import count
from typing import Final

from trio_lifecycle.registry._private_files import tighten

_log: Final = logging.getLogger("trio_lifecycle")

# What SQLite keeps beside a database: https://sqlite.org/tempfiles.html
COMPANIONS: Final = ("-wal", "-shm", "-journal")


def set_database_aside(path: str, reason: BaseException) -> None:
    """Rename a database and what belongs to it, and say so; the caller keeps all others away.

    Raises:
        OSError: It can't be renamed.
    """
    aside = _free_name(path)
    # Last the database: whoever finds none at its place takes what is beside it for his own.
    for suffix in (*COMPANIONS, ""):
        if os.path.lexists(path + suffix):
            tighten(path + suffix)
            os.rename(path + suffix, aside + suffix)  # noqa: PTH104 - texts, as SQLite has them
    _log.warning(
        "the registry %s was damaged (%s). It was set aside as %s, and a new one is begun: what it "
        "knew of daemons that run is in there.",
        path,
        str(reason),  # the error itself would keep the connection open as long as the record lives
        aside,
    )


def tell_of_removal(path: str) -> None:
    """Say that a database was removed, of which there is nothing to set aside."""
    _log.warning(
        "the registry %s was removed, and a new one is begun. What the old one knew of daemons "
        "that run is lost: stop them by hand.",
        path,
    )


def _free_name(path: str) -> str:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    first = f"{path}.bad-{stamp}"
    names = (first if number == 1 else f"{first}-{number}" for number in count(1))
    return next(name for name in names if not _any_exists(name))


def _any_exists(name: str) -> bool:
    return any(os.path.lexists(name + suffix) for suffix in ("", *COMPANIONS))
