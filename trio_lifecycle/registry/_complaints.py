"""Complaints: what is said when the files of a registry can't be used, and what would help."""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._record_errors import RegistryError

_ROOM: Final = "make room there, and it works again; nothing was lost"
_RIGHTS: Final = "give this user the right to write the file and its directory, or use another path"
_DESCRIPTORS: Final = "raise the limit on open files (ulimit -n), or close some"

_CURES: Final = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EROFS: _RIGHTS,
    errno.EMFILE: _DESCRIPTORS,
    errno.ENFILE: _DESCRIPTORS,
    errno.ENOLCK: "keep it on a disk of this machine; its file system has no locks",
    errno.ENOTDIR: "use another path",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.ELOOP: "it is a link in the place of a file; remove it",
}
_CURE: Final = "see that its disk is sound, or use another path"

# Primary result codes: https://sqlite.org/rescode.html
_SQLITE_CURES: Final = {
    sqlite3.SQLITE_FULL: _ROOM,
    sqlite3.SQLITE_IOERR: "see that its disk has room and is sound; nothing was lost",
    sqlite3.SQLITE_READONLY: _RIGHTS,
    sqlite3.SQLITE_PERM: _RIGHTS,
    sqlite3.SQLITE_CANTOPEN: f"{_RIGHTS}, and see that its disk has room",
}
# A disk that is full has as many names as there are places where it is noticed.
_NO_ROOM: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}
_DAMAGE: Final = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


class RefusalError(Exception):
    """A file is not what it should be; the text says which, why, and what would help."""


class OccupiedError(Exception):
    """Somebody else is at work in the file at this moment; soon the same may succeed."""


@contextmanager
def complaining(registry: str) -> Iterator[None]:
    """Let every failure of a file in the block leave as one that says what would help.

    Args:
        registry: The path of the registry.
    """
    try:
        yield
    except ConfigError as error:  # of make_private
        raise RegistryError(registry, error.problem) from error
    except RefusalError as error:
        raise RegistryError(registry, str(error)) from error
    except sqlite3.Error as error:
        cure = _SQLITE_CURES.get(primary_code(error), _CURE)
        raise RegistryError(registry, f"{error}; {cure}") from error
    except OSError as error:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        cure = _CURES.get(error.errno or 0, _CURE)
        raise RegistryError(registry, f"{where}{error.strerror}; {cure}") from error


def primary_code(error: Exception) -> int:
    """Give SQLite's result code without its extension; 0 where the error is not SQLite's."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_busy(error: Exception) -> bool:
    """Whether another connection is at work, and all that is needed is patience."""
    return primary_code(error) in _BUSY


def may_lack_room(error: Exception) -> bool:
    """Whether it may be that the disk is full, and that what is there can be read all the same."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return primary_code(error) in _NO_ROOM


def is_damage(error: BaseException) -> bool:
    """Whether the file is no database, or a broken one."""
    if isinstance(error, UnicodeDecodeError):
        # Python reads SQLite's messages as UTF-8, and some quote what is broken in the file.
        return True
    return isinstance(error, sqlite3.Error) and primary_code(error) in _DAMAGE
