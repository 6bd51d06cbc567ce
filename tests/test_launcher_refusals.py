"""Starts by a shell alone that are refused: each before anything of the program has run."""

import errno
import os
import re
import shutil
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.sessions import LocalSession
from tests.test_launcher import each_shell, outcome, session, sh
from trio_lifecycle import SpawnError
from trio_lifecycle._ssh._launching import Launched, launch
from trio_lifecycle._ssh._order import Order
from trio_lifecycle._ssh._session import LostError

# A program for a machine of 1987, whose header is whole.
_OTHER_MACHINE = bytes.fromhex(
    "7f454c46020101" + 9 * "00" + "02001500" + 34 * "00" + "3800" + 8 * "00"
)


async def refused(order: Order, *command: str) -> SpawnError:
    async with session(*command) as there:
        with pytest.raises(SpawnError) as caught:
            await (await launch(there, order)).open_gate()
    return caught.value


def program(path: Path, content: bytes, mode: int = 0o755) -> Order:
    path.write_bytes(content)
    path.chmod(mode)
    return Order(name="d", program=str(path))


@each_shell
@pytest.mark.parametrize(
    ("content", "mode", "number"),
    [
        (b"echo ran >&2", 0o755, errno.ENOEXEC),
        (b"", 0o755, errno.ENOEXEC),
        (b"#!/no/such/interpreter\n", 0o755, errno.ENOENT),
        (b"#!/bin/sh\ntrue", 0o644, errno.EACCES),
        (_OTHER_MACHINE, 0o755, errno.ENOEXEC),
        (_OTHER_MACHINE[:20], 0o755, errno.ENOEXEC),
    ],
    ids=["text", "empty", "no interpreter", "not executable", "other machine", "damaged"],
)
async def test_what_the_kernel_would_not_run_is_not_run_by_a_shell_either(
    command: tuple[str, ...], content: bytes, mode: int, number: int, tmp_path: Path
) -> None:
    error = await refused(program(tmp_path / "it", content, mode), *command)
    assert error.errno == number
    assert str(tmp_path / "it") in error.problem or "/no/such" in error.problem


