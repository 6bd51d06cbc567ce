"""Processes, their families and their sockets, as the kernel shows them."""

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import pytest

from trio_lifecycle import _proc
from trio_lifecycle._proc import (
    all_stats,
    command_line,
    ephemeral_ports,
    has_variable,
    holds_socket,
    is_descendant,
    open_pidfd,
    read_stat,
    signal_process,
    tree_of,
    wchan,
)
from trio_lifecycle._stat import Stat, parse_stat

ME = os.getpid()


class Start(Protocol):
    """Starts a Python program; it is killed when the test is over."""

    def __call__(
        self, code: str, *arguments: str, start_new_session: bool = False
    ) -> "subprocess.Popen[str]": ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Start Python programs that are killed when the test is over."""
    with ExitStack() as stack:

        def start(
            code: str, *arguments: str, start_new_session: bool = False
        ) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", code, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=start_new_session,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield start


def say(process: "subprocess.Popen[str]") -> list[int]:
    """The numbers on the next line that a program writes."""
    assert process.stdout is not None
    return [int(word) for word in process.stdout.readline().split()]


def stat_of(pid: int) -> Stat:
    """What the kernel says of a process that is there."""
    stat = read_stat(pid)
    assert stat is not None
    return stat


WAIT = "import sys; print(1, flush=True); sys.stdin.read()"


@contextmanager
def zombie() -> Iterator[int]:
    """A child that has ended and that nobody has waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        yield pid
    finally:
        os.waitpid(pid, 0)


