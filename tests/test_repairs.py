"""What once went wrong with real processes: each test says what a user would have seen."""

import os
import signal
import threading
from pathlib import Path

import pytest
import trio

from tests.support import PATIENCE_S, Heard, python_daemon, shell_daemon
from trio_lifecycle import (
    Callback,
    ConfigError,
    DaemonLifecycle,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    Output,
    SpawnError,
    StopError,
    StopLadder,
    _stop,
)
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle.spawner._guarded_process import GuardedProcess
from trio_lifecycle.spawner._local_process import LocalProcess


@pytest.mark.fault(41)
@pytest.mark.parametrize(
    ("guarantee", "process_type"), [("guarded", GuardedProcess), ("scoped", LocalProcess)]
)
async def test_a_process_that_outlives_sigkill_is_reported_and_still_watched(
    monkeypatch: pytest.MonkeyPatch,
    guarantee: Guarantee,
    process_type: type[GuardedProcess | LocalProcess],
) -> None:
    # Only a dead disk makes one; so here no signal is sent for a while.
    real = process_type.signal_tree

    async def send_nothing(self: object, signum: int) -> None:
        await trio.lowlevel.checkpoint()

    config = shell_daemon("exec sleep 1000", stop_ladder=StopLadder())
    daemons = []

    async def fail_to_stop() -> None:
        async with DaemonLifecycle(config, spawner=LocalSpawner(guarantee)).running() as daemon:
            daemons.append(daemon)
            monkeypatch.setattr(process_type, "signal_tree", send_nothing)
            monkeypatch.setattr(_stop, "KILL_PATIENCE_S", 0.2)

    with pytest.raises(StopError) as caught:
        await fail_to_stop()

    (daemon,) = daemons
    assert daemon.pid == caught.value.pid
    monkeypatch.setattr(process_type, "signal_tree", real)
    with trio.fail_after(PATIENCE_S):
        assert "SIGKILL" == (await daemon.kill()).rung
        assert -signal.SIGKILL == await daemon.wait_exit()


async def test_a_daemon_of_a_daemon_can_not_answer_its_starters_callback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIO_LIFECYCLE_CALLBACK_URL", "http://127.0.0.1:1/ready/token-of-ours")
    heard = Heard()
    code = "import os; print('url', os.environ.get('TRIO_LIFECYCLE_CALLBACK_URL'), flush=True)"
    config = python_daemon(f"{code}; import time; time.sleep(1000)", output=Output(to=heard))

    async with DaemonLifecycle(config).running():
        assert "None" == await heard.line("url")


async def test_a_daemon_under_callback_gets_a_url_of_its_own_in_spite_of_an_inherited_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRIO_LIFECYCLE_CALLBACK_URL", "http://127.0.0.1:1/ready/token-of-ours")
    code = (
        "import os, time, urllib.request as r\n"
        "r.urlopen(r.Request(os.environ['TRIO_LIFECYCLE_CALLBACK_URL'], b'{}'))\n"
        "time.sleep(1000)"
    )

    config = python_daemon(code, ready_mode=Callback(), ready_timeout=PATIENCE_S)
    async with DaemonLifecycle(config).running() as daemon:
        assert {} == daemon.report


@pytest.mark.parametrize("has_reader", [False, True])
async def test_a_fifo_as_output_is_refused_and_does_not_block(
    tmp_path: Path, has_reader: bool
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK) if has_reader else None
    config = shell_daemon("exec sleep 1000", output=Output(to=fifo))

    with pytest.raises(SpawnError, match="output can't be set up"):
        async with DaemonLifecycle(config).running():
            pytest.fail("its output went nowhere")

    if reader is not None:
        os.close(reader)


async def test_the_output_of_an_owned_daemon_may_go_through_a_link(tmp_path: Path) -> None:
    log = tmp_path / "2026.log"
    (tmp_path / "current.log").symlink_to(log)
    config = shell_daemon("echo hello; exec sleep 1000", output=Output(to=tmp_path / "current.log"))

    async with DaemonLifecycle(config).running() as daemon:
        with trio.fail_after(PATIENCE_S):
            while "hello" not in daemon.output_tail:  # noqa: ASYNC110  # it can only be looked at
                await trio.sleep(0.001)

    assert "hello\n" == log.read_text()


def test_a_detached_daemon_that_dies_between_two_runs_leaves_no_zombie() -> None:
    lifecycle = DaemonLifecycle(shell_daemon("exec sleep 1000", detach=True))

    async def ensure() -> int:
        daemon = await lifecycle.ensure_running()
        assert daemon.pid is not None
        return daemon.pid

    async def ensure_and_stop() -> None:
        daemon = await lifecycle.ensure_running()
        await daemon.kill()

    # Opens the registry, which stays open.
    trio.run(ensure_and_stop)
    before = len(list(Path("/dev/fd").iterdir()))
    pid = 0
    for _ in range(3):
        pid = trio.run(ensure)
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)

    trio.run(ensure_and_stop)

    assert before == len(list(Path("/dev/fd").iterdir()))
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


@pytest.mark.fault(100)
def test_a_lifecycle_that_another_threads_run_uses_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    checking, may_go_on = threading.Event(), threading.Event()

    async def check() -> None:
        checking.set()
        await trio.to_thread.run_sync(may_go_on.wait)

    lifecycle = DaemonLifecycle(shell_daemon("exec sleep 1000", detach=True), preflight=[check])

    async def ensure_and_stop() -> None:
        daemon = await lifecycle.ensure_running()
        await daemon.kill()

    other = threading.Thread(target=trio.run, args=(ensure_and_stop,))
    other.start()
    checking.wait(PATIENCE_S)
    try:
        with pytest.raises(ConfigError, match="make one each"):
            trio.run(lifecycle.ensure_running)
    finally:
        may_go_on.set()
        other.join()


async def test_a_lifecycle_that_another_threads_run_has_used_says_so_too(tmp_path: Path) -> None:
    lifecycle = DaemonLifecycle(shell_daemon("exec sleep 1000", detach=True))
    daemon = await lifecycle.ensure_running()
    with pytest.raises(ConfigError, match="make one each"):
        await trio.to_thread.run_sync(trio.run, lifecycle.ensure_running)
    await daemon.kill()


@pytest.mark.parametrize("signum", [-1, 0, 9999])
async def test_a_signal_that_does_not_exist_is_refused(signum: int) -> None:
    async with DaemonLifecycle(shell_daemon("exec sleep 1000")).running() as daemon:
        with pytest.raises(ConfigError, match="signum"):
            await daemon.send_signal(signum)


@pytest.mark.fault(27)
async def test_a_wall_clock_that_jumps_changes_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = iter(range(0, 10**9, 10**6))
    monkeypatch.setattr("trio_lifecycle._diary.time.time", lambda: -float(next(jumps)))

    async with DaemonLifecycle(shell_daemon("exec sleep 1000")).running() as daemon:
        report = await daemon.stop()

    assert 0 <= daemon.ready_after_s < PATIENCE_S
    assert 0 <= report.seconds < PATIENCE_S


async def test_a_program_whose_name_is_no_text_runs_under_a_readable_one(tmp_path: Path) -> None:
    program = tmp_path / os.fsdecode(b"pr\xffg")
    program.symlink_to("/bin/sleep")
    config = LifecycleConfig(str(program), args=["1000"], ready_mode=Manual())

    async with DaemonLifecycle(config).running() as daemon:
        assert "pr\\xffg" == daemon.name
