"""The limits that the guides state, each shown: the pages promise no more than is true.

Those that other tests show as well have the number 100 there.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve

from tests.one_start_programs import daemon, starts
from tests.simulated import in_simulated_time
from tests.stepping import DAEMON, only_root
from tests.support import (
    PATIENCE_S,
    UNMEASURED,
    free_port,
    lives,
    permitted,
    python_daemon,
    run_app,
    shell_daemon,
    wait_until_gone,
)
from tests.test_portable import WITHOUT_LINUX
from trio_lifecycle import (
    ClaimTimeoutError,
    DaemonLifecycle,
    DaemonNotRunningError,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    ForeignDaemonError,
    HealthCheck,
    LifecycleConfig,
    MemoryRegistry,
    PreflightError,
    SQLiteRegistry,
    attach,
)
from trio_lifecycle._machine import now_in_ticks
from trio_lifecycle._state_dir import log_path
from trio_lifecycle.testing import SimulatedDaemon

pytestmark = pytest.mark.fault(100)

# What a daemon does when the file DIRECTORY/go is there. Whom it starts stands in DIRECTORY/other.
PROLOGUE = """
import os, signal, sys, time

directory, *words = sys.argv[1:]

def say(pid):
    with open(directory + "/said", "w") as file:
        file.write(str(pid))
    os.rename(directory + "/said", directory + "/other")

def get_away(command, environment):
    # Forks twice; when this returns, the other has no parents any more.
    reading, writing = os.pipe()
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        say(int(os.read(reading, 32)))
        return
    os.setsid()
    other = os.fork()
    if other:
        os.write(writing, str(other).encode())
        os._exit(0)
    os.execve(command[0], command, environment)

while not os.path.exists(directory + "/go"):
    time.sleep(0.002)
"""

SLEEPS = ("/bin/sleep", "1000")


def program(directory: Path, code: str, *words: str, **changes: Any) -> LifecycleConfig:
    """A daemon that is to stay, and does something when it is told to go on."""
    return python_daemon(PROLOGUE + code, str(directory), *words, detach=True, **changes)


async def other(directory: Path) -> int:
    """Wait until a daemon has said whom it has started."""
    with trio.fail_after(PATIENCE_S):
        # A file can't be waited for.
        while not (directory / "other").exists():  # noqa: ASYNC110
            await trio.sleep(0.002)
    return int((directory / "other").read_text())


async def end(pid: int) -> bool:
    """End what has got away; say whether it was there."""
    if not lives(pid):
        return False
    os.kill(pid, signal.SIGKILL)
    await wait_until_gone(pid)
    return True


# --- users, machines, records ---------------------------------------------------------------------

OF_ANOTHER_USER = """
import subprocess, tempfile
from tests.one_start_programs import DAEMON
from trio_lifecycle import _loopback_http
from trio_lifecycle.registry import _default

# While it may read the modules.
_loopback_http.prepare()
user, port = map(int, sys.argv[1:])
with tempfile.TemporaryDirectory() as state, tempfile.TemporaryDirectory() as directory:
    of_root = subprocess.Popen(
        [sys.executable, *QUICK_PYTHON, DAEMON, directory, "health", str(port), ""],
        stdout=subprocess.PIPE)
    of_root.stdout.readline()
    os.environ["XDG_STATE_HOME"] = state
    os.chown(state, user, user)
    os.setgroups([])
    os.setresgid(user, user, 0)
    os.setresuid(user, user, 0)

    async def main():
        for expect in (None, lambda answer: True):
            mode = HealthCheck(f"http://127.0.0.1:{port}/", expect=expect)
            config = LifecycleConfig("/bin/sh", name="daemon", ready_mode=mode, detach=True)
            try:
                daemon = await DaemonLifecycle(config).ensure_running()
                print(daemon.origin, daemon.pid)
                await daemon.stop()
            except LifecycleError as error:
                print(type(error).__name__)

    try:
        trio.run(main)
    finally:
        os.setresuid(0, 0, 0)
        os.setresgid(0, 0, 0)
        print(of_root.poll())
        of_root.kill()
        of_root.communicate()
