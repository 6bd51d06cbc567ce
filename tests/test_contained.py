"""Daemons in a control group of their own, and guarantees that can't be had."""

import os
import signal
from pathlib import Path

import pytest
import trio

from tests.cli import Run
from tests.support import (
    PATIENCE_S,
    Heard,
    app,
    lives,
    python_daemon,
    run_app,
    shell_daemon,
    wait_until_gone,
)
from trio_lifecycle import (
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    Event,
    GuaranteeError,
    LocalSpawner,
    Output,
    ReaperLostError,
    StopLadder,
    TCPPort,
)
from trio_lifecycle.spawner import _guarded
from trio_lifecycle.spawner._cgroup import CgroupUnavailable, find_parent
from trio_lifecycle.spawner._reapers import reaper
from trio_lifecycle.testing import check_spawner


def find_reason() -> str:
    """Say why there can be no control group here; nothing if there can."""
    try:
        find_parent()
    except CgroupUnavailable as error:
        return error.reason
    return ""


REASON = find_reason()
needs_groups = pytest.mark.skipif(bool(REASON), reason=REASON)

# Leaves the session, the environment and its parents behind, and says who it is.
ESCAPES = (
    "env -i setsid /bin/sh -c '(trap \"\" TERM; echo escaped $$ >&2; exec sleep 1000) & exit' & "
    "sleep 1000"
)


def groups_of(instance_id: str) -> list[Path]:
    """The control groups of an instance."""
    return list(find_parent().glob(f"trio-lifecycle-{instance_id}"))


# Its server is a child of nobody, in a session of its own, and bears no mark of ours.
SERVES_FROM_FAR = """
import os, socket, sys, time
server = socket.socket()
server.bind(("127.0.0.1", int(sys.argv[1])))
os.set_inheritable(server.fileno(), True)
code = "import socket; server = socket.socket(fileno=%d)" % server.fileno()
code += "; server.listen()" + "; print(server.accept())" * 100
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, ["python", "-I", "-S", "-c", code], {})
    os._exit(0)
os.wait()
server.close()
time.sleep(1000)
"""


@needs_groups
async def test_who_is_in_its_control_group_is_of_the_daemon_whatever_he_has_left() -> None:
    config = python_daemon(SERVES_FROM_FAR, FREE_PORT, ready_mode=TCPPort(FREE_PORT))
    lifecycle = DaemonLifecycle(config, spawner=LocalSpawner(guarantee="contained"))
    async with lifecycle.running() as daemon:
        assert "running" == await daemon.check()


@needs_groups
async def test_a_contained_daemon_keeps_the_contract() -> None:
    await check_spawner(LocalSpawner(guarantee="contained"))


@needs_groups
@pytest.mark.fault(40)
async def test_nothing_gets_out_of_the_group_and_the_group_is_removed() -> None:
    heard = Heard()
    config = shell_daemon(ESCAPES, output=Output(to=heard), stop_ladder=StopLadder())
    lifecycle = DaemonLifecycle(config, spawner=LocalSpawner(guarantee="contained"))
    async with lifecycle.running() as daemon:
        assert "contained" == daemon.guarantee
        escaped = await heard.pid("escaped")
        assert 1 == len(groups_of(daemon.instance_id))
    assert not lives(escaped)
    assert [] == groups_of(daemon.instance_id)


IN_A_GROUP = f"""
async def main():
    heard = Heard()
    config = shell_daemon({ESCAPES!r}, output=Output(to=heard), stop_ladder=StopLadder())
    spawner = LocalSpawner(guarantee="contained")
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        print("daemon", daemon.pid, await heard.pid("escaped"), daemon.instance_id, flush=True)
        await trio.sleep_forever()
trio.run(main)
"""


@needs_groups
@pytest.mark.fault(47)
async def test_the_group_goes_with_a_program_that_is_killed() -> None:
    with app(IN_A_GROUP) as program:
        _, pid, escaped, instance_id = program.say().split()
        program.signal(signal.SIGKILL)
        await wait_until_gone(int(pid))
        await wait_until_gone(int(escaped))
        deadline = trio.current_time() + PATIENCE_S
        while groups_of(instance_id):  # noqa: ASYNC110 - nobody here is told when it goes
            assert trio.current_time() < deadline
            await trio.sleep(0.005)


