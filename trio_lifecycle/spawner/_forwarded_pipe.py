"""Pipes of this program whose other end is a daemon's on another machine."""

import os
import stat
from contextlib import suppress
from types import TracebackType
from typing import Self

from trio_lifecycle._errors import SpawnError
from trio_lifecycle.abc import SpawnRequest


class ForwardedPipe:
    """What the daemon writes to a descriptor there is written to a pipe here.

    Args:
        request: What is spawned.
        number: The descriptor's number there.
        fd: The descriptor here; its holder keeps it.

    Raises:
        SpawnError: It is no pipe to write to.
    """

    def __init__(self, request: SpawnRequest, number: int, fd: int) -> None:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            problem = f"descriptor {number} is no pipe, and can't be passed to another machine"
            raise SpawnError(request.name, problem)
        self._fd = os.dup(fd)
        # Of this end only; who reads may have stopped.
        os.set_blocking(self._fd, False)

    def feed(self, data: bytes) -> None:
        """Pass on what was written there; nothing means that it was closed."""
        if not data:
            self.close()
        elif self._fd >= 0:
            # More than a pipe holds while nobody reads, or nobody ever will: nothing is waited for.
            with suppress(BrokenPipeError, BlockingIOError):
                os.write(self._fd, data)

    def close(self) -> None:
        """Close it. Again is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