"""


@only_root
def test_the_daemon_of_another_user_is_a_stranger_or_used_without_the_right_to_stop_it() -> None:
    said = run_app(OF_ANOTHER_USER, str(DAEMON.pw_uid), str(free_port()), env=UNMEASURED)
    assert ["ForeignDaemonError", "adopted None", "DaemonStateUnknownError", "None"] == said


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed port", "FREE_PORT"])
async def test_without_its_record_one_is_found_only_at_a_fixed_port(
    fixed: bool, tmp_path: Path
) -> None:
    config = daemon(tmp_path, port=free_port() if fixed else None)
    first = await DaemonLifecycle(config).ensure_running()
    registry = SQLiteRegistry()
    (record,) = await registry.daemons()
    await registry.remove(record)
    registry.close()

    second = await DaemonLifecycle(config).ensure_running()

    assert ("adopted" if fixed else "spawned") == second.origin
    assert fixed is (first.pid == second.pid)
    assert lives(first.pid or 0)
    await second.kill()
    await first.kill()


async def test_nobody_starts_it_again_until_somebody_asks(tmp_path: Path) -> None:
    lifecycle = DaemonLifecycle(daemon(tmp_path))
    first = await lifecycle.ensure_running()
    os.kill(first.pid or 0, signal.SIGKILL)
    await first.wait_exit()

    with pytest.raises(DaemonNotRunningError):
        await attach("daemon")
    assert 1 == len(starts(tmp_path))

    second = await lifecycle.ensure_running()
    assert ("spawned", 2) == (second.origin, len(starts(tmp_path)))
    await second.kill()


async def test_two_registries_in_memory_have_one_log_for_a_name() -> None:
    registries = [MemoryRegistry(), MemoryRegistry()]
    config = shell_daemon("echo up; exec sleep 1000", detach=True)
    handles = [await DaemonLifecycle(config, registry=each).ensure_running() for each in registries]
    records = [record for each in registries for record in await each.daemons()]
    for handle in handles:
        await handle.kill()
    assert ["spawned", "spawned"] == [handle.origin for handle in handles]
    assert [str(log_path(os.environ, "daemon"))] * 2 == [record.log_file for record in records]


ELSEWHERE = """
async def main():
    registry = SQLiteRegistry()
    free = DaemonLifecycle(serving(FREE_PORT))
    other = DaemonLifecycle(serving(FREE_PORT))
    found = [await free.ensure_running(), await other.ensure_running()]
    print(*(each.origin for each in found), await registry.daemons())
    fixed = found[0].port
    for expect in (None, lambda answer: True):
        try:
            print((await DaemonLifecycle(serving(fixed, expect)).ensure_running()).origin)
        except ForeignDaemonError:
            print("a stranger")
    for each in found:
        await each.kill()

def serving(port, expect=None):
    mode = HealthCheck(f"http://127.0.0.1:{port}/", expect=expect)
    args = ["-m", "http.server", "--bind", "127.0.0.1", str(port)]
    return LifecycleConfig(
        sys.executable, name="daemon", args=args, ready_mode=mode, detach=True, on_change="error")

trio.run(main)
"""


def test_elsewhere_than_on_linux_there_is_no_record_and_one_is_found_only_by_what_it_says() -> None:
    assert ["spawned spawned []", "a stranger", "adopted"] == run_app(WITHOUT_LINUX + ELSEWHERE)


# --- what forks -----------------------------------------------------------------------------------


async def test_what_is_in_the_background_stays_if_it_has_overwritten_its_environment(
    tmp_path: Path,
) -> None:
    (tmp_path / "go").touch()
    mode = HealthCheck(f"http://127.0.0.1:{free_port()}/")
    config = program(tmp_path, "get_away(words, {})", *SLEEPS, ready_mode=mode)

    with pytest.raises(DiedBeforeReadyError, match="in the foreground"):
        await DaemonLifecycle(config).ensure_running()

    assert await end(await other(tmp_path))


async def test_what_is_in_the_background_stays_if_its_start_had_ended_well(tmp_path: Path) -> None:
    config = program(tmp_path, "get_away(words, os.environ)", *SLEEPS)
    first = await DaemonLifecycle(config).ensure_running()
    (tmp_path / "go").touch()
    in_the_background = await other(tmp_path)
    await first.wait_exit()
    (tmp_path / "go").unlink()

    second = await DaemonLifecycle(config).ensure_running()

    await second.kill()
    assert "spawned" == second.origin
    assert await end(in_the_background)


# As nginx and gunicorn do it, with the new main process in the session of the old.
EXCHANGES = """
def exchange(signum, frame):
    successor = os.fork()
    if successor:
        say(successor)
        os._exit(0)

signal.signal(signal.SIGUSR2, exchange)
say(os.getpid())
while True:
    time.sleep(1000)
"""


async def test_the_successor_of_a_main_process_is_ended_as_what_it_has_left(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    config = program(tmp_path, EXCHANGES)
    first = await DaemonLifecycle(config).ensure_running()
    assert first.pid == await other(tmp_path)
    await first.send_signal(signal.SIGUSR2)
    await first.wait_exit()
    successor = await other(tmp_path)
    assert first.pid != successor
    assert lives(successor)

    second = await DaemonLifecycle(config).ensure_running()

    await second.kill()
    assert "spawned" == second.origin
    assert not await end(successor)


async def test_what_has_left_the_session_and_its_parents_stays(tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    config = program(tmp_path, "get_away(words, os.environ); time.sleep(1000)", *SLEEPS)
    handle = await DaemonLifecycle(config).ensure_running()
    runaway = await other(tmp_path)
    await handle.stop()
    assert await end(runaway)


async def test_who_listens_in_its_place_and_is_known_by_nothing_is_a_stranger(
    tmp_path: Path,
) -> None:
    (tmp_path / "go").touch()
    port = str(free_port())
    serve = (sys.executable, "-I", "-m", "http.server", "--bind", "127.0.0.1", port)
    code = "get_away(words, {}); time.sleep(1000)"
    mode = HealthCheck(f"http://127.0.0.1:{port}/")

    with pytest.raises(ForeignDaemonError) as caught:
        await DaemonLifecycle(program(tmp_path, code, *serve, ready_mode=mode)).ensure_running()

    runaway = await other(tmp_path)
    assert await end(runaway)
    assert f"process {runaway} (" in caught.value.owner


FORKS_LATE = """
child = os.fork()
if not child:
    os.execve(words[0], words, {})
