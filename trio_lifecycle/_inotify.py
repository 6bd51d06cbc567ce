"""Changes of a file, as the kernel tells them: inotify(7)."""

import functools
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

# <sys/inotify.h>; the flags of inotify_init1(2) are those of open(2).
_IN_MODIFY: Final = 0x0000_0002
_IN_DONT_FOLLOW: Final = 0x0200_0000

# One event is 16 bytes, and equal ones that nobody has read are one.
_EVENTS_BYTES: Final = 4096


class FileChanges:
    """Tells that a file was written to; where that can't be told, it only lets time pass.

    A user may have 128 of these by default (``fs.inotify.max_user_instances``), and there is no
    inotify but on Linux.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        with suppress(OSError):
            self._fd = _watch(path)

    async def wait(self, longest_s: float) -> None:
        """Wait until the file was written to since this was called before, or some seconds.

        Raises:
            trio.ClosedResourceError: It is closed meanwhile.
        """
        if self._fd < 0:
            await trio.sleep(longest_s)
            return
        with trio.move_on_after(longest_s):
            await trio.lowlevel.wait_readable(self._fd)
        with suppress(OSError):  # nothing was written; or it was closed at this moment
            os.read(self._fd, _EVENTS_BYTES)

    def close(self) -> None:
        """Let go of the descriptor. Again is fine."""
        if self._fd >= 0:
            trio.lowlevel.notify_closing(self._fd)
            os.close(self._fd)
            self._fd = -1


def _watch(path: Path) -> int:
    import ctypes

    calls = _calls()
    fd: int = calls.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1 failed")
    if calls.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY | _IN_DONT_FOLLOW) < 0:
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, "inotify_add_watch failed", str(path))
    return fd


@functools.lru_cache(maxsize=1)
def _calls() -> Any:
    import ctypes

    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "inotify_init1"):
        raise OSError("this system has no inotify")
    return library
