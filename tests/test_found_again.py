"""A daemon that runs is found by other programs, and what only looks like it is left alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import asdict, evolve

from tests.one_start_programs import daemon, starts
from tests.support import (
    PATIENCE_S,
    QUICK_PYTHON,
    app,
    lives,
    permitted,
    python_daemon,
    run_app,
    shell_daemon,
    wait_until_gone,
)
from tests.test_real_programs import nginx, redis
from trio_lifecycle import (
    DaemonLifecycle,
    DaemonRecord,
    HealthCheck,
    LifecycleConfig,
    SQLiteRegistry,
    attach,
)
from trio_lifecycle._machine import identity_of
from trio_lifecycle._proc import all_stats, read_stat, tree_of
from trio_lifecycle._records import RecordState
from trio_lifecycle._state_dir import log_path

# --- a record whose number is another's now -------------------------------------------------------

VICTIM = """
import os, signal, sys

def note(signum, _):
    os.write(1, b"signal %d\\n" % signum)

for signum in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(signum, note)
os.write(1, b"up\\n")
sys.stdin.read()
os.write(1, b"unharmed\\n")
"""


@contextmanager
def victim() -> Iterator[DaemonRecord]:
    """A process that notes each signal; its true record. It must get none."""
    with subprocess.Popen(
        [sys.executable, *QUICK_PYTHON, VICTIM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert b"up\n" == process.stdout.readline()
            yield record_of(process.pid)
            rest, _ = process.communicate(timeout=PATIENCE_S)
            assert (0, b"unharmed\n") == (process.returncode, rest)
        finally:
            process.kill()


def record_of(pid: int, **changes: Any) -> DaemonRecord:
    """The true record of a process, or one that differs in something."""
    stat = read_stat(pid)
    assert stat is not None
    facts: dict[str, Any] = {**identity_of(pid, stat.start_time)._asdict(), **changes}
    return DaemonRecord(
        name="daemon", instance_id="planted", started_at=1.0, heartbeat_at=1.0, **facts
    )


PLANTED = """
import json
from pathlib import Path
from tests.one_start_programs import daemon, starts

async def main(facts):
    record, registry = DaemonRecord(**facts), SQLiteRegistry()
    kinds = []
    await registry.put(record)
    try:
        await (await attach("daemon")).stop()
    except LifecycleError as error:
        kinds.append(type(error).__name__)
    await registry.put(record)
    config = daemon(Path(sys.argv[1]))
    lifecycle = DaemonLifecycle(config, observer=lambda event: kinds.append(event.kind))
    try:
        handle = await lifecycle.ensure_running()
    except LifecycleError as error:
        kinds.append(type(error).__name__)
        await registry.remove(record)
        print(json.dumps([kinds, None]))
    else:
        await handle.stop()
        print(json.dumps([kinds, handle.pid]))

trio.run(main, json.loads(sys.argv[2]))
"""

STRACE = ("strace", "-f", "-qq", "--decode-fds=pidfd", "-e", "signal=none", "-e")
SIGNALS = "trace=kill,tkill,tgkill,rt_sigqueueinfo,rt_tgsigqueueinfo,pidfd_send_signal"


def play_planted(directory: Path, record: DaemonRecord) -> list[str]:
    """Have a program that finds this record attach and ensure; tell what it saw.

    No call of it that sends a signal may name the number, where calls can be listened to.
    """
    calls, within = directory / "calls", tuple[str, ...]()
    if permitted(*STRACE, SIGNALS, "true"):
        within = (*STRACE, SIGNALS, "-o", str(calls))
    facts = {**asdict(record), "report": {}}
    (line,) = run_app(PLANTED, str(directory), json.dumps(facts), within=within)
    kinds, pid = json.loads(line)
    if within:
        # kill(-5, SIGTERM), tgkill(5, 6, SIGTERM), pidfd_send_signal(3<pid:5>, SIGTERM)
        to_whom = set(map(int, re.findall(r"[(: ]-?(\d+)[,>]", calls.read_text())))
        assert to_whom == (set() if pid is None else {pid})
    return list(kinds)


STARTED_ANEW = [
    *("DaemonNotRunningError", "starting", "record_stale", "found", "spawned", "ready"),
    *("stopping", "stopped"),
]


@pytest.mark.fault(44, 67, 99)
@pytest.mark.parametrize("state", ["starting", "ready", "stopping"])
def test_a_number_with_another_start_time_is_stale_and_is_not_signalled(
    tmp_path: Path, state: RecordState
) -> None:
    with victim() as record:
        earlier = evolve(record, start_time=record.start_time - 1, state=state)
        assert STARTED_ANEW == play_planted(tmp_path, earlier)


@pytest.mark.fault(44, 55, 99)
@pytest.mark.parametrize("state", ["starting", "ready", "stopping"])
def test_a_record_of_before_a_reboot_is_stale_and_its_number_is_not_signalled(
    tmp_path: Path, state: RecordState
) -> None:
    with victim() as record:
        assert STARTED_ANEW == play_planted(
            tmp_path, evolve(record, boot_id="another", state=state)
        )


@pytest.mark.fault(44, 99, 100)
@pytest.mark.parametrize(
    "changes", [{"pid_namespace": 1}, {"host": "another", "boot_id": "another"}], ids=str
)
def test_a_number_that_counts_elsewhere_is_unknown_and_nothing_is_signalled_or_started(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    with victim() as record:
        kinds = play_planted(tmp_path, evolve(record, **changes))
    unknown = "DaemonStateUnknownError"
    assert [unknown, "starting", "failed", unknown] == kinds
    assert not (tmp_path / "starts").exists()


NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
CHOOSE_A_NUMBER = (*NAMESPACE, "sh", "-c", "echo 400 > /proc/sys/kernel/ns_last_pid")

RECYCLED = """
from pathlib import Path
from tests.one_start_programs import daemon, starts
from tests.test_found_again import victim