say(child)
time.sleep(1000)
"""


async def test_of_what_is_left_and_young_and_without_an_environment_nothing_is_known(
    tmp_path: Path,
) -> None:
    config = program(tmp_path, FORKS_LATE, *SLEEPS)
    first = await DaemonLifecycle(config).ensure_running()
    registry = SQLiteRegistry()
    (record,) = await registry.daemons()
    registry.close()
    # A clock can't be waited for.
    while now_in_ticks() <= record.seen_alive:  # noqa: ASYNC110
        await trio.sleep(0.002)
    (tmp_path / "go").touch()
    child = await other(tmp_path)
    os.kill(first.pid or 0, signal.SIGKILL)
    await first.wait_exit()

    with pytest.raises(DaemonStateUnknownError, match=f"whether {child}, "):
        await DaemonLifecycle(config).ensure_running()

    assert await end(child)
    second = await DaemonLifecycle(config).ensure_running()
    await second.kill()
    assert "spawned" == second.origin


# --- checks before the start ----------------------------------------------------------------------


@in_simulated_time
async def test_a_slow_check_holds_up_others_until_their_patience_ends() -> None:
    simulated = SimulatedDaemon()

    async def check() -> None:
        await trio.sleep(500.0)

    slow = simulated.lifecycle(detach=True, ready_timeout=30.0, preflight=[check])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(slow.ensure_running)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ClaimTimeoutError) as caught:
            await simulated.lifecycle(detach=True, ready_timeout=30.0).ensure_running()
    assert 40.0 == pytest.approx(caught.value.waited_s)
    assert 1 == simulated.alive


@in_simulated_time
async def test_a_check_that_asks_for_its_own_daemon_by_another_object_waits_for_the_claim() -> None:
    simulated = SimulatedDaemon()
    again = simulated.lifecycle(detach=True, claim_timeout=60.0)
    began = trio.current_time()
    with pytest.raises(PreflightError, match="looked after for 60"):
        await simulated.lifecycle(detach=True, preflight=[again.ensure_running]).ensure_running()
    assert 60.0 == pytest.approx(trio.current_time() - began)
    assert 0 == simulated.spawned


# --- who answers ----------------------------------------------------------------------------------


async def test_any_program_of_the_same_interpreter_is_adopted_unless_it_is_refused(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with DaemonLifecycle(daemon(tmp_path, port=port)).running() as first:
        mode = HealthCheck(f"http://127.0.0.1:{port}/")
        config = LifecycleConfig(sys.executable, name="other", ready_mode=mode)
        picky = evolve(config, ready_mode=evolve(mode, expect=lambda _: False))
        with pytest.raises(ForeignDaemonError, match=f"process {first.pid} "):
            await DaemonLifecycle(picky).run()
        async with DaemonLifecycle(config).running() as second:
            assert ("adopted", first.pid) == (second.origin, second.pid)


MOUNTS = ("unshare", "--mount")

BEHIND_A_NAME = """
import subprocess
from pathlib import Path
from tests.test_health import SERVES

directory, port = sys.argv[1:]
hosts = Path(directory) / "hosts"
hosts.write_text("127.0.0.1 localhost\\n127.0.0.1 queen.test\\n")
subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)

async def main(host):
    others = []

    def take_the_port(event):
        if event.kind == "spawned":
            command = [sys.executable, "-SsEc", SERVES, "127.0.0.1", port]
            others.append(subprocess.Popen(command, stdout=subprocess.PIPE))

    mode = HealthCheck(f"http://{host}:{port}/")
    config = LifecycleConfig("sleep", args=["1000"], ready_mode=mode)
    try:
        async with DaemonLifecycle(config, observer=take_the_port).running() as daemon:
            print(daemon.origin)
    except ForeignDaemonError:
        print("a stranger")
    others[0].kill()
    others[0].communicate()

for host in ("127.0.0.1", "queen.test"):
    trio.run(main, host)
"""


@pytest.mark.skipif(
    not permitted(*MOUNTS, "mount", "--bind", "/etc/hosts", "/etc/hosts"),
    reason="nothing may be mounted",
)
def test_who_answers_behind_a_host_name_is_not_looked_at(tmp_path: Path) -> None:
    said = run_app(BEHIND_A_NAME, str(tmp_path), str(free_port()), within=MOUNTS)
    assert ["a stranger", "spawned"] == said
