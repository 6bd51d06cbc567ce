"""Starts by a shell alone: what stands at the gate, what becomes of it, what the program finds."""

import json
import os
import random
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.processes import stat_of
from tests.sessions import LocalSession
from trio_lifecycle import SpawnError
from trio_lifecycle._proc import read_stat
from trio_lifecycle._ssh._launching import Launched, launch
from trio_lifecycle._ssh._order import Order
from trio_lifecycle._ssh._session import LostError

needs = pytest.mark.needs

# What stands for `sh` elsewhere, and login shells that start it.
SHELLS = {
    "dash": ("dash", "-s"),
    "bash": ("bash", "--posix", "-s"),
    "busybox": ("busybox", "sh", "-s"),
}
LOGIN_SHELLS = {name: (name, "-c", "sh -s") for name in ("zsh", "fish", "tcsh")}

each_shell = pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=name, marks=needs(name)) for name, command in SHELLS.items()],
)
each_login_shell = pytest.mark.parametrize(
    "command",
    [pytest.param(command, id=name, marks=needs(name)) for name, command in LOGIN_SHELLS.items()],
)

REPORT = """
import json, os, signal, sys
ignored = [n for n in range(1, 32) if n not in (13, 25) and signal.getsignal(n) == signal.SIG_IGN]
print(json.dumps({
    "args": [os.fsencode(arg).hex() for arg in sys.argv[1:]],
    "env": {os.fsdecode(k): os.fsencode(v).hex() for k, v in os.environb.items()},
    "cwd": os.getcwd(), "umask": os.umask(0), "ignored": ignored,
    "masked": len(signal.pthread_sigmask(signal.SIG_BLOCK, [])),
    "files": [n for n in range(3, 256) if os.path.exists(f"/proc/self/fd/{n}")],
    "stdin": os.readlink("/proc/self/fd/0"), "leads": os.getsid(0) == os.getpid() == os.getpgid(0),
    "pid": os.getpid(), "nofile": __import__("resource").getrlimit(7),
}))
"""


def sh(text: str, *args: str, **more: object) -> Order:
    return Order(name="d", program="/bin/sh", args=("-c", text, "sh", *args), **more)  # type: ignore[arg-type]


SLEEP = Order(name="d", program="/bin/sleep", args=("1000",))


class OpenSession(LocalSession):
    """One whose output is read on when its command has ended: others may write there still."""

    async def _keep(self) -> None:
        assert self.process.stderr is not None
        async with self.process.stderr:
            async for chunk in self.process.stderr:
                self._complaints += chunk


@asynccontextmanager
async def session(*command: str) -> AsyncIterator[LocalSession]:
    """A session whose processes are all gone afterwards, or the test's hygiene says so."""
    async with trio.open_nursery() as nursery:
        found = await OpenSession.start(nursery, command or ("sh", "-s"), leads=True)
        try:
            yield found
        finally:
            found.close()
            with trio.CancelScope(shield=True):
                await found.process.wait()
                # Its watchdog, too, has ended when nobody can write any more.
                assert found.process.stdout is not None
                while await found.process.stdout.receive_some():
                    pass
                await found.process.stdout.aclose()


async def gone(pid: int, start_time: int) -> None:
    while (stat := read_stat(pid)) is not None and stat.start_time == start_time:
        if stat.state == "Z":
            break
        await trio.sleep(0.005)


def text_of(launched: Launched) -> str:
    return Path(launched.log_file).read_text(errors="surrogateescape")


async def outcome(order: Order, *command: str) -> tuple[int | None, str]:
    """How it ends, and what it wrote."""
    async with session(*command) as there:
        launched = await launch(there, order)
        await launched.open_gate()
        status = await launched.wait_end()
        return status, text_of(launched)


async def report(order: Order, *command: str) -> dict[str, object]:
    _, text = await outcome(order, *command)
    found: dict[str, object] = json.loads(text)
    return found