@needs_groups
@pytest.mark.fault(51)
async def test_the_program_ends_the_group_when_the_whole_reaper_was_killed() -> None:
    heard = Heard()
    config = shell_daemon(ESCAPES, output=Output(to=heard), stop_ladder=StopLadder())
    lifecycle = DaemonLifecycle(config, spawner=LocalSpawner(guarantee="contained"))
    escaped = 0

    async def use() -> None:
        nonlocal escaped
        async with lifecycle.running():
            escaped = await heard.pid("escaped")
            link = await reaper()
            # Stopped, it can't act before it is killed.
            os.kill(link.inner, signal.SIGSTOP)
            os.kill(link.outer, signal.SIGKILL)
            os.kill(link.inner, signal.SIGKILL)
            await trio.sleep_forever()

    with pytest.raises(ReaperLostError):
        await use()
    assert not lives(escaped)


# --- what can't be had ----------------------------------------------------------------------------


@pytest.mark.fault(75)
async def test_a_guarantee_that_cannot_be_had_is_an_error_and_nothing_is_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> Path:
        raise CgroupUnavailable("no cgroup v2 hierarchy is mounted")

    monkeypatch.setattr(_guarded, "find_parent", refuse)
    events: list[Event] = []
    lifecycle = DaemonLifecycle(
        shell_daemon("exec sleep 1000"),
        spawner=LocalSpawner(guarantee="contained"),
        observer=events.append,
    )
    with pytest.raises(GuaranteeError, match="contained here: no cgroup v2 hierarchy is mounted"):
        async with lifecycle.running():
            pass
    assert ["starting", "found", "failed"] == [event.kind for event in events]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("sys.executable = ''", "there is no interpreter for it"),
        ("sys.frozen = True", "there is no interpreter for it"),
        ("sys.platform = 'darwin'", "only Linux"),
        ("_reaper_program.owner_mark = lambda: ''", "there is no /proc"),
        ("_reaper_program.find_spec = lambda name: None", "its program"),
        ("sys.executable = '/bin/false'", "a process of the reaper was killed, or has crashed"),
    ],
)
def test_without_a_reaper_there_is_no_guard_and_the_reason_is_said(
    change: str, reason: str
) -> None:
    code = f"""
from trio_lifecycle.spawner import _reaper_program
async def main():
    {change}
    try:
        async with DaemonLifecycle(shell_daemon("exec sleep 1000")).running():
            print("started")
    except GuaranteeError as error:
        print(error.guarantee, "|", error.problem)
    async with DaemonLifecycle(
        shell_daemon("exec sleep 1000"), spawner=LocalSpawner(guarantee="scoped")
    ).running() as daemon:
        print(daemon.guarantee)
trio.run(main)
"""
    refused, scoped = run_app(code)
    assert refused.startswith("guarded | ")
    assert reason in refused
    assert "scoped" == scoped


@pytest.mark.parametrize("level", ["", "Guarded", None, 1, "detached"])
def test_a_guarantee_that_there_is_not_is_refused(level: object) -> None:
    with pytest.raises(ConfigError, match="guarantee"):
        LocalSpawner(guarantee=level)  # type: ignore[arg-type]


# --- the command line -----------------------------------------------------------------------------


def test_the_command_line_takes_a_guarantee() -> None:
    shows = "ps -o ppid= -p $TRIO_LIFECYCLE_PID"
    for level, is_ours in (("scoped", True), ("guarded", False)):
        words = ("run", "--guarantee", level, "--then", shows, "--", "sleep", "1000")
        with Run(*words) as run:
            assert 0 == run.end()
            assert is_ours == (run.pid == int(run.out))


def test_the_command_line_knows_no_other_guarantee() -> None:
    with Run("run", "--guarantee", "total", "--", "sleep", "1000") as run:
        assert 2 == run.end()
        assert "--guarantee: is one of guarded, contained, scoped" in run.err


def test_the_command_line_takes_a_user() -> None:
    with Run("run", "--user", "nobody-of-this-name", "--", "sleep", "1000") as run:
        assert 0 != run.end()
        assert "there is no user 'nobody-of-this-name'" in run.err
