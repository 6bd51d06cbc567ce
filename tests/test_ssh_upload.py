"""Files that a daemon needs on another machine are brought there, once and whole."""

# ruff: noqa: ASYNC110, ASYNC240 - files of tests are small, and directories have no events

import hashlib
import logging
import os
import shutil
import stat
from pathlib import Path

import pytest
import trio
import trio.testing
from attrs import evolve

from tests.shells import COMMANDS, OpenLine, each_shell, open_line, open_session
from tests.ssh_server import server
from tests.sshd import Server, running_sshd
from tests.support import PATIENCE_S, permitted, run_app
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    LifecycleConfig,
    LogLine,
    SSHConnectError,
    SSHSpawner,
)
from trio_lifecycle._ssh import _remote_copies
from trio_lifecycle._ssh._digest import digest_of
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine, machine
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner import _bringing
from trio_lifecycle.spawner._bringing import _Reporter
from trio_lifecycle.spawner._uploads import Uploads

__all__ = ("open_line", "server")


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A file of this machine."""
    path = tmp_path / "here" / "file"
    path.parent.mkdir()
    path.write_bytes(b"what a daemon needs")
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the other machine."""
    path = tmp_path / "there"
    path.mkdir()
    return path


async def bring(server: Server, *pairs: tuple[Path, object]) -> Machine:
    """Bring files as a spawner does."""
    to = machine(server.target())
    await Uploads({here: str(there) for here, there in pairs}).bring(to)
    return to


async def channels(server: Server) -> int:
    """How often the machine was asked."""
    return (await machine(server.target()).transport()).channels_opened


async def until_begun(directory: Path) -> None:
    """Wait until a copy has begun to arrive."""
    with trio.fail_after(PATIENCE_S):
        while not [*directory.iterdir()]:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.005)


def touch(path: Path) -> None:
    """Let a file look like one that was changed."""
    changed = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(changed, changed))


# --- what is brought ------------------------------------------------------------------------------


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


# --- what goes wrong ------------------------------------------------------------------------------


async def test_a_file_that_is_missing_here_is_named_before_anything_is_sent(
    server: Server, tmp_path: Path, there: Path
) -> None:
    with pytest.raises(ConfigError, match=r"upload\['.*missing'\]: .*No such file"):
        await bring(server, (tmp_path / "missing", there / "f"))
    with pytest.raises(ConfigError, match="is no regular file"):
        await bring(server, (tmp_path, there / "f"))
    assert [] == [*there.iterdir()]


async def test_a_file_that_can_not_be_read_here_is_named(server: Server, there: Path) -> None:
    # Nobody may read address 0, not even root.
    with pytest.raises(ConfigError, match=r"upload\['/proc/self/mem'\]: .*output error"):
        await bring(server, (Path("/proc/self/mem"), there / "f"))
    assert [] == [*there.iterdir()]


@pytest.mark.parametrize("kind", ["directory", "fifo"])
async def test_what_is_no_file_there_is_never_replaced(
    server: Server, local: Path, there: Path, kind: str
) -> None:
    (os.mkdir if kind == "directory" else os.mkfifo)(there / "f")
    with pytest.raises(SSHConnectError, match="what stands there is") as raised:
        await bring(server, (local, there / "f"))
    assert f"uploading {local} to {there / 'f'}" == raised.value.phase
    assert not (there / "f").is_file()


async def test_a_directory_that_can_not_be_made_is_told_with_its_reason(
    server: Server, local: Path, there: Path
) -> None:
    (there / "file").touch()
    with pytest.raises(SSHConnectError, match="Not a directory"):
        await bring(server, (local, there / "file" / "below" / "f"))