@each_shell
async def test_nothing_of_the_program_runs_before_its_gate_is_open(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    async with session(*command) as there:
        launched = await launch(there, sh('echo ran >"$1"', str(tmp_path / "mark")))
        stat = stat_of(launched.pid)
        assert (launched.start_time, launched.pid) == (stat.start_time, stat.session)
        assert not (tmp_path / "mark").exists()
        await launched.open_gate()
        assert await launched.wait_end() == 0
        assert (tmp_path / "mark").read_text() == "ran\n"


@each_login_shell
async def test_any_login_shell_starts_the_launcher(command: tuple[str, ...]) -> None:
    assert await outcome(sh("echo $1", "it's"), *command) == (0, "it's\n")


@each_shell
@pytest.mark.parametrize(
    ("text", "status"),
    [("exit 0", 0), ("exit 137", 137), ("kill -KILL $$", -9), ("kill -TERM $$", -15)],
)
async def test_its_end_is_told_as_subprocess_counts(
    command: tuple[str, ...], text: str, status: int
) -> None:
    assert (await outcome(sh(text), *command))[0] == status


@each_shell
async def test_the_program_finds_what_it_was_to_find_and_nothing_else(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REMOVED", "here")
    monkeypatch.setenv("KEPT", "kept")
    args = ["it's", "$(id)`id`", "a\nb\n", "", "-n", "\\", "é\udcff", "*", "%s%*"]
    env = {"SECRET": "a'b\n$(id)\\ \udcfe", "PWD": "/else where", "REMOVED": None, "a.b": "odd"}
    found = await report(
        Order(
            name="d",
            program=sys.executable,
            args=("-I", "-c", REPORT, *args),
            env=env,
            working_dir=str(tmp_path),
            umask=0o027,
            limits={"nofile": (100, 200)},
            pid_variable="MY_PID",
        ),
        *command,
    )
    seen = found.pop("env")
    assert isinstance(seen, dict)
    assert [os.fsencode(arg).hex() for arg in args] == found.pop("args")
    wanted = {name: os.fsencode(value).hex() for name, value in env.items() if value is not None}
    assert {**wanted, "KEPT": b"kept".hex(), "MY_PID": str(found.pop("pid")).encode().hex()} == {
        name: seen[name] for name in (*wanted, "KEPT", "MY_PID")
    }
    assert not {name for name in seen if name.startswith("trio_")} | {"REMOVED"} & seen.keys()
    assert found == {
        "cwd": str(tmp_path),
        "umask": 0o027,
        "ignored": [],
        "masked": 0,
        "files": [],
        "stdin": "/dev/null",
        "leads": True,
        "nofile": [100, 200],
    }


@each_shell
@pytest.mark.fault(71)
async def test_a_variable_whose_name_looks_like_an_option_is_one_of_the_program(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("-v", "here")
    env = {"-i": "1", "--help": "2", "-v": None}
    order = Order(name="d", program=sys.executable, args=("-I", "-c", REPORT), env=env)
    seen = (await report(order, *command))["env"]
    assert isinstance(seen, dict)
    assert [b"1".hex(), b"2".hex(), None] == [seen.get(name) for name in env]
    assert "HOME" in seen


@each_shell
@pytest.mark.parametrize("value", [None, "y"])
async def test_how_shells_shall_behave_is_for_the_login_to_say(
    command: tuple[str, ...], value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is not None:
        monkeypatch.setenv("POSIXLY_CORRECT", value)
    seen = (
        await report(Order(name="d", program=sys.executable, args=("-I", "-c", REPORT)), *command)
    )["env"]
    assert isinstance(seen, dict)
    assert (None if value is None else value.encode().hex()) == seen.get("POSIXLY_CORRECT")


@each_shell
async def test_a_secret_of_its_environment_stands_in_no_argument(command: tuple[str, ...]) -> None:
    secret = "s3cr3t-in-no-list"
    async with session(*command) as there:
        launched = await launch(there, sh("true", env={"TOKEN": secret}))
        lists = command_lines()
        assert _ours(Path(f"/proc/{launched.pid}/cmdline")) in lists
        assert b"" not in lists
        assert not [words for words in lists if secret.encode() in words]


def command_lines() -> list[bytes]:
    return [line for path in Path("/proc").glob("[0-9]*/cmdline") if (line := _ours(path))]


def _ours(path: Path) -> bytes:
    """The command line of a process, if it is one of this test and still there."""
    try:
        is_ours = (
            os.environ["TRIO_LIFECYCLE_TEST"].encode() in (path.parent / "environ").read_bytes()
        )
        return path.read_bytes() if is_ours else b""
    except OSError:
        return b""


@each_shell
async def test_a_daemon_that_is_left_lives_on_and_holds_nothing_of_the_session(
    command: tuple[str, ...],
) -> None:
    async with session(*command) as there:
        launched = await launch(there, SLEEP)
        await launched.open_gate()
        await launched.leave()
        assert await there.wait_end() == 0
        while await there.receive():
            pass
        # By then the waiter is gone, too, so that it is nobody's zombie later.
        assert stat_of(launched.pid).command == "sleep"
        os.kill(launched.pid, signal.SIGKILL)


async def test_a_daemon_whose_gate_was_opened_lives_on_when_its_session_is_cut() -> None:
    async with session() as there:
        launched = await launch(there, SLEEP)
        await launched.open_gate()
        there.process.kill()
        with pytest.raises(LostError):
            await launched.wait_end()
        assert stat_of(launched.pid).command == "sleep"
        os.kill(launched.pid, signal.SIGKILL)


@pytest.mark.parametrize("how", ["closed", "launcher killed", "all killed"])
async def test_nothing_is_left_of_what_stood_at_its_gate_when_its_session_ends(
    how: str, tmp_path: Path
) -> None:
    async with session() as there:
        launched = await launch(there, sh('echo ran >"$1"', str(tmp_path / "mark")))
        _end(there, how)
        await gone(launched.pid, launched.start_time)
    assert not (tmp_path / "mark").exists()


def all_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*")}


def _end(there: LocalSession, how: str) -> None:
    if how == "closed":
        there.close()
    elif how == "launcher killed":
        there.process.kill()
    else:
        os.killpg(there.process.pid, signal.SIGKILL)


@pytest.mark.slow
async def test_starts_that_are_cut_at_random_instants_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    stands: list[Launched] = []
    for number in range(20):
        async with session() as there:
            with trio.move_on_after(random.uniform(0, 0.06)):
                order = sh('echo ran >"$1"', str(tmp_path / "mark"))
                stands.append(await launch(there, order))
                await trio.sleep_forever()
            _end(there, ("closed", "launcher killed")[number % 2])
    for launched in stands:
        await gone(launched.pid, launched.start_time)
    logs = {"trio-lifecycle", "trio-lifecycle/logs", "trio-lifecycle/logs/d.log"}
    assert all_below(tmp_path) <= logs


@needs("bash")
async def test_a_shell_that_puts_here_documents_into_files_starts_it_just_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As bash does before 5.1.
    monkeypatch.setenv("BASH_COMPAT", "5.0")
    assert await outcome(sh("echo ran; exit 3"), *SHELLS["bash"]) == (3, "ran\n")


@needs("strace")
@each_shell
async def test_few_processes_are_made_for_a_start(command: tuple[str, ...], tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    traced = ("strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork", "-o", str(trace))
    order = sh("echo ran", log=str(tmp_path / "log"))
    assert await outcome(order, *traced, *command) == (0, "ran\n")
    made = [line for line in trace.read_text().splitlines() if re.search(r"= [0-9]+$", line)]
    # Four are the waiter, the daemon, the watchdog and who starts the waiter; bash makes more.
    assert len(made) <= 15, made


@pytest.mark.fault(76)
async def test_what_a_login_prints_before_is_skipped() -> None:
    async with session("sh", "-c", "echo Welcome; printf 'no end: '; exec sh -s") as there:
        launched = await launch(there, sh("exit 3"))
        await launched.open_gate()
        assert await launched.wait_end() == 3


async def test_a_process_that_is_killed_at_its_gate_is_told_of() -> None:
    async with session() as there:
        launched = await launch(there, sh("true"))
        os.kill(launched.pid, signal.SIGKILL)
        await gone(launched.pid, launched.start_time)
        with pytest.raises(SpawnError, match="ended at its gate"):
            await launched.open_gate()
