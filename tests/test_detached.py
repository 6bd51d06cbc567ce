"""Daemons that nobody owns: they outlive their starter, and leave nothing in it."""

import os
import signal
import stat
from pathlib import Path

import trio
import trio.testing

from tests.support import PATIENCE_S, app, lives, run_app, shell_daemon, spawn, wait_until_gone
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, Manual, Output

LEAVES_IT = """
config = LifecycleConfig(
    "/bin/sh", args=["-c", sys.argv[1]], name="daemon", ready_mode=Manual(), detach=True,
    output=Output(to=sys.argv[2]) if sys.argv[2:] else Output(),
)
async def main():
    daemon = await DaemonLifecycle(config).ensure_running()
    print(daemon.pid)
    if sys.stdin.readline() == "stop\\n":
        os.kill(daemon.pid, signal.SIGTERM)
        print(await daemon.wait_exit())
        await trio.testing.wait_all_tasks_blocked()
        print(os.path.exists(f"/proc/{daemon.pid}"))
import trio.testing
trio.run(main)
"""


async def test_a_detached_daemon_outlives_its_starter_and_writes_on(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    os.mkfifo(go)
    script = f"echo before; read line < {go}; echo after; exec sleep 1000"
    with app(LEAVES_IT, script, str(log)) as starter:
        pid = int(starter.say())
        starter.hear("leave")
        assert (0, "") == starter.end()
    try:
        assert lives(pid)
        await trio.to_thread.run_sync(go.write_text, "go\n")
        with trio.fail_after(PATIENCE_S):
            # A file can't be waited for.
            while "before\nafter\n" != log.read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
        assert 0o600 == stat.S_IMODE(log.stat().st_mode)
        assert pid == os.getsid(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
    await wait_until_gone(pid)


def test_no_zombie_is_left_of_a_detached_daemon_while_its_starter_runs(tmp_path: Path) -> None:
    with app(LEAVES_IT, "exec sleep 1000", str(tmp_path / "log")) as starter:
        assert starter.say().isdecimal()
        starter.hear("stop")
        assert "-15" == starter.say()
        assert "False" == starter.say()
        assert (0, "") == starter.end()


async def test_a_detached_daemon_that_nobody_asks_after_leaves_no_zombie(tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        output = Output(to=tmp_path / "log")
        process = await spawn(nursery, "/bin/true", output=output, detached=True)
    with trio.fail_after(PATIENCE_S):
        # Nor can the reaping of a child by somebody else.
        while os.access(f"/proc/{process.pid}", os.F_OK):  # noqa: ASYNC110
            await trio.sleep(0.01)
    await trio.testing.wait_all_tasks_blocked()


async def test_the_handle_of_a_detached_daemon_can_be_stopped_at_the_moment_of_its_death(
    tmp_path: Path,
) -> None:
    """A system task waits for its end, too; it must not stumble when the handle is closed."""

    def kill_it(event: object) -> None:
        if type(event).__name__ == "Stopping":
            os.kill(daemon.pid or 0, signal.SIGKILL)
            os.waitid(os.P_PID, daemon.pid or 0, os.WEXITED | os.WNOWAIT)

    config = LifecycleConfig(
        "sleep", args=["1000"], ready_mode=Manual(), detach=True, output=Output(to=tmp_path / "log")
    )
    daemon = await DaemonLifecycle(config, observer=kill_it).ensure_running()
    await trio.testing.wait_all_tasks_blocked()
    assert -9 == (await daemon.stop()).status


async def test_a_detached_daemon_that_died_costs_no_descriptor(tmp_path: Path) -> None:
    def count() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208 - a Path would keep it open longer

    config = shell_daemon("exec sleep 1000", detach=True, output=Output(to=tmp_path / "log"))
    lifecycle = DaemonLifecycle(config)
    counts = []
    for _ in range(3):
        daemon = await lifecycle.ensure_running()
        await daemon.send_signal(signal.SIGKILL)
        assert -9 == await daemon.wait_exit()
        await trio.testing.wait_all_tasks_blocked()
        counts.append(count())
    assert counts[0] == counts[2]


WITHOUT_A_DIRECTORY = """
os.chdir(sys.argv[1])
os.rmdir(sys.argv[1])
for binary, changes in (
    ("/bin/sleep", {"output": Output(to="daemon.log")}),
    ("./sleep", {}),
    ("sleep", {"search_path": ["bin"]}),
):
    config = LifecycleConfig(
        binary, args=["1000"], ready_mode=Manual(), detach=True, name="daemon", **changes
    )
    try:
        trio.run(DaemonLifecycle(config).ensure_running)
    except ConfigError as error:
        print(error)
"""


def test_a_relative_path_is_refused_where_the_current_directory_is_gone(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    why = "is relative, and the current directory is gone; give an absolute path"
    assert [
        f"output.to: daemon.log {why}",
        f"binary_name: ./sleep {why}",
        f"search_path: bin {why}",
    ] == run_app(WITHOUT_A_DIRECTORY, str(gone))
