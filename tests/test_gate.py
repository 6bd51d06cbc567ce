"""The gate: a process is there, and nothing of its program runs until that is permitted."""

import errno
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.support import (
    PATIENCE_S,
    QUICK_PYTHON,
    bearing,
    end,
    lives,
    run_app,
    spawn,
    wait_until_gone,
)
from trio_lifecycle import Output, SpawnError
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._requests import INSTANCE_VARIABLE
from trio_lifecycle.spawner import _shell_gate
from trio_lifecycle.spawner._spawned_process import SpawnedProcess

each_guarantee = pytest.mark.parametrize("guarantee", ["guarded", "scoped", "detached"])

# By the shell, and by the step that comes before a daemon anyhow.
each_way = pytest.mark.parametrize("changes", [{}, {"umask": 0o22}], ids=["shell", "step"])

LOOK = """
import json, os
print(json.dumps({
    "args": [os.fsencode(arg).hex() for arg in __import__("sys").argv[1:]],
    "fds": sorted(fd for fd in map(int, os.listdir("/dev/fd")) if os.path.exists(f"/dev/fd/{fd}")),
    "stdin": os.readlink("/dev/fd/0"),
    "ids": len({os.getpid(), os.getsid(0), os.getpgrp()}),
    "pid": os.getpid(),
    "cwd": os.getcwd(),
}))
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Where a detached one writes to."""
    return tmp_path / "log"


async def spawn_gated(
    nursery: trio.Nursery,
    log: Path,
    guarantee: Guarantee,
    program: str,
    *args: str,
    **changes: Any,
) -> SpawnedProcess:
    """Have a program stand at its gate."""
    how: dict[str, Any] = {"guarantee": guarantee}
    if guarantee == "detached":
        how = {"detached": True, "output": Output(to=log)}
    gated = {"gated": True, **how, **changes}
    return await spawn(nursery, program, *args, **gated)


async def run(log: Path, guarantee: Guarantee, program: str, *args: str, **changes: Any) -> bytes:
    """What a program writes that ends by itself with 0."""
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, program, *args, **changes)
        with trio.fail_after(PATIENCE_S):
            await process.open_gate()
            status = await process.wait()
        written = process.output_tail()
        await end(process)
    assert 0 == status, written
    return written


# --- before it is opened --------------------------------------------------------------------------


@each_way
@each_guarantee
async def test_nothing_of_the_program_runs_before_its_gate_is_open(
    tmp_path: Path, log: Path, guarantee: Guarantee, changes: Mapping[str, Any]
) -> None:
    mark = tmp_path / "mark"
    touch = ("/usr/bin/touch", str(mark))
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, *touch, **changes)
        assert not process.ended
        await end(process)
    assert not mark.exists()
    await run(log, guarantee, *touch, **changes)
    assert mark.exists()


@each_way
@each_guarantee
async def test_it_ends_at_its_gate_when_it_is_given_up(
    log: Path, guarantee: Guarantee, changes: Mapping[str, Any]
) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, "/bin/sleep", "1000", **changes)
        process.close()
        await wait_until_gone(process.pid)
        with pytest.raises(SpawnError, match="given up at its gate"):
            await process.open_gate()
        await end(process)


@each_way
@each_guarantee
async def test_a_gate_whose_process_was_killed_says_so(
    log: Path, guarantee: Guarantee, changes: Mapping[str, Any]
) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, "/bin/sleep", "1000", **changes)
        await process.signal_tree(signal.SIGTERM)
        with trio.fail_after(PATIENCE_S):
            assert -signal.SIGTERM == await process.wait()
        with pytest.raises(SpawnError):
            await process.open_gate()
        await end(process)


@each_guarantee
async def test_one_whose_opening_is_cancelled_never_runs(
    tmp_path: Path, log: Path, guarantee: Guarantee
) -> None:
    mark = tmp_path / "mark"
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, "/usr/bin/touch", str(mark))
        with trio.CancelScope() as scope:
            scope.cancel()
            await process.open_gate()
        assert scope.cancelled_caught
        with trio.fail_after(PATIENCE_S):
            assert 75 == await process.wait()
        await end(process)
    assert not mark.exists()