async def main():
    config = daemon(Path(sys.argv[1]))
    handle = await DaemonLifecycle(config).ensure_running()
    registry = SQLiteRegistry()
    record = await registry.get("daemon")
    os.kill(handle.pid, signal.SIGKILL)
    await handle.wait_exit()
    while os.path.exists(f"/proc/{handle.pid}"):
        await trio.sleep(0.001)
    # Start times count in hundredths of a second. No machine gives a number again within one.
    await trio.sleep(0.03)
    with open("/proc/sys/kernel/ns_last_pid", "w") as file:
        file.write(str(handle.pid - 1))
    with victim() as stranger:
        assert handle.pid == stranger.pid
        for act in (handle.terminate, handle.stop, handle.kill):
            await act()
        await handle.send_signal(signal.SIGTERM)
        await registry.put(record)
        try:
            await attach("daemon")
        except DaemonNotRunningError as error:
            print(error)
        await registry.put(record)
        other = await DaemonLifecycle(config).ensure_running()
        print(other.origin)
        await other.stop()

trio.run(main)
"""


@pytest.mark.fault(44, 99)
@pytest.mark.skipif(not permitted(*CHOOSE_A_NUMBER), reason="no pid namespace may be made")
def test_whoever_got_the_number_of_a_recorded_daemon_is_not_signalled(tmp_path: Path) -> None:
    lines = run_app(RECYCLED, str(tmp_path), within=NAMESPACE)
    assert ["is gone; its record was removed" in lines[0], "spawned"] == [True, *lines[1:]]


# --- taken up by a new program --------------------------------------------------------------------

WRITES = """
import os, sys, time
while not os.path.exists(sys.argv[1]):
    time.sleep(0.002)
for number in range(1024):
    print("x" * 1023)
print("end", flush=True)
time.sleep(1000)
"""

LEAVES_IT = """
from tests.test_found_again import WRITES
config = python_daemon(WRITES, sys.argv[1], detach=True)
print(trio.run(DaemonLifecycle(config).ensure_running).pid)
"""


async def test_it_writes_on_when_its_starter_has_ended_and_a_new_program_reads_and_stops_it(
    tmp_path: Path,
) -> None:
    go = tmp_path / "go"
    (pid,) = map(int, run_app(LEAVES_IT, str(go)))
    go.touch()
    handle = await attach("daemon")
    assert pid == handle.pid
    with trio.fail_after(PATIENCE_S):
        # A file can't be waited for.
        while not handle.output_tail.endswith("end\n"):  # noqa: ASYNC110
            await trio.sleep(0.01)
    assert 64 * 1024 == len(handle.output_tail)
    assert 1024 * 1024 + 4 == log_path(os.environ, "daemon").stat().st_size
    assert lives(pid)
    assert "SIGTERM" == (await handle.stop()).rung
    assert not lives(pid)
    assert [] == await SQLiteRegistry().daemons()


HAS_A_CHILD = """
import os, time
if not os.fork():
    print("child", os.getpid(), flush=True)
