"""Daemons on this machine: how they are started, what is said of the end, and what stays behind."""

import errno
import json
import os
import signal
import uuid
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support import (
    PATIENCE_S,
    Heard,
    bearing,
    end,
    lives,
    python_daemon,
    request,
    run_app,
    spawn,
    spawn_python,
)
from trio_lifecycle import DaemonLifecycle, LocalSpawner, Output, SpawnError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.spawner._spawned_process import is_readable
from trio_lifecycle.testing import check_spawner

LONGER_THAN_A_MESSAGE = 212_960 + 1

# In the reaper, and in this program itself.
each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped"])


@each_guarantee
async def test_local_spawner_keeps_its_contract(guarantee: Guarantee) -> None:
    await check_spawner(LocalSpawner(guarantee))


async def refused(
    guarantee: Guarantee, program: str, *args: str, working_dir: Path | None = None
) -> SpawnError:
    """What is said when a program can't be spawned."""
    async with trio.open_nursery() as nursery:
        wanted = request(program, *args, working_dir=working_dir)
        with pytest.raises(SpawnError) as caught:
            await LocalSpawner(guarantee).spawn(wanted, nursery)
    return caught.value


# --- what is said when it can't be spawned --------------------------------------------------------


@pytest.mark.fault(4)
@each_guarantee
async def test_the_error_names_the_working_directory_when_that_is_missing(
    tmp_path: Path, guarantee: Guarantee
) -> None:
    missing = tmp_path / "missing"
    error = await refused(guarantee, "/bin/true", working_dir=missing)
    assert f"its working directory {missing} does not exist" == error.problem
    assert (errno.ENOENT, False) == (error.errno, error.retryable)


@pytest.mark.fault(4)
@each_guarantee
async def test_the_error_names_the_working_directory_when_that_is_a_file(
    tmp_path: Path, guarantee: Guarantee
) -> None:
    file = tmp_path / "file"
    file.touch()
    error = await refused(guarantee, "/bin/true", working_dir=file)
    assert f"its working directory {file} is no directory" == error.problem


@pytest.mark.fault(4)
@each_guarantee
async def test_the_error_names_the_binary_when_that_is_missing(
    tmp_path: Path, guarantee: Guarantee
) -> None:
    error = await refused(guarantee, "/bin/missing", working_dir=tmp_path)
    assert "/bin/missing: No such file or directory" == error.problem
    assert (errno.ENOENT, False) == (error.errno, error.retryable)


@pytest.mark.fault(2)
@each_guarantee
async def test_a_file_without_a_format_is_never_tried_through_a_shell(
    tmp_path: Path, guarantee: Guarantee
) -> None:
    script = tmp_path / "script"
    script.write_text(f"touch {tmp_path}/was-run\n")
    script.chmod(0o700)
    error = await refused(guarantee, str(script))
    assert errno.ENOEXEC == error.errno
    assert not (tmp_path / "was-run").exists()


@pytest.mark.fault(6)
@each_guarantee
async def test_an_argument_of_128_kib_is_an_error_that_says_so(guarantee: Guarantee) -> None:
    error = await refused(guarantee, "/bin/true", "x" * 131_073)
    assert errno.E2BIG == error.errno
    assert "larger than the system takes" in str(error)


@pytest.mark.fault(6)
@each_guarantee
async def test_an_environment_of_more_than_212960_bytes_arrives(guarantee: Guarantee) -> None:
    env = {f"PART_{number}": "x" * 100_000 for number in range(3)}
    assert LONGER_THAN_A_MESSAGE < sum(map(len, env.values()))
    code = "import os; print('length', *(len(os.environ[f'PART_{n}']) for n in range(3)))"
    heard = Heard()
    async with trio.open_nursery() as nursery:
        process = await spawn_python(
            nursery, code, env=env, output=Output(to=heard), guarantee=guarantee
        )
        assert "100000 100000 100000" == await heard.line("length")
        await end(process)


async def test_a_detached_daemons_log_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    config = python_daemon("", output=Output(to=tmp_path / "link"), detach=True)
    with pytest.raises(SpawnError, match="its output can't be set up"):
        await DaemonLifecycle(config).ensure_running()
    assert not (tmp_path / "elsewhere").exists()


