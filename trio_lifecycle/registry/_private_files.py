"""Private files: ours, regular, known by one name only, and written by nobody else."""

import os
import stat
from typing import Final

from trio_lifecycle.registry._complaints import RefusalError

PRIVATE_MODE: Final = 0o600

# O_NONBLOCK, for opening a FIFO waits for its other end: open(2).
_FLAGS: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def find_private(path: str) -> os.stat_result | None:
    """Look at a file without opening it; None when there is none.

    Closing any descriptor of a file that SQLite has open would drop SQLite's locks on it
    (fcntl_locking(2)), so it is never opened to be looked at.

    Raises:
        RefusalError: Somebody else could have prepared it.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    _check(path, found)
    return found


def create_private(path: str) -> None:
    """Make a file that is not there yet, for this user only, whatever the umask is.

    Raises:
        FileExistsError: It is there, even if only as a link.
    """
    descriptor = os.open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    try:
        os.fchmod(descriptor, PRIVATE_MODE)
    finally:
        os.close(descriptor)


def tighten(path: str, *, at_least: int = 0) -> None:
    """Let nobody but its owner use a file, if it is there.

    Args:
        path: The file.
        at_least: What the owner may do with it afterwards, whatever he could before.

    Raises:
        RefusalError: Somebody else could have prepared it.
    """
    found = find_private(path)
    if found is None:
        return
    mode = stat.S_IMODE(found.st_mode)
    due = mode & stat.S_IRWXU | at_least
    if mode != due:
        # By its name: nobody else can exchange it in our directory, and SQLite's locks would not
        # outlive a descriptor.
        os.chmod(path, due)  # noqa: PTH101


def open_private(path: bytes, *, create: bool) -> int:
    """Open a file that is no database, made for this user only if need be, or only to be read.

    Raises:
        RefusalError: Somebody else could have prepared it.
        FileNotFoundError: It is not there and was not to be made, or its directory is not there.
    """
    name = os.fsdecode(path)
    use = os.O_RDWR | os.O_CREAT if create else os.O_RDONLY
    descriptor = os.open(path, _FLAGS | use, PRIVATE_MODE)
    try:
        found = os.fstat(descriptor)
        _check(name, found)
        if create and stat.S_IMODE(found.st_mode) != PRIVATE_MODE:
            os.fchmod(descriptor, PRIVATE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def is_at(descriptor: int, path: bytes) -> bool:
    """Whether an open file is still the one that is found at a path."""
    try:
        there = os.lstat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _check(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a link" if stat.S_ISLNK(found.st_mode) else "no file"
        raise RefusalError(f"{path} is {what}; remove it, or use another path")
    if found.st_uid != os.geteuid():
        raise RefusalError(
            f"{path} belongs to user {found.st_uid} and not to this one, {os.geteuid()}; "
            "use a path of your own"
        )
    if found.st_nlink > 1:
        raise RefusalError(f"{path} has a second name elsewhere, a hard link; remove one of them")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RefusalError(f"{path} can be written by others; make it mode 0600 if you trust it")
