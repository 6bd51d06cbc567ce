"""What goes wrong with a file that is brought to another machine leaves nothing there."""

# ruff: noqa: ASYNC110, ASYNC240 - files of tests are small, and directories have no events

import os
import signal
from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.ssh_server import server
from tests.sshd import Server, running_sshd
from tests.support import PATIENCE_S, permitted, run_app
from tests.uploads import bring, local, there, until_begun, until_gone
from trio_lifecycle import ConfigError, SSHConnectError, SSHSpawner
from trio_lifecycle._ssh._digest import digest_of
from trio_lifecycle._ssh._machine import machine
from trio_lifecycle.spawner import _bringing, _uploads
from trio_lifecycle.spawner._uploads import Uploads

__all__ = ("local", "server", "there")


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
        (ways,) = _uploads._ways.get().values()
        # Who asks when it has failed already, asks anew.
        while ways.turn.statistics().tasks_waiting < 4:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.01)
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
import subprocess
from pathlib import Path
from tests.sshd import running_sshd
from trio_lifecycle import SSHConnectError
from trio_lifecycle._ssh._machine import machine
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


async def lose(server: Server, local: Path, there: Path, *killed: int) -> None:
    """Lose the connection in the middle of an upload, after a process there was killed."""
    with local.open("wb") as file:
        file.truncate(60_000_000)

    async def cut() -> None:
        transport = await machine(server.target()).transport()
        await until_begun(there)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        transport.abort()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(cut)
        with pytest.raises(SSHConnectError, match=r"uploading .* failed"):
            await bring(server, (local, there / "f"))


@pytest.mark.needs("sshd")
async def test_a_lost_connection_fails_the_upload_and_nothing_of_it_stays(
    server: Server, local: Path, there: Path
) -> None:
    await lose(server, local, there)
    await until_gone(there)


async def test_what_an_upload_has_left_that_nobody_could_remove_goes_with_the_next_one(
    server: Server, local: Path, there: Path
) -> None:
    facts = await machine(server.target()).facts()
    await lose(server, local, there, facts.shell_pid)
    (left,) = there.iterdir()
    assert left.name.startswith(".f.")
    (there / ".f.mine.tmp").touch()
    await bring(server, (local, there / "f"))
    assert {there / "f", there / ".f.mine.tmp"} == {*there.iterdir()}


async def test_two_programs_that_bring_one_file_leave_each_others_alone(
    server: Server, local: Path, there: Path
) -> None:
    with local.open("wb") as file:
        file.truncate(60_000_000)

    async def bring_too() -> None:
        # Another target has a connection and a line of its own, as another program has.
        to = machine(server.target(connect_timeout=PATIENCE_S))
        await to.line()
        await until_begun(there)
        await Uploads({local: str(there / "f")}).bring(to)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bring_too)
        await bring(server, (local, there / "f"))
    assert [there / "f"] == [*there.iterdir()]


async def test_what_can_not_be_looked_at_there_is_no_missing_file(
    server: Server, local: Path, there: Path
) -> None:
    (there / "f").symlink_to("f")
    with pytest.raises(SSHConnectError, match="Too many levels of symbolic links"):
        await bring(server, (local, there / "f"))


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