# --- how its end is seen --------------------------------------------------------------------------


@each_guarantee
async def test_the_end_is_seen_at_once_although_a_grandchild_holds_the_pipe(
    guarantee: Guarantee,
) -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        command = ("/bin/sh", "-c", "sleep 1000 & echo grandchild $!; exit 3")
        process = await spawn(nursery, *command, output=Output(to=heard), guarantee=guarantee)
        with trio.fail_after(PATIENCE_S):
            assert 3 == await process.wait()
        grandchild = await heard.pid("grandchild")
        assert process.ended
        assert lives(grandchild)
        assert not process.gone
        assert f"grandchild {grandchild}\n".encode() == process.output_tail()
        await end(process)
        assert not lives(grandchild)


async def test_output_written_just_before_the_end_is_in_the_tail() -> None:
    async with trio.open_nursery() as nursery:
        code = "import os; os.write(1, b'x' * 60_000 + b'last words')"
        process = await spawn_python(nursery, code)
        await process.wait()
        assert b"x" * 60_000 + b"last words" == process.output_tail()
        await end(process)


@each_guarantee
@pytest.mark.parametrize("status", [0, 1, 77, 255])
async def test_the_status_is_the_one_it_exited_with(status: int, guarantee: Guarantee) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sh", "-c", f"exit {status}", guarantee=guarantee)
        assert status == await process.wait()
        await end(process)
        assert status == process.status


@each_guarantee
async def test_all_who_wait_get_the_status_when_another_task_stops_it(
    guarantee: Guarantee,
) -> None:
    statuses = []

    async def wait() -> None:
        statuses.append(await process.wait())

    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", guarantee=guarantee)
        pidfd = os.pidfd_open(process.pid)
        async with trio.open_nursery() as waiters:
            for _ in range(3):
                waiters.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            # The end is seen and the descriptor closed before Trio has told anybody.
            os.kill(process.pid, signal.SIGKILL)
            assert is_readable(pidfd, PATIENCE_S)
            assert process.gone
            process.close()
        os.close(pidfd)
    assert [-9, -9, -9] == statuses


async def test_a_scoped_spawn_under_a_cancelled_scope_is_made_and_told() -> None:
    process = None
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            process = await spawn(nursery, "/bin/sleep", "1000", guarantee="scoped")
        assert process is not None
        await end(process)


@pytest.mark.fault(9)
@pytest.mark.parametrize("before", [0, 1])
async def test_a_spawn_under_a_cancelled_scope_leaves_nothing_that_nobody_knows(
    before: int,
) -> None:
    process = None
    instance_id = uuid.uuid4().hex
    mark = {INSTANCE_VARIABLE: instance_id}
    async with trio.open_nursery() as nursery:
        for _ in range(before):
            # From now on, this run has a reaper, and need not wait for one.
            await end(await spawn(nursery, "/bin/true"))
        with trio.CancelScope() as scope:
            scope.cancel()
            process = await spawn(nursery, "/bin/sleep", "1000", env=mark)
        if process is None:
            # What is asked for after it is done after it.
            await end(await spawn(nursery, "/bin/true"))
            assert [] == bearing(INSTANCE_VARIABLE, instance_id)
        else:
            assert [process.pid] == bearing(INSTANCE_VARIABLE, instance_id)
            await end(process)


def test_the_environment_is_this_programs_own_with_the_changes() -> None:
    code = """
async def main():
    os.environ["KEPT"], os.environ["REMOVED"], os.environ["CHANGED"] = "kept", "here", "old"
    heard = Heard()
    look = "import json, os; print('env', json.dumps(dict(os.environ)))"
    config = python_daemon(
        look, env={"REMOVED": None, "CHANGED": "new", "ADDED": "added"}, output=Output(to=heard))
    lifecycle = DaemonLifecycle(config)
    try:
        async with lifecycle.running():
            await trio.sleep_forever()
    except LifecycleError:
        pass
    print(await heard.line("env"))
trio.run(main)
"""
    (line,) = run_app(code)
    env = json.loads(line)
    assert ("kept", "new", "added") == (env["KEPT"], env["CHANGED"], env["ADDED"])
    assert "REMOVED" not in env
    assert env["TRIO_LIFECYCLE_INSTANCE"]
