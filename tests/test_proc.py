"""This machine and single processes, as the kernel shows them."""

import errno
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from tests import processes
from tests.processes import ME, WAIT, Start, say, stat_of, zombie
from trio_lifecycle import _proc
from trio_lifecycle._proc import (
    all_stats,
    command_line,
    ephemeral_ports,
    has_variable,
    read_stat,
    signal_process,
    wchan,
)
from trio_lifecycle._stat import Stat, parse_stat

start = processes.start
gone = processes.gone
files = processes.files

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
    monkeypatch.setattr(_proc, "all_pids", lambda: [gone, ME])
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


def test_a_variable_of_the_first_environment_is_seen() -> None:
    name, value = next(iter(os.environ.items()))
    assert has_variable(ME, name, value)
    assert not has_variable(ME, name, value + "x")
    assert not has_variable(ME, f"NO_{name}", value)


def test_a_process_that_is_gone_has_no_variable(gone: int) -> None:
    assert not has_variable(gone, "HOME", "/")
