"""Acting on a process: it gets the signal, and nobody who has its number later."""

import errno
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import processes
from tests.processes import ME, WAIT, Start, reborn, say, stat_of, zombie
from trio_lifecycle._proc import all_stats, holds_socket, open_pidfd, read_stat, signal_process
from trio_lifecycle._stat import Stat

start = processes.start


def is_readable(descriptor: int) -> bool:
    """Whether a pidfd's process has ended."""
    return bool(select.select([descriptor], [], [], 0)[0])


def test_pidfd_becomes_readable_when_the_process_ends(start: Start) -> None:
    process = start(WAIT)
    say(process)
    pidfd = open_pidfd(stat_of(process.pid))
    assert pidfd is not None
    try:
        assert not is_readable(pidfd)
        assert not os.get_inheritable(pidfd)
        process.kill()
        process.wait()
        assert is_readable(pidfd)
    finally:
        os.close(pidfd)


@pytest.mark.fault(98)
def test_pidfd_of_a_zombie_is_readable_and_the_zombie_gets_no_signal() -> None:
    with zombie() as pid:
        stat = stat_of(pid)
        pidfd = open_pidfd(stat)
        assert pidfd is not None
        assert is_readable(pidfd)
        os.close(pidfd)
        assert not signal_process(stat, 0)


@pytest.mark.fault(44)
def test_process_that_got_the_number_later_gets_no_signal_and_no_pidfd(start: Start) -> None:
    process = start(WAIT)
    say(process)
    former = reborn(stat_of(process.pid))
    assert open_pidfd(former) is None
    assert not signal_process(former, signal.SIGKILL)
    process.communicate()  # its orderly end: the signal would have been -9
    assert 0 == process.returncode


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**40])
@pytest.mark.fault(65)
def test_number_that_no_process_has_gets_no_signal(pid: int) -> None:
    stat = Stat(pid, 1, 1, 1, "S", 1, "x")
    assert open_pidfd(stat) is None
    assert not signal_process(stat, signal.SIGKILL)


@pytest.mark.parametrize("pid", [1, ME], ids=["process 1", "this program"])
@pytest.mark.fault(65)
def test_this_program_and_process_1_are_never_signalled(pid: int) -> None:
    with pytest.raises(ValueError, match="never signalled"):
        signal_process(stat_of(pid), 0)


def test_signal_arrives_and_the_answer_says_so(start: Start) -> None:
    process = start(WAIT)
    say(process)
    assert signal_process(stat_of(process.pid), signal.SIGTERM)
    assert -signal.SIGTERM == process.wait()
    assert not signal_process(Stat(process.pid, ME, 1, 1, "S", 1, "x"), signal.SIGTERM)


def test_process_that_ends_in_between_gets_no_signal(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(WAIT)
    say(process)
    stat = stat_of(process.pid)

    def too_late(*_: object) -> None:
        raise ProcessLookupError

    monkeypatch.setattr(signal, "pidfd_send_signal", too_late)
    assert not signal_process(stat, signal.SIGTERM)


def test_another_users_process_is_refused_loudly(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = start(WAIT)
    say(process)

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
    with pytest.raises(PermissionError):
        signal_process(stat_of(process.pid), signal.SIGTERM)


@contextmanager
def descriptors_left(number: int) -> Iterator[None]:
    """Let this program open so many descriptors more."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + number, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.fault(7)
@pytest.mark.parametrize("number", [0, 1])
def test_lack_of_descriptors_is_not_taken_for_the_end_of_a_process(number: int) -> None:
    stat = stat_of(ME)
    with descriptors_left(number):
        with pytest.raises(OSError, match="Too many open files"):
            open_pidfd(stat)
        for look in (lambda: read_stat(ME), all_stats, lambda: holds_socket(ME, 1)):
            if not number:
                with pytest.raises(OSError, match="Too many open files"):
                    look()


# Runs as the first process of a namespace where numbers can be given on purpose: ends a process,
# gives its number to another, and tries to signal the first.
REBIRTH = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from trio_lifecycle._proc import open_pidfd, read_stat, signal_process

def spawn_as(pid):
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(str(pid - 1))
    return os.posix_spawn("/bin/sleep", ["sleep", "60"], {})

first = spawn_as(500)
stat = read_stat(first)
assert 500 == first and stat is not None
os.kill(first, signal.SIGKILL)
os.waitpid(first, 0)
while True:  # until the clock that start times are counted by has moved on
    second = spawn_as(500)
    assert 500 == second
    if read_stat(second).start_time != stat.start_time:
        break
    os.kill(second, signal.SIGKILL)
    os.waitpid(second, 0)
os.kill(500, 0)
assert open_pidfd(stat) is None
assert not signal_process(stat, signal.SIGKILL)
assert (0, 0) == os.waitpid(second, os.WNOHANG)
assert signal_process(read_stat(second), signal.SIGKILL)
assert (second, signal.SIGKILL) == os.waitpid(second, 0)
print("the bystander lived")
"""


@pytest.mark.needs("unshare")
@pytest.mark.fault(44, 99)
def test_stranger_lives_when_the_kernel_has_given_it_the_number_of_our_process() -> None:
    unshare = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    if subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("this system gives no process its own process numbers")
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [*unshare, "--kill-child", sys.executable, "-c", REBIRTH, str(root)],
        capture_output=True,
        text=True,
    )
    assert ("the bystander lived\n", "") == (done.stdout, done.stderr)
