"""Descriptors for a daemon: files to tell them apart by, and what a daemon says that it has."""

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

# Numbers that this program has free, so that a test can choose where its descriptors are.
FREE = range(100, 250)

# What a daemon has beyond its standard streams: number, and which file.
LOOK = """
import json, os
found = {}
for fd in map(int, os.listdir("/dev/fd")):
    if fd > 2 and os.path.exists(f"/dev/fd/{fd}"):
        stat = os.fstat(fd)
        found[fd] = [stat.st_dev, stat.st_ino]
print(json.dumps(found))
"""

File = tuple[int, int]


def file_of(fd: int) -> File:
    """Which file a descriptor is."""
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino


def files_of(descriptors: Mapping[int, int]) -> dict[int, File]:
    """What a daemon is to find that is given these."""
    return {number: file_of(fd) for number, fd in descriptors.items()}


def found(text: str | bytes) -> dict[int, File]:
    """What a daemon has found."""
    return {int(fd): (device, inode) for fd, (device, inode) in json.loads(text).items()}


@contextmanager
def files_at(numbers: Iterable[int]) -> Iterator[None]:
    """Have a file of its own at each of these numbers, which are free in this program."""
    opened = []
    try:
        for number in numbers:
            with socket.socket() as made:
                fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, number)
            opened.append(fd)
            assert number == fd
        yield
    finally:
        for fd in opened:
            os.close(fd)
