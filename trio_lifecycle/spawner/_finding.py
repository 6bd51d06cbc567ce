"""Finding the process that a record is about."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from trio_lifecycle._destination import DEFAULT_TAIL_BYTES
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._machine import host_name, this_boot, this_namespace
from trio_lifecycle._output import FileOutput
from trio_lifecycle._proc import (
    Stat,
    all_stats,
    has_variable,
    holds_socket,
    listeners_at,
    read_stat,
)
from trio_lifecycle._procfs import shows_us
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.abc import DaemonRecord, Process
from trio_lifecycle.spawner._found_process import FoundProcess
from trio_lifecycle.spawner._remains import Remains
from trio_lifecycle.spawner._spawned_process import is_readable

# What pidfd_open(2) says of a number that no process has; of a mere thread's it says EINVAL or, on
# newer kernels, ENOENT.
_NOBODY: Final = (errno.ESRCH, errno.EINVAL, errno.ENOENT)


def find_process(record: DaemonRecord) -> FoundProcess | Remains | None:
    """Give the process that a record is about, or what it has left; None when all is gone for sure.

    Raises:
        DaemonStateUnknownError: Whether it lives can't be told from here.
    """
    try:
        return _find(record) if _is_of_this_boot(record) else None
    except OSError as error:
        problem = f"process {record.pid} can't be looked at: {error.strerror or error}"
        raise DaemonStateUnknownError(record.name, problem) from error


def _is_of_this_boot(record: DaemonRecord) -> bool:
    here = host_name()
    if record.boot_id != this_boot():
        if record.host != here:
            problem = f"it is recorded as running on machine {record.host}, and this is {here}"
            raise DaemonStateUnknownError(record.name, problem)
        return False
    namespaces = {record.pid_namespace, this_namespace()}
    if len(namespaces) > 1 and 0 not in namespaces:
        problem = "it was started in another pid namespace of this machine, such as a container"
        raise DaemonStateUnknownError(record.name, problem)
    if not shows_us():
        problem = "the /proc here shows the processes of another pid namespace, or none"
        raise DaemonStateUnknownError(record.name, problem)
    return True


def _find(record: DaemonRecord) -> FoundProcess | Remains | None:
    if record.pid == os.getpid():
        # A later life of the number: a program keeps no record of itself.
        return None
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError as error:
        if error.errno in _NOBODY:
            return _find_remains(record)
        raise
    try:
        stat = read_stat(record.pid)
        # In this order: what was read is of the process behind the descriptor if that still lives.
        has_ended = is_readable(pidfd)
    except BaseException:
        os.close(pidfd)
        raise
    if stat is None or has_ended or stat.start_time != record.start_time:
        os.close(pidfd)
        if stat is None and not has_ended:
            problem = f"process {record.pid} is there, but hidden (hidepid, proc(5))"
            raise DaemonStateUnknownError(record.name, problem)
        return _find_remains(record)
    # From here on the descriptor is that of the object, whatever it raises.
    is_owned = record.owner_pid is not None
    return FoundProcess(stat, pidfd, record.instance_id, _output(record), whole=is_owned)


def _find_remains(record: DaemonRecord) -> Remains | None:
    """Find what is left of the session and the group of a process that has ended."""
    stats = all_stats()
    led = [stat for stat in stats.values() if stat.is_led_by(record.pid) and not stat.dead]
    main = stats.get(record.pid)
    if not led or (main is not None and main.start_time != record.start_time):
        # The number is given again only when nobody is left who was led by it.
        return None
    # One that is ours for sure proves it for all: as long as there was one, nobody else could have
    # been given the number.
    if main is not None or any(_is_its_own(stat, record) for stat in led):
        return Remains(record.pid, led, _output(record), whole=record.owner_pid is not None)
    pids = ", ".join(str(stat.pid) for stat in led)
    raise DaemonStateUnknownError(
        record.name,
        f"process {record.pid} has ended, and whether {pids}, of a session or group of that "
        "number, is left of it can't be told; end that if it is",
    )


def _is_its_own(stat: Stat, record: DaemonRecord) -> bool:
    return _is_older(stat, record) or _bears(stat, record) or _has_its_port(stat, record)


def _is_older(stat: Stat, record: DaemonRecord) -> bool:
    # A worker may be born in the very tick (10 ms) in which the daemon was seen to be up; all
    # numbers of the system can't be given in turn within one.
    return record.start_time <= stat.start_time <= record.seen_alive


def _bears(stat: Stat, record: DaemonRecord) -> bool:
    return has_variable(stat.pid, INSTANCE_VARIABLE, record.instance_id)


def _has_its_port(stat: Stat, record: DaemonRecord) -> bool:
    # nginx and redis overwrite what they bear, and have new workers after each reload.
    hosts = () if record.port is None else ("127.0.0.1", "::1")
    return any(
        holds_socket(stat.pid, listener.inode)
        for host in hosts
        for listener in listeners_at(host, record.port or 0)
    )


def find_strays(process: Process, instance_id: str) -> Remains | None:
    """Give all living processes that bear the id of an instance."""
    with suppress(OSError):
        living = [stat for stat in all_stats().values() if not stat.dead]
        bearers = [s for s in living if has_variable(s.pid, INSTANCE_VARIABLE, instance_id)]
        return Remains(process.pid or 0, bearers, None) if bearers else None
    return None


def _output(record: DaemonRecord) -> FileOutput | None:
    if record.log_file is None:
        return None
    return FileOutput(Path(record.log_file), DEFAULT_TAIL_BYTES, 0)
