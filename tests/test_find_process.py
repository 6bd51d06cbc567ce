"""Finding the process of a record: the right one, none for sure, or that it can't be told."""

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.processes import WAIT, Start, files, gone, say, start, stat_of, zombie
from tests.stepping import only_root, python_for_all
from tests.support import (
    PATIENCE_S,
    QUICK_PYTHON,
    UNMEASURED,
    end,
    permitted,
    run_app,
    spawn,
    spawn_python,
    wait_until_gone,
)
from tests.test_pid_reuse import CHOOSE_A_NUMBER, NAMESPACE
from trio_lifecycle import ConfigError, DaemonStateUnknownError, LocalSpawner, Output
from trio_lifecycle._machine import identity_of
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.abc import DaemonRecord, Identity, Process, Verdict
from trio_lifecycle.spawner import _finding
from trio_lifecycle.spawner._spawned_process import SpawnedProcess

__all__ = ["files", "gone", "start"]


def record_of(identity: Identity | None, **changes: Any) -> DaemonRecord:
    """What is remembered of a process."""
    assert identity is not None
    usual = {"name": "daemon", "instance_id": "0" * 32, "started_at": 0.0, "heartbeat_at": 0.0}
    return DaemonRecord(**{**usual, **identity._asdict(), **changes})


def record_at(pid: int, **changes: Any) -> DaemonRecord:
    """What would be remembered of a process that is there."""
    return record_of(identity_of(pid, stat_of(pid).start_time), **changes)


async def find(record: DaemonRecord) -> Process | None:
    """What the spawner of this machine finds."""
    return await LocalSpawner().find_process(record)


async def unknown(record: DaemonRecord) -> str:
    """Why the spawner of this machine can't tell."""
    with pytest.raises(DaemonStateUnknownError) as caught:
        await find(record)
    assert record.name == caught.value.daemon
    return str(caught.value)


@contextmanager
def living() -> Iterator[int]:
    """The number of a process that stays."""
    with subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True) as process:
        try:
            yield process.pid
        finally:
            process.kill()


# --- it is found ----------------------------------------------------------------------------------


