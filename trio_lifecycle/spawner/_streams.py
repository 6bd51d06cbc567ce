"""The standard streams of a daemon on this machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._output import FileOutput, PipedOutput, open_log
from trio_lifecycle.abc import SpawnRequest
from trio_lifecycle.spawner._refusals import RETRYABLE


@contextmanager
def open_streams(
    request: SpawnRequest,
) -> Iterator[tuple[FileOutput | PipedOutput, int]]:
    """Give the daemon's output, and the descriptor that it writes to.

    That is only the child's, and closed again.
    """
    opened: list[int] = []
    try:
        try:
            output, write_end = _open_output(request)
            opened.append(write_end)
        except OSError as error:
            problem = f"its output can't be set up: {error}"
            retryable = error.errno in RETRYABLE
            raise SpawnError(request.name, problem, error.errno, retryable) from error
        try:
            yield output, write_end
        except BaseException:
            output.close()
            raise
    finally:
        for fd in opened:
            os.close(fd)


@contextmanager
def open_null(request: SpawnRequest) -> Iterator[int]:
    """Give a descriptor from which there is nothing to read."""
    try:
        null = above_streams(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        problem = f"its standard input can't be set up: {error}"
        raise SpawnError(request.name, problem, error.errno, error.errno in RETRYABLE) from error
    try:
        yield null
    finally:
        os.close(null)


def _open_output(request: SpawnRequest) -> tuple[FileOutput | PipedOutput, int]:
    if request.detached:
        path = request.output.to
        assert isinstance(path, Path)
        log = above_streams(open_log(path))
        return FileOutput(path, request.output.tail_bytes, os.fstat(log).st_size), log
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        write_end = above_streams(write_end)
    except BaseException:
        os.close(read_end)
        raise
    try:
        os.set_blocking(read_end, False)
        output = PipedOutput(request.name, request.output, read_end, request.secrets)
        return output, write_end
    except BaseException:
        os.close(read_end)
        os.close(write_end)
        raise


def above_streams(fd: int) -> int:
    """Move a descriptor away from 0 to 2, which a program without standard streams gives out."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
