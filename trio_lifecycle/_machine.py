"""This machine, and which of its processes is meant."""

import functools
import os
import socket
import time

from trio_lifecycle._procfs import boot_id, namespace, read_about
from trio_lifecycle._records import Identity
from trio_lifecycle._stat import parse_stat


@functools.cache
def this_boot() -> str:
    """Give what tells this boot of this machine from every other.

    Raises:
        OSError: It can't be read; this is no Linux, say.
    """
    return boot_id()


def host_name() -> str:
    """Give the machine's name, as it is now."""
    return socket.gethostname()


def this_namespace() -> int:
    """Give the pid namespace of this program (pid_namespaces(7)); 0 where that can't be told."""
    return namespace("self", "pid") or 0


def own_start_time() -> int:
    """Give when this program started, in clock ticks since the machine's boot.

    Raises:
        OSError: It can't be read; this is no Linux, say.
    """
    stat = read_about("self", "stat")
    if stat is None:
        raise FileNotFoundError("what this program is can't be read")
    return parse_stat(stat).start_time


def now_in_ticks() -> int:
    """Give the time in clock ticks since the machine's boot, as processes' start times are."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def identity_of(pid: int, start_time: int) -> Identity:
    """Give the identity of a process of this machine.

    Raises:
        OSError: This machine can't be told from others.
    """
    return Identity(host_name(), this_boot(), pid, start_time, this_namespace())