STARTER = """
from pathlib import Path
from typing import Any

guarantee, umask, directory = sys.argv[1], int(sys.argv[2]) or None, sys.argv[3]

async def main(mark):
    how = {"guarantee": guarantee}
    if guarantee == "detached":
        how = {"detached": True, "output": Output(to=f"{directory}/log")}
    async with trio.open_nursery() as nursery:
        touch = ("/bin/sh", "-c", 'touch "$0"; exec sleep 1000', mark)
        env = {INSTANCE}
        process = await spawn(nursery, *touch, gated=True, umask=umask, env=env, **how)
        os.write(1, b"%d\\n" % process.pid)
        os.kill(os.getpid(), signal.SIGKILL)

for number in range(25):
    starter = os.fork()
    if not starter:
        trio.run(main, f"{directory}/mark{number}")
    os.waitpid(starter, 0)
"""


@pytest.mark.parametrize("umask", ["0", "18"], ids=["shell", "step"])
@each_guarantee
async def test_nothing_runs_and_nothing_is_left_when_the_starter_is_killed_before(
    tmp_path: Path, guarantee: Guarantee, umask: str
) -> None:
    instance_id = os.urandom(16).hex()
    code = STARTER.replace("{INSTANCE}", repr({INSTANCE_VARIABLE: instance_id}))
    pids = run_app(code, guarantee, umask, str(tmp_path))
    assert 25 == len(pids)
    for pid in map(int, pids):
        await wait_until_gone(pid)
    assert [] == bearing(INSTANCE_VARIABLE, instance_id)
    assert [] == [name for name in os.listdir(tmp_path) if name.startswith("mark")]  # noqa: PTH208


# --- what the program finds -----------------------------------------------------------------------


@each_way
@each_guarantee
async def test_it_is_the_process_that_was_spawned(
    log: Path, guarantee: Guarantee, changes: Mapping[str, Any]
) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, "/bin/sleep", "1000", **changes)
        identity = process.identity
        assert identity is not None
        assert process.pid == identity.pid
        assert process.runs("/bin/sleep") is False
        await process.open_gate()
        assert process.runs("/bin/sleep") is True
        process._identity = None  # read it once more
        assert identity == process.identity
        await end(process)
        assert identity == process.identity


# What a shell would make something of.
ARGS = [
    *("", "-x", "--", "a b", "a\nb", "end\n", "'\"$(touch x)`id`", "\\", "*", "ä ā €", "=", "\x7f"),
    "".join(os.fsdecode(bytes([byte])) for byte in range(1, 256)),
    "x" * 10_000,
]


@pytest.mark.fault(11)
@each_guarantee
async def test_arguments_streams_and_ids_are_what_they_would_be_without_a_gate(
    tmp_path: Path, log: Path, guarantee: Guarantee
) -> None:
    # -X utf8: the interpreter is not to change a byte.
    look = (sys.executable, "-X", "utf8", *QUICK_PYTHON, LOOK)
    output = await run(log, guarantee, *look, *ARGS, working_dir=tmp_path)
    found = json.loads(output)
    assert [os.fsencode(arg) for arg in ARGS] == [bytes.fromhex(arg) for arg in found["args"]]
    assert ([0, 1, 2], "/dev/null", 1) == (found["fds"], found["stdin"], found["ids"])
    assert str(tmp_path) == found["cwd"]


@pytest.mark.fault(12)
@each_guarantee
async def test_no_signal_is_ignored_or_blocked_behind_the_gate(
    log: Path, guarantee: Guarantee
) -> None:
    grep = ("/bin/grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
    lines = dict(line.split(b":\t") for line in (await run(log, guarantee, *grep)).splitlines())
    # 32 and 33 are the C library's own.
    valid = sum(1 << (signum - 1) for signum in signal.valid_signals())
    masks = {key: int(mask, 16) & valid for key, mask in lines.items()}
    assert {b"SigBlk": 0, b"SigIgn": 0} == masks


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "usual": {},
    "PWD": {"PWD": "/some \\ where\\\udc81\u0101 \t"},
    "no PWD": {"PWD": None, "OLDPWD": None},
    "PWD of two lines": {"PWD": "/a\n/b"},
    "no names of shells": {"FOO.BAR": "1", "BASH_FUNC_x%%": "() { :; }"},
    "obeyed by shells": {"IFS": "x", "OPTIND": "7", "PPID": "3", "PS1": "a", "SHELLOPTS": "xtrace"},
    "no PATH": {"PATH": None},
    "of the script": {"go": "5", "OPTARG": "3", "MAIL": "m", "TERM": "t", "ENV": "/dev/tty"},
    "every byte": {"A": "".join(os.fsdecode(bytes([byte])) for byte in range(1, 256)), "B": ""},
}


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
@each_guarantee
async def test_the_environment_is_what_it_would_be_without_a_gate(
    tmp_path: Path, log: Path, guarantee: Guarantee, env: Mapping[str, str | None]
) -> None:
    show = ("/usr/bin/env", "-0")
    found = [
        set((await run(log, guarantee, *show, env=env, gated=gated)).split(b"\0"))
        for gated in (True, False)
    ]
    assert found[0] == found[1]


