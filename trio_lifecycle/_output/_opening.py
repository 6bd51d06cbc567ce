"""Files of output: opened to append to, and read, without being led or held by what is there."""

import errno
import os
import stat
from pathlib import Path


def open_log(path: Path, *, through_links: bool = False) -> int:
    """Open a file or device to append a daemon's output to; a new file gets mode 0600.

    Args:
        path: The file.
        through_links: Whether the last part of the path may be a symbolic link.

    Raises:
        OSError: It can't be opened, or is something that would block.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    # O_NONBLOCK: opening a FIFO that nobody reads would block for ever.
    fd = os.open(path, flags | os.O_NONBLOCK | (0 if through_links else os.O_NOFOLLOW), 0o600)
    kind = os.fstat(fd).st_mode
    if stat.S_ISREG(kind) or stat.S_ISCHR(kind):
        os.set_blocking(fd, True)
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "is neither a file nor a device", str(path))


def read_end(path: Path, start: int, size: int) -> bytes:
    """Give the last bytes of a file, none from before ``start``; nothing if it can't be read."""
    try:
        end = path.lstat().st_size
    except OSError:
        return b""
    return read_from(path, max(start if start <= end else 0, end - size), size)


def place_in(path: Path, offset: int) -> int:
    """Say where to read on: at its beginning again, if it was truncated meanwhile."""
    try:
        return offset if offset <= path.lstat().st_size else 0
    except OSError:
        return offset


def read_from(path: Path, offset: int, size: int) -> bytes:
    """Give some bytes of a file; nothing if it can't be read, or is a link or no file."""
    try:
        with open(path, "rb", opener=_open_to_read) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                file.seek(offset)
                return file.read(size)
    except OSError:
        pass
    return b""


def _open_to_read(path: str, flags: int) -> int:
    # Neither a link nor a FIFO that was put there is to lead or to hold us.
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
