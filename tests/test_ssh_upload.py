"""Files that a daemon needs on another machine are brought there, once and whole."""

# ruff: noqa: ASYNC110, ASYNC240 - files of tests are small, and directories have no events

import logging
import os
import shutil
import stat
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.ssh_server import server
from tests.sshd import Server
from tests.uploads import bring, channels, local, only, there, touch, until_begun
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, LogLine, SSHSpawner
from trio_lifecycle._ssh import _remote_copies
from trio_lifecycle._ssh._digest import digest_of
from trio_lifecycle._ssh._machine import machine
from trio_lifecycle.spawner._bringing import _Reporter

__all__ = ("local", "server", "there")


@pytest.mark.needs("sshd")
async def test_a_script_is_uploaded_and_runs_as_a_daemon(server: Server, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho it is up\nexec sleep 60\n")
    script.chmod(0o755)
    remote = tmp_path / "a new" / "directory" / "it's a $(daemon)"
    spawner = SSHSpawner(
        "127.0.0.1",
        user=server.user,
        port=server.port,
        config=None,
        agent=None,
        client_keys=server.key,
        host_key=server.host_key,
        upload={script: remote},
    )
    config = LifecycleConfig(str(remote), name="it", ready_mode=LogLine("it is up"))
    async with DaemonLifecycle(config, spawner=spawner).running() as daemon:
        assert "running" == await daemon.check()
    assert script.read_bytes() == remote.read_bytes()
    assert [remote] == [*remote.parent.iterdir()]
    assert {0o755} == {stat.S_IMODE(path.stat().st_mode) for path in (remote, remote.parent)}


async def test_what_was_brought_once_is_not_asked_about_again(
    server: Server, local: Path, there: Path
) -> None:
    another = Path(shutil.copy(local, local.with_name("another")))
    await bring(server, (local, there / "a"), (another, there / "b"))
    # One for the line, and one for each file.
    assert 3 == await channels(server)
    (there / "a").unlink()
    await bring(server, (local, there / "a"), (another, there / "b"))
    assert 3 == await channels(server)
    assert [there / "b"] == [*there.iterdir()]


async def test_the_same_file_is_not_uploaded_again_and_a_changed_one_is(
    server: Server, local: Path, there: Path
) -> None:
    await bring(server, (local, there / "f"))
    first = (there / "f").stat()
    touch(local)
    await bring(server, (local, there / "f"))
    assert (2, first.st_ino) == (await channels(server), (there / "f").stat().st_ino)
    # Of the same size, so that only its digest tells.
    local.write_bytes(b"WHAT A DAEMON NEEDS")
    touch(local)
    await bring(server, (local, there / "f"))
    assert (3, b"WHAT A DAEMON NEEDS") == (await channels(server), (there / "f").read_bytes())
    local.write_bytes(b"more")
    await bring(server, (local, there / "f"))
    assert (4, b"more") == (await channels(server), (there / "f").read_bytes())


async def test_a_large_file_is_compared_in_a_session_of_its_own(
    server: Server, local: Path, there: Path
) -> None:
    with local.open("wb") as file:
        file.write(b"x")
        file.truncate(_remote_copies.QUICK_BYTES + 1)
    await bring(server, (local, there / "f"))
    # The line, the copy, and its digest.
    assert 3 == await channels(server)
    assert await digest_of(local) == await digest_of(there / "f")
    inode = (there / "f").stat().st_ino
    touch(local)
    await bring(server, (local, there / "f"))
    assert (4, inode) == (await channels(server), (there / "f").stat().st_ino)


async def test_a_file_that_is_there_is_made_executable_and_nothing_more(
    server: Server, local: Path, there: Path
) -> None:
    shutil.copy(local, there / "f")
    (there / "f").chmod(0o640)
    local.chmod(0o755)
    await bring(server, (local, there / "f"))
    assert (1, 0o751) == (await channels(server), stat.S_IMODE((there / "f").stat().st_mode))


async def test_a_path_counts_from_the_login_or_from_the_home(server: Server, local: Path) -> None:
    facts = await machine(server.target()).facts()
    name = f"trio_lifecycle-{os.getpid()}"
    try:
        await bring(server, (local, f"~/{name}/home"))
        await bring(server, (local, f"./{name}/login"))
        assert (Path(facts.home) / name / "home").is_file()
        assert (Path(facts.login_dir) / name / "login").is_file()
    finally:
        for directory in {facts.home, facts.login_dir}:
            shutil.rmtree(Path(directory) / name, ignore_errors=True)


@pytest.mark.parametrize(
    "name", [" ", "a\nb", "'", "-n", "$(id)", "`id`", "*", "ü", "\udcff", "\\"]
)
async def test_a_file_may_have_any_name(
    server: Server, tmp_path: Path, there: Path, name: str
) -> None:
    local = tmp_path / name
    local.write_bytes(b"x")
    await bring(server, (local, there / name / name))
    assert b"x" == (there / name / name).read_bytes()
    touch(local)
    await bring(server, (local, there / name / name))
    assert 2 == await channels(server)


async def test_a_long_name_has_room_for_its_temporary_one(
    server: Server, local: Path, there: Path
) -> None:
    await bring(server, (local, there / ("ü" * 127)))
    assert ["ü" * 127] == [path.name for path in there.iterdir()]


async def test_tasks_that_ask_at_once_share_one_upload(
    server: Server, local: Path, there: Path
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(bring, server, (local, there / "f"))
    assert 2 == await channels(server)


async def test_an_upload_that_is_cancelled_leaves_nothing_and_is_done_by_who_waits(
    server: Server, local: Path, there: Path
) -> None:
    with local.open("wb") as file:
        file.truncate(60_000_000)

    async def wait() -> None:
        await bring(server, (local, there / "f"))
        done.append(True)

    done: list[bool] = []
    async with trio.open_nursery() as others, trio.open_nursery() as nursery:
        nursery.start_soon(bring, server, (local, there / "f"))
        await until_begun(there)
        others.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [True] == done
    assert [there / "f"] == [*there.iterdir()]
    assert local.stat().st_size == (there / "f").stat().st_size


async def test_without_a_program_for_digests_the_size_is_all_that_is_checked(
    server: Server, local: Path, there: Path, tmp_path: Path
) -> None:
    to = machine(server.target())
    await only(await to.line(), tmp_path / "bin", "stat", "mkdir", "ls")
    await bring(server, (local, there / "f"))
    inode = (there / "f").stat().st_ino
    touch(local)
    await bring(server, (local, there / "f"))
    assert inode != (there / "f").stat().st_ino
    assert local.read_bytes() == (there / "f").read_bytes()


async def test_how_far_a_large_file_has_come_is_logged_now_and_then(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO, "trio_lifecycle")
    reporter = _Reporter("a to there")
    reporter.hear(1 << 20, 1 << 30)
    await trio.sleep(10)
    reporter.hear(5 << 20, 1 << 30)
    reporter.hear(6 << 20, 1 << 30)
    assert ["uploading a to there: 5 of 1024 MiB"] == caplog.messages