@pytest.fixture
def bash_as_sh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another shell than Debian's, under the name by which it is to keep to POSIX."""
    bash = Path("/bin/bash")
    if not bash.exists():
        pytest.skip("bash is not installed")
    (tmp_path / "sh").symlink_to(bash)
    monkeypatch.setattr(_shell_gate, "_SHELL", str(tmp_path / "sh"))


@pytest.mark.usefixtures("bash_as_sh")
@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS.keys())
async def test_with_bash_as_the_shell_two_variables_may_differ(
    log: Path, env: Mapping[str, str | None]
) -> None:
    show = ("/usr/bin/env", "-0")
    found = [
        {
            variable
            for variable in (await run(log, "scoped", *show, env=env, gated=gated)).split(b"\0")
            if not variable.startswith((b"_=", b"SHLVL="))
        }
        for gated in (True, False)
    ]
    assert found[0] == found[1]


@pytest.mark.usefixtures("bash_as_sh")
async def test_with_bash_as_the_shell_arguments_and_descriptors_are_right(log: Path) -> None:
    look = (sys.executable, "-X", "utf8", *QUICK_PYTHON, LOOK)
    found = json.loads(await run(log, "scoped", *look, *ARGS))
    assert [os.fsencode(arg) for arg in ARGS] == [bytes.fromhex(arg) for arg in found["args"]]
    assert ([0, 1, 2], "/dev/null", 1) == (found["fds"], found["stdin"], found["ids"])


@pytest.mark.usefixtures("bash_as_sh")
async def test_bash_says_in_the_output_why_a_program_can_not_be_executed(
    tmp_path: Path, log: Path
) -> None:
    error = await refuse_a_busy_one(tmp_path, log, "guarded")
    assert f"{tmp_path / 'program'} can't be executed: " in error.problem


# --- programs that can't be executed --------------------------------------------------------------


async def refused(process: SpawnedProcess) -> SpawnError:
    """What is said of one that can't become its program."""
    with trio.fail_after(PATIENCE_S), pytest.raises(SpawnError) as caught:
        await process.open_gate()
    await end(process)
    return caught.value


async def refuse_a_busy_one(tmp_path: Path, log: Path, guarantee: Guarantee) -> SpawnError:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, str(program))
        with program.open("ab"):
            error = await refused(process)
    return error


@each_guarantee
@pytest.mark.parametrize("log", [Path(os.devnull)], ids=["no log"])
async def test_what_exec_refuses_is_an_error_with_its_number(
    tmp_path: Path, log: Path, guarantee: Guarantee
) -> None:
    error = await refuse_a_busy_one(tmp_path, log, guarantee)
    assert f"{tmp_path / 'program'}" in error.problem
    if guarantee != "detached":
        assert errno.ETXTBSY == error.errno


@pytest.mark.fault(2)
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced meanwhile", "all the time"])
@each_guarantee
async def test_a_file_that_the_kernel_can_not_execute_is_never_run_by_the_shell(
    tmp_path: Path, log: Path, guarantee: Guarantee, replaced: bool
) -> None:
    program, mark = tmp_path / "program", tmp_path / "mark"
    text = f"touch {mark}\n"
    program.write_text("#!/bin/true\n" if replaced else text)
    program.chmod(0o755)
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, str(program))
        program.write_text(text)
        error = await refused(process)
    assert str(program) in error.problem
    assert not mark.exists()


@each_guarantee
async def test_a_program_that_is_gone_meanwhile_is_named(
    tmp_path: Path, log: Path, guarantee: Guarantee
) -> None:
    program = tmp_path / "program"
    program.symlink_to("/bin/true")
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, str(program))
        program.unlink()
        error = await refused(process)
    assert (f"{program}: No such file or directory", errno.ENOENT) == (error.problem, error.errno)