async def test_a_daemon_that_lives_is_found_and_one_that_was_stopped_is_gone(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    async with trio.open_nursery() as nursery:
        process = await spawn(
            nursery, "/bin/sleep", "1000", detached=True, gated=True, output=Output(to=log)
        )
        record = record_of(process.identity, log_file=str(process.log_file))
        found_at_gate = await find(record)
        await process.open_gate()
        found = await find(record)
        assert found_at_gate is not None
        assert found is not None
        for each in (found_at_gate, found):
            assert process.identity == each.identity
            assert (process.pid, None, False) == (each.pid, each.status, each.gone)
            assert log == each.log_file
        await found.signal_tree(signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            await found.wait_gone()
        assert (True, True) == (found.ended, found.gone)
        assert process.identity == found.identity
        assert await find(record) is None
        await end(process)


async def test_its_output_is_the_end_of_its_log_and_what_it_writes_from_now_on(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log"
    log.write_text("of the last run\n")
    code = "print('first'); sys.stdin; import os; os.kill(os.getpid(), 19); print('second')"
    async with trio.open_nursery() as nursery:
        process = await spawn_python(
            nursery, f"import sys; {code}", detached=True, output=Output(to=log)
        )
        with trio.fail_after(PATIENCE_S):
            # Nobody tells that it is stopped.
            while stat_of(process.pid).state != "T":  # noqa: ASYNC110
                await trio.sleep(0.001)
        found = await find(record_of(process.identity, log_file=str(log)))
        assert found is not None
        assert b"of the last run\nfirst\n" == found.output_tail()
        lines = found.lines()
        await found.send_signal(signal.SIGCONT)
        with trio.fail_after(PATIENCE_S):
            assert ["second"] == [line async for line in lines]
        assert b"of the last run\nfirst\nsecond\n" == found.output_tail()
        await end(process)


async def test_one_without_a_log_has_no_output() -> None:
    with living() as pid:
        found = await find(record_at(pid))
        assert found is not None
        assert (b"", None) == (found.output_tail(), found.log_file)
        assert [] == [line async for line in found.lines()]


@pytest.mark.parametrize("kind", ["FIFO", "link", "directory", "nothing"])
async def test_what_was_put_in_the_place_of_its_log_neither_holds_nor_leads_us(
    tmp_path: Path, kind: str
) -> None:
    log = tmp_path / "log"
    (tmp_path / "secret").write_text("secret\n")
    if kind == "FIFO":
        os.mkfifo(log)
    elif kind == "link":
        log.symlink_to(tmp_path / "secret")
    elif kind == "directory":
        log.mkdir()
    with living() as pid:
        found = await find(record_at(pid, log_file=str(log)))
        assert found is not None
        lines = found.lines()
        assert b"" == found.output_tail()
        os.kill(pid, signal.SIGKILL)
        with trio.fail_after(PATIENCE_S):
            assert [] == [line async for line in lines]


async def test_the_name_of_the_machine_does_not_matter_within_one_boot() -> None:
    with living() as pid:
        found = await find(record_at(pid, host="called-so-before"))
        assert found is not None
        assert pid == found.pid


async def test_one_whose_main_thread_has_ended_before_the_others_lives(start: Start) -> None:
    code = """
import ctypes, sys, threading
threading.Thread(target=lambda: (print(1, flush=True), sys.stdin.read())).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    process = start(code)
    say(process)
    with trio.fail_after(PATIENCE_S):
        while stat_of(process.pid).state != "Z":  # noqa: ASYNC110  # nobody tells
            await trio.sleep(0.001)
    found = await find(record_at(process.pid))
    assert found is not None
    assert not found.ended


# --- it is gone for sure --------------------------------------------------------------------------


async def test_none_is_left_of_the_time_before_the_machine_was_started_anew() -> None:
    with living() as pid:
        assert await find(record_at(pid, boot_id="another")) is None


async def test_a_number_that_nobody_has_is_gone(gone: int) -> None:
    assert await find(record_of(identity_of(gone, 1))) is None
    assert await find(record_of(identity_of(2**22, 1))) is None


async def test_another_process_of_the_same_number_is_not_found() -> None:
    with living() as pid:
        record = record_at(pid)
        assert await find(evolve(record, start_time=record.start_time - 1)) is None


async def test_a_zombie_is_gone() -> None:
    with zombie() as pid:
        assert await find(record_at(pid)) is None


async def test_what_is_left_is_its_own_if_it_was_there_when_the_daemon_was_last_seen(
    start: Start,
) -> None:
    # As nginx's workers do, it has overwritten what told whose it is.
    child = "import os, sys; os.execve('/bin/sleep', ['sleep', '1000'], {})"
    code = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-SsEc", {child!r}])
print(child.pid, flush=True)
sys.stdin.read()
"""
    process = start(code, start_new_session=True)
    (worker,) = say(process)
    try:
        born = stat_of(worker).start_time
        record = record_at(process.pid)
        process.kill()
        process.wait()
        # Within a tick, too: a quick server is seen to be up in the one in which it forks.
        for seen_alive in (born + 1, born):
            assert await find(evolve(record, seen_alive=seen_alive)) is not None
        assert f"whether {worker}, " in await unknown(evolve(record, seen_alive=born - 1))
    finally:
        os.kill(worker, signal.SIGKILL)
    await wait_until_gone(worker)


async def test_what_is_left_is_its_own_if_it_has_the_port(start: Start) -> None:
    code = """
import os, socket, subprocess, sys
listener = socket.create_server(("127.0.0.1", 0))
child = subprocess.Popen(["/bin/sleep", "1000"], env={}, pass_fds=[listener.fileno()])
print(child.pid, listener.getsockname()[1], flush=True)
sys.stdin.read()
"""
    process = start(code, start_new_session=True)
    worker, port = say(process)
    try:
        record = record_at(process.pid)
        process.kill()
        process.wait()
        assert await find(evolve(record, port=port)) is not None
        assert f"whether {worker}, " in await unknown(record)
    finally:
        os.kill(worker, signal.SIGKILL)
    await wait_until_gone(worker)


@pytest.mark.fault(65)
async def test_this_program_a_thread_and_what_is_no_number_of_a_daemon_are_not_found(
    start: Start,
) -> None:
    assert await find(record_at(os.getpid())) is None
    process = start(f"import threading; threading.Thread(target=lambda: None).start\n{THREAD}")
    (thread,) = say(process)
    assert thread != process.pid
    start_time = stat_of(process.pid).start_time
    for ticks in range(start_time - 1, start_time + 100):
        assert await find(record_of(identity_of(thread, ticks))) is None
    for pid in (0, 1, -1, -process.pid, 2**22 + 1, 2**63, True):
        with pytest.raises(ConfigError):
            record_of(identity_of(process.pid, 1), pid=pid)


THREAD = """
import sys, threading
def stay():
    print(threading.get_native_id(), flush=True)
    sys.stdin.read()
threading.Thread(target=stay).start()
"""

RECYCLED = """
import subprocess
from tests.test_find_process import record_of

async def main():
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", guarantee="scoped", gated=True)
        record = record_of(process.identity)
        await process.signal_tree(signal.SIGKILL)
        await process.wait_gone()
        process.close()
    # Start times count in hundredths of a second. No machine gives a number again within one.
    time.sleep(0.03)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(record.pid - 1))
    stranger = subprocess.Popen(["/bin/sleep", "1000"])
    assert stranger.pid == record.pid
    print(await LocalSpawner().find_process(record))
    stranger.kill()
    stranger.wait()

trio.run(main)
"""


@pytest.mark.fault(44)
@pytest.mark.skipif(not permitted(*CHOOSE_A_NUMBER), reason="no pid namespace may be made")
def test_a_stranger_that_got_the_number_is_not_found() -> None:
    assert ["None"] == run_app(RECYCLED, within=NAMESPACE)


# --- it can't be told -----------------------------------------------------------------------------


async def test_a_daemon_of_another_machine_is_unknown() -> None:
    record = record_at(os.getpid(), host="elsewhere", boot_id="another")
    why = await unknown(record)
    assert f"machine elsewhere, and this is {socket.gethostname()}" in why


async def test_a_daemon_of_another_pid_namespace_is_unknown_even_if_the_number_is_free(
    gone: int,
) -> None:
    record = record_of(identity_of(gone, 1))
    assert "pid namespace" in await unknown(evolve(record, pid_namespace=1))
    assert await find(evolve(record, pid_namespace=0)) is None


async def test_nothing_is_told_from_the_proc_of_another_pid_namespace(
    gone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_finding, "shows_us", lambda: False)
    assert "pid namespace" in await unknown(record_of(identity_of(gone, 1)))


async def test_nothing_is_told_of_a_process_that_is_hidden(files: dict[str, bytes]) -> None:
    with living() as pid:
        assert "hidden" in await unknown(record_of(identity_of(pid, 1)))


@pytest.mark.parametrize("what", ["pidfd_open", "read_stat", "this_boot"])
async def test_nothing_is_told_when_this_program_lacks_descriptors(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with living() as pid:
        record = record_at(pid)
        monkeypatch.setattr(os if what == "pidfd_open" else _finding, what, refuse)
        assert f"process {pid} can't be looked at: Too many open files" in await unknown(record)


# --- who listens ----------------------------------------------------------------------------------

LISTEN = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"""


async def test_the_listener_is_its_own_or_of_somebody_else_or_of_nobody(start: Start) -> None:
    daemon, stranger = start(LISTEN), start(LISTEN)
    (own,), (foreign,) = say(daemon), say(stranger)
    found = await find(record_at(daemon.pid))
    assert found is not None
    for _ in range(2):
        assert Verdict.OURS is await found.listener_at("127.0.0.1", own)
        assert Verdict.FOREIGN is await found.listener_at("127.0.0.1", foreign)
    stranger.kill()
    stranger.wait()
    assert Verdict.UNKNOWN is await found.listener_at("127.0.0.1", foreign)


async def test_a_listener_that_has_left_its_tree_is_known_by_what_it_bears(start: Start) -> None:
    instance_id = os.urandom(16).hex()
    daemon = start(WAIT)
    say(daemon)
    with subprocess.Popen(  # noqa: ASYNC220  # it says at once that it is there
        [sys.executable, *QUICK_PYTHON, LISTEN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={INSTANCE_VARIABLE: instance_id},
        text=True,
    ) as stray:
        try:
            (port,) = say(stray)
            found = await find(record_at(daemon.pid, instance_id=instance_id))
            assert found is not None
            assert Verdict.OURS is await found.listener_at("127.0.0.1", port)
            found = await find(record_at(daemon.pid, instance_id="another"))
            assert found is not None
            assert Verdict.FOREIGN is await found.listener_at("127.0.0.1", port)
        finally:
            stray.kill()


AMONG_THE_UNREADABLE = """
import subprocess, sys
from trio_lifecycle._proc import read_stat
from trio_lifecycle.spawner._listening import Listening

PYTHON, LISTEN = sys.argv[1:]

def listener():
    process = subprocess.Popen([PYTHON, "-SsEc", LISTEN], stdin=-1, stdout=-1, text=True)
    return process, int(process.stdout.readline())

of_root, hidden = listener()
os.setgroups([])
os.setgid(1)
os.setuid(1)
stranger, seen = listener()
listening = Listening(lambda: [read_stat(of_root.pid)], "")
print(listening.verdict_at("127.0.0.1", hidden, None).value)
print(listening.verdict_at("127.0.0.1", seen, None).value)
for process in (of_root, stranger):
    process.stdin.close()
    process.wait()
"""


@pytest.mark.fault(19)
@only_root
def test_a_daemon_that_can_not_be_looked_at_does_not_make_a_stranger_its_own() -> None:
    said = run_app(AMONG_THE_UNREADABLE, python_for_all(), LISTEN, env=UNMEASURED)
    assert ["unknown", "foreign"] == said


# --- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_an_identity_is_that_of_the_kernel_and_stays(guarantee: Any) -> None:
    async with trio.open_nursery() as nursery:
        processes: list[SpawnedProcess] = [
            await spawn(nursery, "/bin/sleep", "1000", guarantee=guarantee) for _ in range(2)
        ]
        one, other = processes
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()  # noqa: ASYNC240
        namespace = os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116
        start_time = stat_of(one.pid).start_time
        expected = Identity(socket.gethostname(), boot_id, one.pid, start_time, namespace)
        assert expected == one.identity
        assert one.identity != other.identity
        await end(*processes)
        assert expected == one.identity


async def test_one_that_nobody_knew_when_it_ended_has_no_identity() -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/true", guarantee="scoped")
        await process.wait()
        assert process.identity is None
        await end(process)
        await wait_until_gone(process.pid)
        assert process.identity is None
