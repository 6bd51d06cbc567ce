"""Files of /proc: proc(5)."""

import functools
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

# What /proc says of what is not there (ESRCH: gone between open and read) or is hidden from us.
# No other error is taken for an end: with no descriptor left, every process would seem dead.
ABSENT: Final = (FileNotFoundError, ProcessLookupError, NotADirectoryError, PermissionError)


def read(path: str) -> bytes:
    """Read a file."""
    # A third of what pathlib takes: a look at all processes reads some hundred files.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(functools.partial(os.read, fd, 65_536), b""))
    finally:
        os.close(fd)


def read_about(pid: int | str, name: str) -> bytes | None:
    """Read a file about a process (or "self"), such as "environ"; None if that can't be had."""
    try:
        return read(f"/proc/{pid}/{name}")
    except ABSENT:
        return None


def namespace(pid: int | str, kind: str) -> int | None:
    """Give the number of a process's namespace (namespaces(7)); None if that can't be had."""
    with suppress(*ABSENT):
        return Path(f"/proc/{pid}/ns/{kind}").stat().st_ino
    return None


def link(pid: int | str, name: str) -> str | None:
    """Give where a link of a process points, such as "exe"; None if that can't be had."""
    with suppress(*ABSENT):
        return os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115  # not all of them are paths
    return None


def opened(pid: int | str, name: str) -> os.stat_result | None:
    """Look at the file behind a link of a process, also one with no path any more, or elsewhere."""
    with suppress(*ABSENT):
        return os.stat(f"/proc/{pid}/{name}")  # noqa: PTH116
    return None


def shows_us() -> bool:
    """Say whether /proc is that of this program's own pid namespace (pid_namespaces(7))."""
    with suppress(*ABSENT):
        return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115
    return False


def boot_id() -> str:
    """Give what tells this boot of this machine from every other: random(4).

    Raises:
        OSError: It can't be read; this is no Linux, say.
    """
    return read("/proc/sys/kernel/random/boot_id").decode().strip()


def available_memory() -> int | None:
    """Give how many bytes programs can still get without swapping: MemAvailable of proc(5).

    None where that can't be had.
    """
    with suppress(*ABSENT):
        for line in read("/proc/meminfo").splitlines():
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) * 1024  # it says kB and means KiB
    return None


def exclusive_lockers(file: os.stat_result) -> list[int]:
    """List the processes that keep a file, or part of it, locked for themselves: proc_locks(5)."""
    place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    with suppress(*ABSENT):
        rows = [line.split() for line in read("/proc/locks").decode().splitlines()]
        # A waiter has "->" in the second column; the pid of one in another namespace is 0 or -1.
        found = [int(row[4]) for row in rows if row[3] == "WRITE" and row[5] == place]
        return [pid for pid in dict.fromkeys(found) if pid > 0]
    return []


def unix_listeners(path: str) -> list[int]:
    """List the sockets that listen at a path, by their inodes: proc_net_unix(5).

    A path is there as it was bound: none is found of one that was relative, or went over a link.
    One whose file was removed or replaced is still there.
    """
    wanted = os.fsencode(path)
    with suppress(*ABSENT):
        rows = (row.split(maxsplit=7) for row in read("/proc/net/unix").splitlines()[1:])
        return [
            int(row[6])
            for row in rows
            # __SO_ACCEPTCON of include/uapi/linux/net.h: who listens.
            if len(row) == 8 and row[7] == wanted and int(row[3], 16) & 0x10000
        ]
    return []


def all_pids() -> list[int]:
    """List all processes; nothing when there is no /proc."""
    with suppress(*ABSENT), os.scandir("/proc") as entries:
        return [int(entry.name) for entry in entries if entry.name.isdecimal()]
    return []


def uids_of(pid: int) -> frozenset[int]:
    """Give the users whom a process may act as: real, effective, saved; none if it is gone."""
    text = read_about(pid, "status") or b""
    line = next((line for line in text.splitlines() if line.startswith(b"Uid:")), b"")
    return frozenset(map(int, line.split()[1:]))
