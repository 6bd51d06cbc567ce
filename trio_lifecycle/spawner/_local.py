"""Daemons on this machine, started by this program itself."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import trio

from trio_lifecycle._binary import find_binary
from trio_lifecycle._errors import SpawnError
from trio_lifecycle._output import FileOutput, PipedOutput, open_log
from trio_lifecycle._ports import reserve_port
from trio_lifecycle._posix_spawn import spawn
from trio_lifecycle._proc import ephemeral_ports
from trio_lifecycle.abc import Prober, Process, ReservedPort, Spawner, SpawnRequest
from trio_lifecycle.spawner._local_prober import LocalProber
from trio_lifecycle.spawner._local_process import LocalProcess

# Errors of a machine that is short of something now and may have it later.
_RETRYABLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})

# execve(2): one argument or variable may have 131,072 bytes, all together a quarter of the stack
# limit.
_TOO_BIG: Final = (
    "the arguments and the environment are larger than the system takes (execve(2), E2BIG)"
)


class LocalSpawner(Spawner):
    """Starts daemons on this machine, each in a session of its own.

    The daemon's process group goes with its owner: after an exception, a cancellation, Ctrl-C. Not
    when this program itself is killed by SIGKILL; and a process that has left the group, by
    ``setsid`` or as a job of an interactive shell, is not followed.
    """

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Start by posix_spawn(3), in the calling thread."""
        with _streams(request) as (output, streams):
            pid = self._start(request, streams)
            process = _take_over(request, pid, output)
        if request.detached:
            # Nobody may ever ask after it again, and an ended child stays a zombie until its parent
            # looks.
            trio.lowlevel.spawn_system_task(process.reap_at_end, name=f"reap {request.name}")
        else:
            nursery.start_soon(output.run, name=f"output of {request.name}")
        return process

    def _start(self, request: SpawnRequest, streams: tuple[int, int, int]) -> int:
        directory = request.working_dir
        try:
            return spawn(
                request.program,
                [request.program, *request.args],
                _environment(request),
                None if directory is None else str(directory),
                streams,
            )
        except OSError as error:
            problem = _explain(error, request.program, directory)
            retryable = error.errno in _RETRYABLE
            raise SpawnError(request.name, problem, error.errno, retryable) from error

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Look on this machine."""
        return find_binary(name, search_path)

    async def reserve_port(self) -> ReservedPort:
        """Choose outside the range that the kernel takes ports from by itself."""
        return reserve_port(ephemeral=ephemeral_ports())

    def open_prober(self) -> Prober:
        """Ask from this machine."""
        return LocalProber()


def _take_over(request: SpawnRequest, pid: int, output: FileOutput | PipedOutput) -> LocalProcess:
    try:
        return LocalProcess.of_child(pid, request.instance_id, output)
    except OSError as error:
        problem = f"its end could not be watched for: {error.strerror}"
        retryable = error.errno in _RETRYABLE
        raise SpawnError(request.name, problem, error.errno, retryable) from error


def _environment(request: SpawnRequest) -> dict[str, str]:
    merged: dict[str, str | None] = {**os.environ, **request.env}
    return {key: value for key, value in merged.items() if value is not None}


def _explain(error: OSError, program: str, directory: Path | None) -> str:
    if directory is not None and not directory.is_dir():
        missing = "is no directory" if directory.exists() else "does not exist"
        return f"its working directory {directory} {missing}"
    if directory is not None and not os.access(directory, os.X_OK):
        return f"its working directory {directory} may not be entered"
    if error.errno == errno.E2BIG:
        return _TOO_BIG
    return f"{program}: {error.strerror}"


@contextmanager
def _streams(
    request: SpawnRequest,
) -> Iterator[tuple[FileOutput | PipedOutput, tuple[int, int, int]]]:
    """Give the daemon's output and its three standard streams.

    Whatever is only the child's is closed again.
    """
    opened: list[int] = []
    try:
        try:
            opened.append(_above_streams(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)))
            output, write_end = _open_output(request)
            opened.append(write_end)
        except OSError as error:
            problem = f"its output can't be set up: {error}"
            retryable = error.errno in _RETRYABLE
            raise SpawnError(request.name, problem, error.errno, retryable) from error
        try:
            yield output, (opened[0], opened[1], opened[1])
        except BaseException:
            output.close()
            raise
    finally:
        for fd in opened:
            os.close(fd)


def _open_output(request: SpawnRequest) -> tuple[FileOutput | PipedOutput, int]:
    if request.detached:
        path = request.output.to
        assert isinstance(path, Path)
        log = _above_streams(open_log(path))
        return FileOutput(path, request.output.tail_bytes, os.fstat(log).st_size), log
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    try:
        write_end = _above_streams(write_end)
    except BaseException:
        os.close(read_end)
        raise
    try:
        os.set_blocking(read_end, False)
        return PipedOutput(request.name, request.output, read_end), write_end
    except BaseException:
        os.close(read_end)
        os.close(write_end)
        raise


def _above_streams(fd: int) -> int:
    """Move a descriptor away from 0 to 2, which a program without standard streams gives out."""
    if fd > 2:
        return fd
    import fcntl

    try:
        return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(fd)