async def test_a_file_that_changes_while_it_is_copied_is_not_left_there(
    server: Server, local: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def digest_before(path: Path) -> str:
        digest = await digest_of(path)
        path.write_bytes(path.read_bytes().upper())
        return digest

    monkeypatch.setattr(_bringing, "digest_of", digest_before)
    with pytest.raises(SSHConnectError, match="what has arrived is not what was read before"):
        await bring(server, (local, there / "f"))
    assert [] == [*there.iterdir()]


async def test_a_file_that_vanishes_before_it_is_copied_is_named(
    server: Server, local: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def digest_before(path: Path) -> str:
        digest = await digest_of(path)
        path.unlink()
        return digest

    monkeypatch.setattr(_bringing, "digest_of", digest_before)
    with pytest.raises(ConfigError, match="can't be read: No such file"):
        await bring(server, (local, there / "f"))
    assert [] == [*there.iterdir()]


async def test_a_user_without_a_home_needs_another_path(server: Server, local: Path) -> None:
    line = await machine(server.target()).line()
    line.facts = evolve(line.facts, home="")
    with pytest.raises(ConfigError, match="has no home there"):
        await bring(server, (local, "~/f"))


async def test_all_who_wait_for_an_upload_share_its_failure(
    server: Server, local: Path, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        with pytest.raises(SSHConnectError, match="what stands there is a directory"):
            await bring(server, (local, there))
        failed.append(True)

    async def count(path: Path) -> str:
        read.append(path)
        return await digest_of(path)

    failed: list[bool] = []
    read: list[Path] = []
    monkeypatch.setattr(_bringing, "digest_of", count)
    await machine(server.target()).facts()
    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(ask)
    assert ([True] * 5, [local]) == (failed, read)


@pytest.mark.needs("sshd")
async def test_a_server_without_sftp_is_named(local: Path, there: Path) -> None:
    with running_sshd(Subsystem="other /bin/true") as server:
        with pytest.raises(SSHConnectError, match="'Subsystem sftp internal-sftp'"):
            await bring(server, (local, there / "f"))
        await (await machine(server.target()).transport()).close()
    assert [] == [*there.iterdir()]


@pytest.mark.needs("sshd")
@pytest.mark.parametrize("remote", ["/sys/f", "/sys/nowhere/f"])
async def test_a_directory_that_may_not_be_written_to_is_told(
    server: Server, local: Path, remote: str
) -> None:
    # There not even root may make a file; in a container it is often read-only.
    with pytest.raises(SSHConnectError, match=r"Permission denied|not permitted|ead-only"):
        await bring(server, (local, remote))


FULL = """
import logging, subprocess
from pathlib import Path
from tests.sshd import running_sshd
from trio_lifecycle import SSHConnectError
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine, machine
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner import _bringing
from trio_lifecycle.spawner._bringing import _Reporter
from trio_lifecycle.spawner._uploads import Uploads
from trio_lifecycle.spawner._uploads import Uploads

room = Path(sys.argv[1])
local = room.parent / "local"
local.write_bytes(bytes(3_000_000))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", room], check=True)

async def main(server):
    try:
        await Uploads({local: room / "f"}).bring(machine(server.target()))
    except SSHConnectError as error:
        print(error.problem)
    print([*room.iterdir()])

with running_sshd() as server:
    trio.run(main, server)
"""


@pytest.mark.needs("sshd")
@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"),
    reason="only root may mount a disk to fill it",
)
def test_a_full_disk_is_told_with_what_is_free_and_nothing_stays_on_it(tmp_path: Path) -> None:
    room = tmp_path / "room"
    room.mkdir()
    said = run_app(FULL, str(room), within=("unshare", "--mount"))
    assert ["its disk has no room for it: 1.0 MiB are free, and 2.9 MiB are needed", "[]"] == said


async def test_a_lost_connection_fails_the_upload(server: Server, local: Path, there: Path) -> None:
    with local.open("wb") as file:
        file.truncate(60_000_000)

    async def lose() -> None:
        transport = await machine(server.target()).transport()
        await until_begun(there)
        transport.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(lose)
        with pytest.raises(SSHConnectError, match=r"uploading .* failed"):
            await bring(server, (local, there / "f"))
    assert not (there / "f").exists()


# --- what can't be meant --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("upload", "problem"),
    [
        ({"a": "b/"}, r"upload\['a'\]: .* names no file"),
        ({"a": ""}, "names no file"),
        ({"a": "/"}, "names no file"),
        ({"a": "b/.."}, "names no file"),
        ({"a": "."}, "names no file"),
        ({"a": "~"}, "must be an absolute path there"),
        ({"a": "~other/b"}, "must be an absolute path there"),
        ({"a": "b\0"}, "NUL"),
        ({"a\0": "b"}, "NUL"),
        ({"a/": "b"}, "names no file"),
        ({"a": 1}, "must be a string or path"),
        ({1: "b"}, "must be a string or path"),
        ({"~nobody-of-that-name/a": "b"}, "leads to no home directory"),
        ({"a": "~/f", "b": "./f"}, r"upload\['b'\]: 'f' is where 'a' goes, too"),
        (["a"], "must be a mapping"),
    ],
)
def test_what_can_not_be_meant_is_refused_at_once(upload: object, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        SSHSpawner("gpu-2", upload=upload)  # type: ignore[arg-type]


def test_no_files_are_fine_and_odd_ones_are_kept_apart() -> None:
    SSHSpawner("gpu-2", upload={})
    SSHSpawner("gpu-2", upload={"a": "/f", "b": "f", "c": "./~/f", Path("d"): Path("~/g")})


# --- digests in every shell -----------------------------------------------------------------------


@pytest.fixture
def digest(local: Path) -> str:
    """That of the file of this machine."""
    return hashlib.sha256(local.read_bytes()).hexdigest()


@each_shell
async def test_every_shell_compares_and_digests(
    shell: str, open_line: OpenLine, local: Path, digest: str, there: Path
) -> None:
    async with open_line(shell) as line:
        local.chmod(0o640)
        size = local.stat().st_size
        found = await _remote_copies.compare(line, str(local), size)
        assert (True, 0o640, digest) == found
        assert (True, None, None) == await _remote_copies.compare(line, str(local), size + 1)
        assert (False, None, None) == await _remote_copies.compare(line, str(there / "f"), 1)
        await _remote_copies.make_directory(line, str(there / "-n" / "b c"))
        assert 0o755 == stat.S_IMODE((there / "-n" / "b c").stat().st_mode)
        await _remote_copies.make_executable(line, str(local), 0o110)
        assert 0o750 == stat.S_IMODE(local.stat().st_mode)
        room = await _remote_copies.free_bytes(line, str(there))
        assert room is not None
        assert room > 0
        assert await _remote_copies.free_bytes(line, str(there / "nowhere")) is None
        with pytest.raises(OSError, match="No such file"):
            await _remote_copies.make_executable(line, str(there / "nowhere"), 0o111)


@each_shell
async def test_every_shell_digests_a_large_file_alone(shell: str, local: Path, digest: str) -> None:
    async with open_session(*COMMANDS[shell]) as session:
        with trio.fail_after(PATIENCE_S):
            assert digest == await _remote_copies.digest_alone(session, str(local))
            await session.wait_end()


async def test_a_large_digest_is_lost_with_its_shell(there: Path) -> None:
    os.mkfifo(there / "endless")
    async with open_session("sh", "-s") as session, trio.open_nursery() as nursery:

        async def ask() -> None:
            with pytest.raises(LostError):
                await _remote_copies.digest_alone(session, str(there / "endless"))

        nursery.start_soon(ask)
        writer = await trio.to_thread.run_sync(os.open, there / "endless", os.O_WRONLY)
        session.process.kill()
        os.close(writer)


@pytest.mark.parametrize("answer", [":", "printf half"])
async def test_an_answer_that_makes_no_sense_is_none(open_line: OpenLine, answer: str) -> None:
    async with open_line() as line:
        await line.run("eval", f"tl_compare() {{ {answer}; }}")
        with pytest.raises(LostError):
            await _remote_copies.compare(line, "/f", 1)


async def test_what_can_not_be_looked_at_there_is_no_missing_file(
    server: Server, local: Path, there: Path
) -> None:
    (there / "f").symlink_to("f")
    with pytest.raises(SSHConnectError, match="Too many levels of symbolic links"):
        await bring(server, (local, there / "f"))


async def test_a_digest_that_nobody_waits_for_ends(local: Path, there: Path) -> None:
    os.mkfifo(there / "endless")
    async with open_session("sh", "-s") as session:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_remote_copies.digest_alone, session, str(there / "endless"))
            # It opens the file when it has begun.
            writer = await trio.to_thread.run_sync(os.open, there / "endless", os.O_WRONLY)
            nursery.cancel_scope.cancel()
        os.write(writer, b"x")
        session.close()
        with trio.fail_after(PATIENCE_S):
            await session.wait_end()
    os.close(writer)


@pytest.mark.parametrize("program", ["sha256sum", "shasum", "openssl"])
async def test_each_program_gives_the_digest(
    open_line: OpenLine, local: Path, digest: str, tmp_path: Path, program: str
) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"needs {program}")
    async with open_line() as line:
        await only(line, tmp_path / "bin", program)
        assert digest == await _remote_copies.quick_digest(line, str(local))


async def only(line: Line, directory: Path, *programs: str) -> None:
    """Let a shell find no other programs than these."""
    directory.mkdir()
    for program in programs:
        (directory / program).symlink_to(shutil.which(program) or "")
    # Perl's programs begin with env(1).
    (directory / "perl").symlink_to(shutil.which("perl") or "/nowhere")
    await line.run("eval", f"PATH={directory}")


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