time.sleep(1000)
"""


async def test_what_a_killed_daemon_has_left_in_its_session_is_gone_when_it_is_started_anew() -> (
    None
):
    lifecycle = DaemonLifecycle(python_daemon(HAS_A_CHILD, detach=True))
    handle = await lifecycle.ensure_running()
    with trio.fail_after(PATIENCE_S):
        while "child" not in handle.output_tail:  # noqa: ASYNC110
            await trio.sleep(0.01)
    child = int(handle.output_tail.split()[1])
    os.kill(handle.pid or 0, signal.SIGKILL)
    await handle.wait_exit()

    other = await DaemonLifecycle(lifecycle.config).ensure_running()

    if left := lives(child):
        os.kill(child, signal.SIGKILL)
    await other.kill()
    assert "spawned" == other.origin
    assert not left


# --- log files ------------------------------------------------------------------------------------


async def test_the_logs_of_the_last_five_starts_are_kept(tmp_path: Path) -> None:
    lifecycle = DaemonLifecycle(daemon(tmp_path))
    for _ in range(7):
        await (await lifecycle.ensure_running()).kill()
    wrote = [f"started {line[0]}\n" for line in starts(tmp_path)]
    assert 7 == len(wrote)
    log = log_path(os.environ, "daemon")
    logs = [log, *(log.with_name(f"daemon.log.{number}") for number in range(1, 5))]
    assert set(logs) == set(log.parent.iterdir())
    assert wrote[-5:] == [each.read_text() for each in reversed(logs)]
    assert all(line[2] == "alone" for line in starts(tmp_path))


async def test_two_starts_of_one_name_never_write_into_one_file_at_once(tmp_path: Path) -> None:
    """Not even where neither registry knows of the other's, and nothing was written yet."""
    config = shell_daemon("exec sleep 1000", detach=True)
    registries = [SQLiteRegistry(tmp_path / name) for name in ("one", "other")]
    handles = [await DaemonLifecycle(config, registry=r).ensure_running() for r in registries]
    files = [os.stat(f"/proc/{handle.pid}/fd/1") for handle in handles]  # noqa: PTH116
    for handle, registry in zip(handles, registries, strict=True):
        await handle.kill()
        registry.close()
    assert not os.path.samestat(*files)


async def test_a_clock_that_was_set_back_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = await DaemonLifecycle(daemon(tmp_path)).ensure_running()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    assert one.pid == (await DaemonLifecycle(daemon(tmp_path)).ensure_running()).pid
    other = await DaemonLifecycle(daemon(tmp_path, name="other")).ensure_running()
    assert other.pid == (await attach("other")).pid
    await other.stop()
    await (await attach("daemon")).stop()
    assert [] == await SQLiteRegistry().daemons()


OWNS = """
from pathlib import Path
from tests.one_start_programs import daemon
from trio_lifecycle._proc import read_stat

async def main():
    lifecycle = DaemonLifecycle(daemon(Path(sys.argv[1])), registry=SQLiteRegistry())
    async with lifecycle.running() as handle:
        print(read_stat(handle.pid).ppid, handle.pid)
        await trio.sleep_forever()

trio.run(main)
"""


@pytest.mark.fault(60)
async def test_one_whose_owner_was_killed_is_given_no_more_though_it_lives(tmp_path: Path) -> None:
    lifecycle = DaemonLifecycle(daemon(tmp_path))
    with app(OWNS, str(tmp_path)) as owner:
        reaper, pid = map(int, owner.say().split())
        assert pid == (await lifecycle.ensure_running()).pid
        # So that the daemon lives on for a while: who would end it does not work.
        os.kill(reaper, signal.SIGSTOP)
        os.kill(owner.pid, signal.SIGKILL)
    try:
        await wait_until_gone(owner.pid)
        with trio.move_on_after(0.5) as given_up:
            await lifecycle.ensure_running()
        assert given_up.cancelled_caught
        assert lives(pid)
    finally:
        os.kill(reaper, signal.SIGCONT)
    successor = await lifecycle.ensure_running()
    assert ("spawned", False) == (successor.origin, lives(pid))
    await successor.stop()


# --- servers that people use ----------------------------------------------------------------------

ENSURE = """
import json
from tests.plugins.needs import SYSTEM_DIRECTORIES
program, args, url = json.loads(sys.argv[1])
config = LifecycleConfig(
    program, args=args, ready_mode=HealthCheck(url) if url else Manual(), detach=True,
    search_path=SYSTEM_DIRECTORIES,
)
daemon = trio.run(DaemonLifecycle(config).ensure_running)
print(daemon.origin, daemon.pid, daemon.port)
"""


def ensure(config: LifecycleConfig) -> tuple[str, int, int]:
    """Have a program of its own ensure that it runs; give origin, pid and port."""
    mode = config.ready_mode
    url = mode.url if isinstance(mode, HealthCheck) else None
    (line,) = run_app(ENSURE, json.dumps([config.binary_name, config.args, url]))
    origin, pid, port = line.split()
    return origin, int(pid), int(port)


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(redis, marks=pytest.mark.needs("redis-server"), id="redis"),
        pytest.param(nginx, marks=pytest.mark.needs("nginx"), id="nginx"),
    ],
)
async def test_a_server_is_one_for_all_programs_and_has_a_successor_when_it_was_killed(
    config: Callable[[Path], LifecycleConfig], tmp_path: Path
) -> None:
    wanted = config(tmp_path)
    origin, pid, port = ensure(wanted)
    assert "spawned" == origin
    assert ("adopted", pid, port) == ensure(wanted)
    family = [stat.pid for stat in tree_of(pid, all_stats())]
    os.kill(pid, signal.SIGKILL)
    await wait_until_gone(pid)

    origin, successor, _ = ensure(wanted)

    found = await attach(wanted.name)
    assert successor == found.pid
    family += [stat.pid for stat in tree_of(successor, all_stats())]
    await found.stop()
    left = [pid for pid in family if lives(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert [] == left