@pytest.fixture
def gone() -> int:
    """The number of a process that has ended and been waited for."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    return pid


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes | OSError]:
    """What /proc says, file by file; files that are not named here are not there."""
    contents: dict[str, bytes | OSError] = {}

    def read(path: str) -> bytes:
        content = contents.get(path, FileNotFoundError(errno.ENOENT, "not there", path))
        if isinstance(content, OSError):
            raise content
        return content

    monkeypatch.setattr(_proc, "_read", read)
    return contents


# --- this machine ---------------------------------------------------------------------------------


def test_kernels_own_ports_contain_the_one_it_gives_for_port_0() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname()[1] in ephemeral_ports()


def test_kernels_own_ports_include_both_ends(files: dict[str, bytes | OSError]) -> None:
    files["/proc/sys/net/ipv4/ip_local_port_range"] = b"100\t200\n"
    assert range(100, 201) == ephemeral_ports()


def test_kernels_own_ports_are_linuxs_when_they_can_not_be_read(
    files: dict[str, bytes | OSError],
) -> None:
    assert range(32_768, 61_000) == ephemeral_ports()


# --- one process ----------------------------------------------------------------------------------


def test_stat_of_this_program_agrees_with_what_it_knows_itself() -> None:
    stat = stat_of(ME)
    assert (ME, os.getppid(), os.getpgrp(), os.getsid(0)) == (
        stat.pid,
        stat.ppid,
        stat.group,
        stat.session,
    )
    assert "R" == stat.state
    assert not stat.dead


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**40, 10**30])
@pytest.mark.fault(65)
def test_number_that_no_process_has_has_no_stat(pid: int) -> None:
    assert read_stat(pid) is None


def test_process_that_was_waited_for_has_no_stat(gone: int) -> None:
    assert read_stat(gone) is None


@pytest.mark.fault(65)
def test_number_of_a_thread_is_no_process(start: Start) -> None:
    code = """if 1:
        import sys, threading
        def work():
            print(threading.get_native_id(), flush=True)
            sys.stdin.read()
        threading.Thread(target=work).start()
    """
    process = start(code)
    (thread,) = say(process)
    assert Path(f"/proc/{thread}/stat").exists()
    assert read_stat(thread) is None
    assert 2 == stat_of(process.pid).threads


@pytest.mark.parametrize(
    ("error", "is_there"),
    [(OSError(errno.EMFILE, "no descriptor left"), True), (ProcessLookupError(), False)],
    ids=["no descriptor left", "gone since"],
)
def test_stat_is_believed_unless_the_process_is_gone_since(
    monkeypatch: pytest.MonkeyPatch, error: OSError, is_there: bool
) -> None:
    def refuse(_: int) -> int:
        raise error

    monkeypatch.setattr(os, "pidfd_open", refuse)
    assert is_there == (read_stat(ME) is not None)


@pytest.mark.parametrize("name", [b"a) R 1 1", b"((", b"))) S (", b"a\nb c", b"\xff\xfe"])
def test_stat_is_read_whatever_the_process_calls_itself(start: Start, name: bytes) -> None:
    code = """if 1:
        import os, sys
        open("/proc/self/comm", "wb").write(bytes.fromhex(sys.argv[1]))
        print(os.getpid(), os.getppid(), flush=True)
        sys.stdin.read()
    """
    process = start(code, name.hex())
    pid, parent = say(process)
    stat = stat_of(pid)
    assert (parent, name.decode(errors="backslashreplace")) == (stat.ppid, stat.command)


def test_stat_reads_each_field_from_its_place() -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    expected = Stat(
        pid=7, ppid=4, group=5, session=6, state="S", threads=20, start_time=22, command="a (b) c"
    )
    assert expected == parse_stat(f"7 (a (b) c) S {fields}\n".encode())


@pytest.mark.fault(98)
def test_zombie_is_dead_though_it_has_a_stat() -> None:
    with zombie() as pid:
        assert "Z" == stat_of(pid).state
        assert stat_of(pid).dead


@pytest.mark.fault(98)
def test_process_is_alive_when_only_its_main_thread_has_ended(start: Start) -> None:
    code = """if 1:
        import ctypes, sys, threading, time
        started = threading.Event()
        def work():
            started.set()
            while open("/proc/self/stat").read().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.001)
            print(1, flush=True)
            sys.stdin.read()
        threading.Thread(target=work).start()
        started.wait()
        libc = ctypes.CDLL(None)
        libc.pthread_exit.argtypes = [ctypes.c_void_p]
        libc.syscall(EXIT, 0)
    """
    exit_number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    process = start(code.replace("EXIT", str(exit_number)))
    say(process)
    stat = stat_of(process.pid)
    assert "Z" == stat.state
    assert not stat.dead
    assert signal_process(stat, signal.SIGKILL)
    process.wait()


def test_all_stats_has_this_program_and_its_children(start: Start) -> None:
    process = start(WAIT)
    say(process)
    stats = all_stats()
    assert stat_of(process.pid).start_time == stats[process.pid].start_time
    assert ME == stats[process.pid].ppid
    assert 1 in stats


def test_all_stats_passes_over_a_process_that_vanishes_meanwhile(
    monkeypatch: pytest.MonkeyPatch, gone: int
) -> None:
    monkeypatch.setattr(_proc, "_all_pids", lambda: [gone, ME])
    assert [ME] == list(all_stats())


def test_all_stats_is_empty_when_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(os, "scandir", refuse)
    assert {} == all_stats()


def test_wchan_names_the_place_where_a_process_waits(start: Start) -> None:
    process = start(WAIT)
    say(process)
    deadline = time.monotonic() + 5
    while not (place := wchan(process.pid)) and time.monotonic() < deadline:
        os.sched_yield()  # it is on its way to the read
    if not place:
        pytest.skip("this kernel tells nobody where a process waits")
    assert "pipe" in place


def test_wchan_is_empty_when_it_is_not_known(files: dict[str, bytes | OSError]) -> None:
    files["/proc/7/wchan"] = b"0"
    assert ("", "") == (wchan(7), wchan(8))


def test_command_line_is_one_line_for_people(start: Start) -> None:
    process = start(WAIT, "two words", "line\nbreak", "esc\x1b[0m")
    say(process)
    line = command_line(process.pid)
    assert line.startswith(f"{sys.executable} -I -S -c import sys;")
    assert line.endswith("two words line?break esc?[0m")


def test_command_line_is_cut_when_it_is_long(start: Start) -> None:
    process = start(WAIT, "x" * 1000)
    say(process)
    assert 200 == len(command_line(process.pid))
    assert command_line(process.pid).endswith("x...")


def test_command_line_of_a_zombie_is_its_name_in_brackets() -> None:
    with zombie() as pid:
        assert "[true]" == command_line(pid)


def test_command_line_is_empty_when_the_process_is_gone(
    gone: int, files: dict[str, bytes | OSError]
) -> None:
    assert "" == command_line(gone)
    files["/proc/7/cmdline"] = b""  # and no more when its name is looked for
    assert "" == command_line(7)


# --- acting on a process --------------------------------------------------------------------------


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


def reborn(stat: Stat, start_time: int | None = None) -> Stat:
    """The same number, from another life."""
    other = stat.start_time - 1 if start_time is None else start_time
    return Stat(stat.pid, stat.ppid, stat.group, stat.session, "S", other, stat.command)


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


@pytest.mark.parametrize("pid", [1, ME])
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


# --- families of processes ------------------------------------------------------------------------

# Starts one process in its group, one in a group of its own, one in a session of its own, and one
# that has lost its parent; says their numbers.
FAMILY = """if 1:
    import os, sys
    def fork(change=None):
        pid = os.fork()
        if not pid:
            if change:
                change()
            write.write(b"x")
            sys.stdin.read()
            os._exit(0)
        return pid
    read, write = (os.fdopen(fd, mode, 0) for fd, mode in zip(os.pipe(), ("rb", "wb")))
    plain, group, session = fork(), fork(os.setpgrp), fork(os.setsid)
    told, tell = os.pipe()
    middle = os.fork()
    if not middle:
        os.write(tell, str(fork()).encode())
        os._exit(0)
    os.waitpid(middle, 0)
    orphan = int(os.read(told, 20))
    for _ in range(4):
        read.read(1)
    print(os.getpid(), plain, group, session, orphan, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def family(start: Start) -> Iterator[list[int]]:
    """A leader, its child, one in its own group, one in its own session, and an orphan."""
    process = start(FAMILY, start_new_session=True)
    pids = say(process)
    stats = [stat_of(pid) for pid in pids]
    try:
        yield pids
    finally:
        # By what was true when they were started: their leader may be gone.
        for stat in stats:
            signal_process(stat, signal.SIGKILL)
        for stat in stats:
            wait_until_gone(stat)


def wait_until_gone(stat: Stat) -> None:
    """Wait for the end of a process that may be somebody else's child."""
    pidfd = open_pidfd(stat)
    if pidfd is not None:
        select.select([pidfd], [], [])
        os.close(pidfd)


def pids_of(stats: list[Stat]) -> list[int]:
    return [stat.pid for stat in stats]


def test_tree_has_the_leader_first_and_all_who_descend_from_it(family: list[int]) -> None:
    found = pids_of(tree_of(stat_of(family[0]), all_stats()))
    assert family[0] == found[0]
    assert sorted(family) == sorted(found)
    assert found == pids_of(tree_of(family[0], all_stats()))


def test_tree_without_its_leader_has_those_who_kept_its_session(family: list[int]) -> None:
    leader, plain, group, session, orphan = family
    stat = stat_of(leader)
    signal_process(stat, signal.SIGKILL)
    wait_until_gone(stat)
    # A new session without the parent in between can't be told from a stranger's any more.
    assert {plain, group, orphan} == set(pids_of(tree_of(stat, all_stats())))
    assert session not in pids_of(tree_of(stat, all_stats()))


@pytest.mark.fault(44)
def test_tree_is_empty_when_the_number_is_anothers_now(family: list[int]) -> None:
    assert [] == tree_of(reborn(stat_of(family[0])), all_stats())


def test_a_variable_of_the_first_environment_is_seen() -> None:
    name, value = next(iter(os.environ.items()))
    assert has_variable(ME, name, value)
    assert not has_variable(ME, name, value + "x")
    assert not has_variable(ME, f"NO_{name}", value)


def test_a_process_that_is_gone_has_no_variable(gone: int) -> None:
    assert not has_variable(gone, "HOME", "/")


def test_descendants_are_those_in_the_tree(family: list[int]) -> None:
    assert [True] * 5 == [is_descendant(pid, family[0]) for pid in family]
    assert not is_descendant(ME, family[0])
    assert not is_descendant(family[3], family[1])
    assert is_descendant(family[1], ME)


def test_process_that_is_gone_descends_from_nobody(gone: int) -> None:
    assert not is_descendant(gone, ME)


def test_circle_of_parents_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    circle = {7: process_of(7, parent=8), 8: process_of(8, parent=7)}
    monkeypatch.setattr(_proc, "_read_stat", circle.get)
    assert not is_descendant(7, 9)


def process_of(
    pid: int, parent: int = 1, group: int = 1, session: int = 1, state: str = "S", started: int = 1
) -> Stat:
    """A process that is only thought of."""
    return Stat(pid, parent, group, session, state, started, "x")


def tree(leader: Stat | int, *stats: Stat) -> list[int]:
    return pids_of(tree_of(leader, {stat.pid: stat for stat in stats}))


FIRST = process_of(10, group=10, session=10)


def test_tree_of_a_leader_alone() -> None:
    assert [10] == tree(FIRST, FIRST, process_of(1, parent=0), process_of(11))


def test_tree_leaves_zombies_out_but_not_what_they_lead() -> None:
    zombie = process_of(10, group=10, session=10, state="Z")
    assert [11, 12] == tree(
        zombie,
        zombie,
        process_of(11, session=10),
        process_of(12, parent=11),
        process_of(13, 10, state="X"),
    )


def test_tree_is_empty_when_nothing_is_left() -> None:
    assert [] == tree(FIRST, process_of(1, parent=0))


def test_tree_has_each_once_when_parents_form_a_circle() -> None:
    assert [10, 11] == tree(FIRST, process_of(10, parent=11), process_of(11, parent=10))


def test_tree_never_has_this_program() -> None:
    ours = process_of(ME, parent=1, session=10)
    under = process_of(ME + 1, parent=ME, session=ME + 1)
    # What is led by the daemon's leader, who is gone, is found; what we started is not.
    assert [14] == tree(10, ours, under, process_of(14, parent=1, session=10))


def test_tree_of_this_program_its_ancestors_and_process_1_is_empty() -> None:
    family = [
        process_of(1, parent=0),
        process_of(10, parent=1, session=10),
        process_of(ME, parent=10, session=10),
        process_of(13, parent=10),
    ]
    assert [[], [], []] == [tree(pid, *family) for pid in (1, 10, ME)]