async def test_the_want_of_descriptors_for_a_gate_is_a_retryable_error(
    monkeypatch: pytest.MonkeyPatch, log: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(socket, "socketpair", refuse)
    async with trio.open_nursery() as nursery:
        with pytest.raises(SpawnError, match="its gate can't be made") as caught:
            await spawn_gated(nursery, log, "scoped", "/bin/true")
    assert caught.value.retryable


# --- more -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("gated", [True, False])
@each_guarantee
async def test_opening_again_or_without_a_gate_does_nothing(
    log: Path, guarantee: Guarantee, gated: bool
) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn_gated(nursery, log, guarantee, "/bin/sleep", "1000", gated=gated)
        for _ in range(3):
            await process.open_gate()
        assert lives(process.pid)
        await end(process)
        await process.open_gate()


async def test_a_shell_as_the_program_is_let_in_as_well(log: Path) -> None:
    assert b"in\n" == await run(log, "guarded", "/bin/sh", "-c", "echo in")


async def test_a_program_that_ends_at_once_was_let_in(log: Path) -> None:
    async with trio.open_nursery() as nursery:
        for status in ("0", "1", "75", "126", "127"):
            exit_with = ("/bin/sh", "-c", f"exit {status}")
            process = await spawn_gated(nursery, log, "guarded", *exit_with)
            await process.open_gate()
            assert int(status) == await process.wait()
            await end(process)


WITHOUT = """
import errno

async def main():
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", gated=True, guarantee=sys.argv[1])
        await process.open_gate()
        found = os.readlink(f"/proc/{process.pid}/fd/0")
        await end(process)
        killed = await spawn(nursery, "/bin/sleep", "1000", gated=True, guarantee=sys.argv[1])
        await killed.signal_tree(signal.SIGKILL)
        await killed.wait()
        try:
            await killed.open_gate()
        except SpawnError:
            found += " refused"
        await end(killed)
    return found

found = trio.run(main)
with open(sys.argv[2], "w") as file:
    file.write(found)
"""


@pytest.mark.parametrize(
    "lack",
    ["signal.signal(signal.SIGPIPE, signal.SIG_DFL)", "[os.close(fd) for fd in (0, 1, 2)]"],
    ids=["SIGPIPE is not ignored", "no standard streams"],
)
@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
def test_a_program_that_lacks_something_has_gates_as_well(
    tmp_path: Path, guarantee: str, lack: str
) -> None:
    run_app(f"{lack}\n{WITHOUT}", guarantee, str(tmp_path / "found"))
    assert "/dev/null refused" == (tmp_path / "found").read_text()


# --- its own number -------------------------------------------------------------------------------

OWN = ("/bin/sh", "-c", 'echo "$OWN_NUMBER $$" ')


@pytest.mark.parametrize("gated", [False, True], ids=["at once", "at its gate"])
@each_way
@each_guarantee
async def test_it_finds_its_own_number_in_its_environment(
    log: Path, guarantee: Guarantee, changes: Mapping[str, Any], gated: bool
) -> None:
    own: dict[str, Any] = {
        "gated": gated,
        "pid_variable": "OWN_NUMBER",
        "env": {"OWN_NUMBER": "1"},
        **changes,
    }
    found, number = (await run(log, guarantee, *OWN, **own)).split()
    assert number == found


async def test_it_finds_its_number_also_where_no_shell_can_be_in_its_place(log: Path) -> None:
    own: dict[str, Any] = {"gated": False, "pid_variable": "OWN_NUMBER", "env": {"a.b": "c"}}
    found, number = (await run(log, "guarded", *OWN, **own)).split()
    assert number == found


@each_guarantee
async def test_a_refused_program_is_told_as_without_a_shell(
    tmp_path: Path, log: Path, guarantee: Guarantee
) -> None:
    script = tmp_path / "script"
    script.write_text("#!/nowhere/sh\n")
    script.chmod(0o755)
    texts = []
    for number in (None, "OWN_NUMBER"):
        async with trio.open_nursery() as nursery:
            with pytest.raises(SpawnError) as caught:
                await spawn_gated(
                    nursery, log, guarantee, str(script), gated=False, pid_variable=number
                )
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
