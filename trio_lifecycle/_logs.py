"""Log files of daemons: the old ones kept aside when a new one begins."""

import errno
import os
import stat
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Final

# With the new one. The end of the last run and of some before it; a daemon that dies at once again
# and again must not fill the disk.
KEPT_LOGS: Final = 5


def rotate(path: Path, keep: int = KEPT_LOGS) -> None:
    """Make room for a new log: NAME.log becomes NAME.log.1, that becomes NAME.log.2, and so on.

    An empty or missing log stays as it is. Only regular files of this user are renamed or removed;
    a link is neither followed nor touched.

    Args:
        path: The log that is about to be written anew.
        keep: How many logs there are at most afterwards, with the new one.

    Raises:
        OSError: The directory can't be changed, or something that is no log is in the way.
    """
    if not _is_ours(path) or not path.stat().st_size:
        return
    oldest = max(1, keep) - 1
    for number in count(max(1, keep)):
        # From a time when more were kept.
        if not _is_ours(_numbered(path, number)):
            break
        _numbered(path, number).unlink(missing_ok=True)
    if not oldest:
        path.unlink(missing_ok=True)
        return
    free = next((n for n in range(1, oldest) if not _exists(_numbered(path, n))), oldest)
    for number in range(free, 0, -1):
        _move(_numbered(path, number - 1) if number > 1 else path, _numbered(path, number))


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_ours(path: Path) -> bool:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(facts.st_mode) and facts.st_uid == os.geteuid()


def _move(source: Path, target: Path) -> None:
    for place in (source, target):
        if _exists(place) and not _is_ours(place):
            raise FileExistsError(errno.EEXIST, "is no log file of this user", str(place))
    # Another program may do the same at this moment.
    with suppress(FileNotFoundError):
        source.rename(target)
