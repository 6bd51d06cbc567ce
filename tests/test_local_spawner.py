"""Daemons on this machine: how they are started, what is said of the end, and what stays behind."""

import errno
import json
import os
import signal
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.support import (
    PATIENCE_S,
    Heard,
    end,
    lives,
    python_daemon,
    request,
    run_app,
    spawn,
    spawn_python,
)
from trio_lifecycle import (
    DaemonLifecycle,
    LocalSpawner,
    Output,
    SpawnError,
)
from trio_lifecycle.testing import check_spawner

LONGER_THAN_A_MESSAGE = 212_960 + 1


async def test_local_spawner_keeps_its_contract() -> None:
    await check_spawner(LocalSpawner())


async def refused(program: str, *args: str, working_dir: Path | None = None) -> SpawnError:
    """What is said when a program can't be spawned."""
    async with trio.open_nursery() as nursery:
        wanted = request(program, *args, working_dir=working_dir)
        with pytest.raises(SpawnError) as caught:
            await LocalSpawner().spawn(wanted, nursery)
    return caught.value


# --- what is said when it can't be spawned --------------------------------------------------------


@pytest.mark.fault(4)
async def test_the_error_names_the_working_directory_when_that_is_missing(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    error = await refused("/bin/true", working_dir=missing)
    assert f"its working directory {missing} does not exist" == error.problem
    assert (errno.ENOENT, False) == (error.errno, error.retryable)


@pytest.mark.fault(4)
async def test_the_error_names_the_working_directory_when_that_is_a_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    error = await refused("/bin/true", working_dir=file)
    assert f"its working directory {file} is no directory" == error.problem


@pytest.mark.fault(4)
async def test_the_error_names_the_binary_when_that_is_missing(tmp_path: Path) -> None:
    error = await refused("/bin/missing", working_dir=tmp_path)
    assert "/bin/missing: No such file or directory" == error.problem
    assert (errno.ENOENT, False) == (error.errno, error.retryable)


@pytest.mark.fault(2)
async def test_a_file_without_a_format_is_never_tried_through_a_shell(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"touch {tmp_path}/was-run\n")
    script.chmod(0o700)
    error = await refused(str(script))
    assert errno.ENOEXEC == error.errno
    assert not (tmp_path / "was-run").exists()


@pytest.mark.fault(6)
async def test_an_argument_of_128_kib_is_an_error_that_says_so() -> None:
    error = await refused("/bin/true", "x" * 131_073)
    assert errno.E2BIG == error.errno
    assert "larger than the system takes" in str(error)


@pytest.mark.fault(6)
async def test_an_environment_of_more_than_212960_bytes_arrives() -> None:
    env = {f"PART_{number}": "x" * 100_000 for number in range(3)}
    assert LONGER_THAN_A_MESSAGE < sum(map(len, env.values()))
    code = "import os; print('length', *(len(os.environ[f'PART_{n}']) for n in range(3)))"
    heard = Heard()
    async with trio.open_nursery() as nursery:
        process = await spawn_python(nursery, code, env=env, output=Output(to=heard))
        assert "100000 100000 100000" == await heard.line("length")
        await end(process)


async def test_a_detached_daemons_log_that_is_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    config = python_daemon("", output=Output(to=tmp_path / "link"), detach=True)
    with pytest.raises(SpawnError, match="its output can't be set up"):
        await DaemonLifecycle(config).ensure_running()
    assert not (tmp_path / "elsewhere").exists()


SHORT_OF_DESCRIPTORS = """
import resource

def open_now():
    return {fd: os.readlink(f"/dev/fd/{fd}") for fd in map(int, os.listdir("/dev/fd"))
            if os.path.islink(f"/dev/fd/{fd}")}

async def attempt(free):
    async with trio.open_nursery() as nursery:
        before = open_now()
        limit = max(before)
        filler = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit + 1 + free, hard))
        try:
            while True:
                filler.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            for fd in filler[len(filler) - free:]:
                os.close(fd)
            del filler[len(filler) - free:]
        try:
            process = await LocalSpawner().spawn(request("/bin/sleep", "1000"), nursery)
        except SpawnError as error:
            print("refused", error.errno, error.retryable)
        else:
            print("spawned")
            await end(process)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for fd in filler:
                os.close(fd)
        await trio.testing.wait_all_tasks_blocked()
        assert before == open_now(), (before, open_now())
        try:
            print("left", os.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            pass

async def main():
    for free in range(10):
        await attempt(free)

import trio.testing
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
trio.run(main)
"""


@pytest.mark.fault(7)
def test_the_want_of_descriptors_is_a_retryable_error_and_leaves_nothing() -> None:
    lines = run_app(SHORT_OF_DESCRIPTORS)
    refusals = [line for line in lines if line != "spawned"]
    assert {f"refused {errno.EMFILE} True"} == set(refusals)
    assert ["spawned"] * (10 - len(refusals)) == list(lines[len(refusals) :])
    assert 0 < len(refusals) < 10


# --- how its end is seen --------------------------------------------------------------------------


async def test_the_end_is_seen_at_once_although_a_grandchild_holds_the_pipe() -> None:
    heard = Heard()
    async with trio.open_nursery() as nursery:
        script = "sleep 1000 & echo grandchild $!; exit 3"
        process = await spawn(nursery, "/bin/sh", "-c", script, output=Output(to=heard))
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


@pytest.mark.parametrize("status", [0, 1, 77, 255])
async def test_the_status_is_the_one_it_exited_with(status: int) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sh", "-c", f"exit {status}")
        assert status == await process.wait()
        await end(process)
        assert status == process.status


async def test_all_who_wait_get_the_status_when_another_task_stops_it() -> None:
    statuses = []

    async def wait() -> None:
        statuses.append(await process.wait())

    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000")
        async with trio.open_nursery() as waiters:
            for _ in range(3):
                waiters.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            # The end is seen and the descriptor closed before Trio has told anybody.
            os.kill(process.pid, signal.SIGKILL)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222 - on purpose
            assert process.gone
            process.close()
    assert [-9, -9, -9] == statuses


WITH_SIGCHLD = """
async def main():
    async with trio.open_nursery() as nursery:
        process = await LocalSpawner().spawn(request("/bin/sh", "-c", "exit 3"), nursery)
        with trio.fail_after(10):
            print("status", await process.wait())
            await end(process)
        print("gone", process.gone)
    config = shell_daemon("exit 4")
    try:
        async with DaemonLifecycle(config).running():
            await trio.sleep_forever()
    except (DaemonDiedError, DiedBeforeReadyError) as error:
        print("status", error.exit_status)
"""

HANDLERS = {
    "looks on": "signal.signal(signal.SIGCHLD, lambda *_: None)",
    "ignores": "signal.signal(signal.SIGCHLD, signal.SIG_IGN)",
    "reaps everything": """
def reap(*_):
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass
signal.signal(signal.SIGCHLD, reap)
""",
}


def test_the_status_is_right_when_the_program_has_a_handler_for_sigchld() -> None:
    lines = run_app(f"{HANDLERS['looks on']}\n{WITH_SIGCHLD}\ntrio.run(main)")
    assert ["status 3", "gone True", "status 4"] == lines


@pytest.mark.fault(10)
@pytest.mark.parametrize("handler", ["ignores", "reaps everything"])
def test_the_status_is_right_also_when_the_program_lets_nobody_have_it(handler: str) -> None:
    lines = run_app(f"{HANDLERS[handler]}\n{WITH_SIGCHLD}\ntrio.run(main)")
    # The parent is the reaper; this program is not asked.
    assert ["status 3", "gone True", "status 4"] == lines


STOPPED_IN_SPITE_OF_IT = """
async def main():
    heard = Heard()
    config = shell_daemon("sleep 1000 & echo grandchild $!; wait", output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        grandchild = await heard.pid("grandchild")
        report = await daemon.stop()
    print(report.rung, lives(grandchild), lives(daemon.pid))
"""


@pytest.mark.parametrize("handler", HANDLERS)
def test_the_group_goes_whatever_the_program_does_about_sigchld(handler: str) -> None:
    lines = run_app(f"{HANDLERS[handler]}\n{STOPPED_IN_SPITE_OF_IT}\ntrio.run(main)")
    assert ["SIGTERM False False"] == lines


WITHOUT_STREAMS = """
for fd in (0, 1, 2):
    os.close(fd)

LOOK = '''
import os
kind = lambda fd: os.readlink(f"/dev/fd/{fd}").partition(":")[0]
print("streams", kind(0), kind(1), kind(2), flush=True)
os.write(2, b"error stream\\\\n")
os.read(0, 1) == b"" and print("no input", flush=True)
import time
time.sleep(1000)
'''

async def main():
    heard = Heard()
    config = python_daemon(LOOK, output=Output(to=heard))
    async with DaemonLifecycle(config).running() as daemon:
        await heard.line("no input")
    return heard.lines

lines = trio.run(main)
with open(sys.argv[1], "w") as file:
    file.write("\\n".join(lines))
"""


def test_a_program_without_standard_streams_starts_daemons_that_have_them(tmp_path: Path) -> None:
    run_app(WITHOUT_STREAMS, str(tmp_path / "heard"))
    lines = (tmp_path / "heard").read_text().splitlines()
    assert ["streams /dev/null pipe pipe", "error stream", "no input"] == lines


async def test_a_spawn_under_a_cancelled_scope_leaves_nothing_that_nobody_knows() -> None:
    process = None
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            scope.cancel()
            process = await spawn(nursery, "/bin/sleep", "1000")
        assert process is not None
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
