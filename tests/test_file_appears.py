"""Ready by a file: a new one counts, one that was left does not."""

import os
from pathlib import Path

import pytest
import trio

from tests.asking import ANYBODY, arm, start
from tests.simulated import in_simulated_time
from tests.support import python_daemon
from trio_lifecycle import (
    CALLBACK_URL,
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    FileAppears,
    ReadyError,
    ReadyTimeoutError,
)
from trio_lifecycle.abc import FileMark, Report
from trio_lifecycle.spawner import _local_prober
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner, check_ready_mode


async def test_a_file_that_the_daemon_writes_in_its_directory_is_enough(tmp_path: Path) -> None:
    code = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(1000)"
    name = f"{FREE_PORT}.up"
    config = python_daemon(code, name, working_dir=tmp_path, ready_mode=FileAppears(name))
    async with DaemonLifecycle(config).running() as daemon:
        assert (tmp_path / f"{daemon.port}.up").exists()
        assert "running" == await daemon.check()


@pytest.mark.parametrize("how", ["written to", "replaced"])
async def test_a_file_that_was_left_counts_once_it_is_new(how: str, tmp_path: Path) -> None:
    path = tmp_path / "up"
    path.write_text("left")
    os.utime(path, (0, 0))
    armed = await arm(FileAppears(path), port=7)
    assert await armed.ask(ANYBODY) is None
    assert f"{path} is there, as it was before the start" == armed.last_seen
    if how == "replaced":
        other = tmp_path / "other"
        other.write_text("left")
        os.utime(other, (0, 0))
        other.rename(path)
    else:
        path.write_text("left")
    assert Report(None, 7) == await armed.ask(ANYBODY)


async def test_of_a_daemon_that_runs_already_the_file_that_is_there_is_enough(
    tmp_path: Path,
) -> None:
    path = tmp_path / "up"
    armed = await FileAppears(path).arm_again(start())
    assert await armed.ask(ANYBODY) is None
    assert f"{path} is not there" == armed.last_seen
    path.touch()
    assert Report() == await armed.ask(ANYBODY)
    assert await FileAppears(path).find_running(start().prober) is None


async def test_it_must_have_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "up"
    armed = await arm(FileAppears(path, min_bytes=3))
    path.write_text("ab")
    assert await armed.ask(ANYBODY) is None
    assert f"{path} has 2 of 3 bytes" == armed.last_seen
    path.write_text("abc")
    assert Report() == await armed.ask(ANYBODY)


async def test_a_file_that_cant_be_looked_at_is_said_so_before_the_spawn_and_after(
    tmp_path: Path,
) -> None:
    path = tmp_path / "up"
    path.symlink_to(path)
    with pytest.raises(ReadyError, match="can't be looked at: Too many levels"):
        await arm(FileAppears(path))
    path.unlink()
    armed = await arm(FileAppears(path))
    path.symlink_to(path)
    assert await armed.ask(ANYBODY) is None
    assert "can't be looked at: Too many levels" in armed.last_seen


async def test_a_look_that_hangs_ends_at_its_limit_and_takes_up_one_thread(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    prober = start().prober
    hangs = FileAppears(pipe, probe_timeout=0.05)
    looks: list[str] = []

    def look(path: str) -> FileMark | None:
        looks.append(path)
        Path(path).read_bytes()
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_local_prober, "_mark_of", look)
        with pytest.raises(ReadyError, match=r"gave no answer within 0\.05 s"):
            await hangs.arm(start(prober=prober))
        armed = await hangs.arm_again(start(prober=prober))
        assert await armed.ask(ANYBODY) is None
        assert f"{pipe} gave no answer within 0.05 s" == armed.last_seen
        assert [str(pipe)] == looks
        fd = os.open(pipe, os.O_WRONLY)
        os.close(fd)
    with trio.fail_after(10):
        assert await prober.find_file(str(pipe)) is not None


@in_simulated_time
async def test_in_simulated_time_it_appears_with_the_first_success_or_when_it_is_said() -> None:
    mode = FileAppears("/run/up")
    by_health = SimulatedDaemon(health=[(0, 503), (2, 204), (3, 503)])
    for _ in range(2):  # what the first has left does not count
        async with by_health.lifecycle(ready_mode=mode).running() as daemon:
            assert 2 <= daemon.ready_after_s < 2.1
    planned = SimulatedDaemon(file_after=4, path="/run/up")
    async with planned.lifecycle(ready_mode=mode).running() as daemon:
        assert 4 <= daemon.ready_after_s < 4.2
    other = planned.lifecycle(ready_mode=FileAppears("/run/other"), ready_timeout=9)
    with pytest.raises(ReadyTimeoutError, match="/run/other is not there"):
        async with other.running():
            pass
    prober = SimulatedSpawner(SimulatedDaemon(dies_after=1, file_after=2)).open_prober()
    assert await prober.find_file("/run/up") is None


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(FileAppears(f"/run/{FREE_PORT}", min_bytes=1))


@pytest.mark.parametrize(
    ("field", "args"),
    [
        ("path", {"path": ""}),
        ("path", {"path": "a/"}),
        ("path", {"path": CALLBACK_URL}),
        ("path", {"path": 1}),
        ("min_bytes", {"path": "a", "min_bytes": -1}),
        ("min_bytes", {"path": "a", "min_bytes": True}),
        ("min_bytes", {"path": "a", "min_bytes": 1.0}),
        ("interval", {"path": "a", "interval": 0}),
    ],
)
def test_what_can_be_no_file_is_refused(field: str, args: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=f"^{field}:"):
        FileAppears(**args)  # type: ignore[arg-type]