@each_shell
async def test_an_exec_that_is_refused_at_the_last_moment_is_told_of(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    order = program(tmp_path / "it", b"#!/bin/sh\ntrue")
    async with session(*command) as there:
        launched = await launch(there, order)
        (tmp_path / "it").unlink()
        with pytest.raises(SpawnError) as caught:
            await launched.open_gate()
        assert caught.value.errno == errno.ENOENT


async def test_a_program_that_is_not_there_is_named() -> None:
    error = await refused(Order(name="d", program="/no/such"))
    assert (error.errno, error.problem) == (errno.ENOENT, "/no/such: No such file or directory")


async def test_a_working_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    error = await refused(sh("true", working_dir=f"{tmp_path}/no such"))
    assert f"working directory {tmp_path}/no such" in error.problem


@pytest.mark.parametrize("args", [("x" * 131_072,), ("\0",), ("x" * 131_000,) * 17])
async def test_what_no_process_can_be_given_is_refused_before_it_is_sent(
    args: tuple[str, ...],
) -> None:
    async with session() as there:
        with pytest.raises(SpawnError):
            await launch(there, sh("true", *args))


@pytest.mark.fault(71)
async def test_an_argument_is_not_run_for_a_program_that_looks_like_a_variable(
    tmp_path: Path,
) -> None:
    order = program(tmp_path / "a=b", b"#!/bin/sh\nexit 3")
    assert (await outcome(order))[0] == 3
    odd = evolve(order, env={"a.b": "c"}, args=("/bin/touch", str(tmp_path / "mark")))
    assert "use a path without '='" in (await refused(odd)).problem
    assert not (tmp_path / "mark").exists()


async def test_as_much_as_a_process_can_be_given_is_given() -> None:
    status, text = await outcome(sh("echo ${#1} $#", *(["x" * 131_071] * 10)))
    assert (status, text) == (0, "131071 10\n")


@pytest.mark.parametrize("limits", [{"rttime": (1, 1)}, {"core": (1, 1)}])
async def test_a_limit_that_sh_does_not_know_is_refused(
    limits: dict[str, tuple[int, int]],
) -> None:
    async with session() as there:
        with pytest.raises(SpawnError, match="limits"):
            await launch(there, sh("true", limits=limits))


async def test_a_limit_that_is_not_allowed_is_refused() -> None:
    if os.geteuid() == 0:
        limits: dict[str, tuple[int | None, int | None]] = {"nofile": (None, None)}
    else:
        limits = {"nofile": (2**40, 2**40)}
    error = await refused(sh("true", limits=limits))
    assert "its limits can't be set" in error.problem


@each_shell
@pytest.mark.parametrize("what", ["link", "directory", "fifo", "nowhere"])
async def test_a_log_that_can_not_be_one_is_refused_by_its_path(
    command: tuple[str, ...], what: str, tmp_path: Path
) -> None:
    log = tmp_path / "x" / "log" if what == "nowhere" else tmp_path / "log"
    if what == "link":
        log.symlink_to(tmp_path / "elsewhere")
    elif what == "directory":
        log.mkdir()
    elif what == "fifo":
        os.mkfifo(log)
    error = await refused(sh("true", log=str(log)), *command)
    assert str(log) in error.problem
    assert not (tmp_path / "elsewhere").exists()


async def test_a_log_of_somebody_else_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.touch()
    if os.geteuid():
        pytest.skip("only root can give a file away")
    os.chown(log, 12_345, -1)
    assert f"{log} belongs to another user" in (await refused(sh("true", log=str(log)))).problem


async def test_a_state_directory_that_can_not_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert str(tmp_path / "file") in (await refused(sh("true"))).problem


async def test_a_log_directory_that_others_can_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    logs = tmp_path / "trio-lifecycle" / "logs"
    logs.mkdir(parents=True)
    logs.chmod(0o777)
    assert f"{logs} can be written by others" in (await refused(sh("true"))).problem


@each_shell
async def test_the_last_five_logs_are_kept(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    for number in range(7):
        assert await outcome(sh(f"echo {number}"), *command) == (0, f"{number}\n")
    logs = sorted((tmp_path / "trio-lifecycle" / "logs").iterdir())
    assert [(log.name, log.read_text()) for log in logs] == [
        ("d.log", "6\n"),
        *((f"d.log.{number}", f"{6 - number}\n") for number in range(1, 5)),
    ]
    assert {log.stat().st_mode & 0o777 for log in logs} == {0o600}


@each_shell
async def test_a_log_that_is_named_is_appended_to_and_its_size_before_is_told(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    order = sh("echo after", log=str(tmp_path / "log"))
    for size, text in enumerate(["after\n", "after\nafter\n"]):
        async with session(*command) as there:
            launched = await launch(there, order)
            assert 6 * size == launched.log_size
            await launched.open_gate()
            await launched.wait_end()
            assert text == (tmp_path / "log").read_text()


async def test_a_machine_without_setsid_is_told_of() -> None:
    # The usual places are searched whatever the PATH is.
    found = await trio.run_process(["unshare", "-m", "true"], check=False, capture_stderr=True)
    if found.returncode:
        pytest.skip("nothing may be mounted")
    cover = f"mount --bind /dev/null {shutil.which('setsid')} && exec sh -s"
    error = await refused(sh("true"), "unshare", "-m", "sh", "-c", cover)
    assert "no setsid" in error.problem


async def test_a_start_that_is_lost_on_its_way_runs_nothing() -> None:
    async with session("true") as there:
        await there.wait_end()
        with pytest.raises(Exception, match=r"launcher has ended|reads no more"):
            with trio.fail_after(10):
                await launch(there, sh("true"))


@pytest.mark.parametrize("what", ["disk full", "read-only"])
async def test_a_home_that_can_not_be_written_is_named(what: str, tmp_path: Path) -> None:
    logs = f"{tmp_path}/trio-lifecycle/logs"
    fill = f"cat /dev/zero >{logs}/zeros 2>/dev/null" if what == "disk full" else ":"
    again = "remount" if what == "disk full" else "remount,ro"
    mount = (
        f"mount -t tmpfs -o size=64k,mode=700 none {tmp_path} && mkdir -p {logs} && {fill};"
        f" mount -o {again} {tmp_path} && XDG_STATE_HOME={tmp_path} exec sh -s"
    )
    found = await trio.run_process(["unshare", "-m", "true"], check=False, capture_stderr=True)
    if found.returncode:
        pytest.skip("no mount namespace can be made here")
    error = await refused(sh("true"), "unshare", "-m", "sh", "-c", mount)
    number = errno.ENOSPC if what == "disk full" else errno.EROFS
    assert (error.errno, f"{logs}/d.log" in error.problem) == (number, True)


class Liar(LocalSession):
    """A session whose shell answers with nonsense as soon as it knows the token."""

    words = ""

    async def send(self, data: bytes) -> None:
        """Take the token out of what is sent."""
        token = re.search(rb"trio_token=(trio-\S+)", data)
        assert token is not None
        await super().send(b"echo %s %s\n" % (token[1], self.words.encode()))


@pytest.mark.parametrize(
    "words", ["pid", "pid 1 2 boot 3 /log", "pid x y z", "pid -1 2 boot 3 /log", "pid 7 8"]
)
async def test_a_launcher_that_names_no_process_is_not_believed(words: str) -> None:
    async with trio.open_nursery() as nursery:
        session = await Liar.start(nursery)
        session.words = words
        with pytest.raises(LostError, match="nonsense"):
            await launch(session, Order(name="d", program="/bin/true"))
        nursery.cancel_scope.cancel()


async def test_an_exit_status_that_is_none_is_not_believed() -> None:
    async with trio.open_nursery() as nursery:
        session = await Liar.start(nursery)
        launched = Launched(session, Order(name="d", program="/bin/true"))
        session.words = "exit soon"
        await launched._say(f"trio_token={launched._token}\n".encode())
        with pytest.raises(LostError, match="nonsense"):
            await launched.wait_end()
        nursery.cancel_scope.cancel()
