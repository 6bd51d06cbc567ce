"""Checks of files, disks and programs, against real ones."""

import os
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.stepping import DAEMON
from tests.support import UNMEASURED, permitted, run_app
from trio_lifecycle import BinaryNotFoundError, DiskSpace, Executable, FileExists, find_binary
from trio_lifecycle.preflight._disk_space import free_bytes
from trio_lifecycle.preflight._failure import CheckFailed

BYTES_PER_GIB = 2**30

# Whoever runs the tests, what follows has no more rights than anybody.
AS_NOBODY = f"""
if os.getuid() == 0:
    os.setgroups([])
    os.setgid({DAEMON.pw_gid})
    os.setuid({DAEMON.pw_uid})

async def main():
    try:
        await eval(sys.argv[1])()
    except Exception as error:
        print(error)
    else:
        print("passed")

trio.run(main)
"""


async def said_by(check: Callable[[], Awaitable[object]]) -> str:
    """What a check says that fails."""
    with pytest.raises(CheckFailed) as caught:
        await check()
    return str(caught.value)


def said_to_nobody(check: str, directory: Path) -> str:
    """What a check says to a user without rights, who may enter the directory for tests."""
    for place in (directory, *directory.parents[:3]):
        if place.owner() == Path.home().owner() and place != Path("/tmp"):
            place.chmod(place.stat().st_mode | stat.S_IXOTH)
    (line,) = run_app(AS_NOBODY, check, env=UNMEASURED)
    return line


# --- FileExists -----------------------------------------------------------------------------------


async def test_a_file_that_can_be_read_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model"
    model.write_bytes(b"12345")
    (tmp_path / "link").symlink_to("model")
    await FileExists(model)()
    await FileExists(str(tmp_path / "link"), min_bytes=5)()
    monkeypatch.chdir(tmp_path)
    await FileExists("model")()


async def test_a_missing_file_is_told_from_a_missing_directory(tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert f"{model} is missing: put it there, or mend the path" == await said_by(FileExists(model))
    deep = tmp_path / "a" / "b" / "model"
    assert f"of its path there is only {tmp_path}" in await said_by(FileExists(deep))
    model.touch()
    assert f"of its path there is only {model}" in await said_by(FileExists(model / "a" / "b"))


async def test_what_is_no_file_is_told(tmp_path: Path) -> None:
    assert f"{tmp_path} is a directory: name a file in it" == await said_by(FileExists(tmp_path))
    os.mkfifo(tmp_path / "pipe")
    assert f"{tmp_path}/pipe is no regular file" == await said_by(FileExists(tmp_path / "pipe"))


async def test_a_link_to_nothing_says_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/nowhere/model")
    said = await said_by(FileExists(tmp_path / "link"))
    assert f"{tmp_path}/link is a link to /nowhere/model, which is missing" == said


async def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("link")
    said = await said_by(FileExists(tmp_path / "link"))
    assert "can't be read: Too many levels of symbolic links" in said


async def test_a_file_that_is_too_small_says_both_sizes(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"x" * 1500)
    await FileExists(tmp_path / "model", min_bytes=1500)()
    said = await said_by(FileExists(tmp_path / "model", min_bytes=1501))
    assert "has 1,500 bytes, and should have 1,501 at least" in said


def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o000)
    said = said_to_nobody(f"FileExists({str(secret)!r})", tmp_path)
    assert f"{secret} may not be read by user" in said


def test_a_file_in_a_directory_without_permission_is_told(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "model").touch()
    closed.chmod(0o000)
    said = said_to_nobody(f"FileExists({str(closed / 'model')!r})", tmp_path)
    closed.chmod(0o700)
    assert f"{closed / 'model'} may not be read by user" in said


# --- DiskSpace ------------------------------------------------------------------------------------


async def test_what_is_free_is_what_the_system_says_of_the_nearest_directory(
    tmp_path: Path,
) -> None:
    place, free = free_bytes(tmp_path / "not" / "yet" / "there")
    facts = os.statvfs(tmp_path)
    assert tmp_path == place
    # Others write meanwhile.
    assert facts.f_bavail * facts.f_frsize == pytest.approx(free, rel=0.05)


async def test_a_disk_with_room_passes(tmp_path: Path) -> None:
    await DiskSpace(tmp_path / "later", gib=1 / BYTES_PER_GIB)()


async def test_a_disk_without_room_says_what_it_has(tmp_path: Path) -> None:
    total = shutil.disk_usage(tmp_path).total / BYTES_PER_GIB
    said = await said_by(DiskSpace(tmp_path / "later", gib=total + 1))
    assert f"the file system of {tmp_path} has " in said
    assert f"{total + 1:,.2f} GiB are needed: make room, or use another disk" in said


MOUNTABLE = permitted("unshare", "--mount", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt")


@pytest.mark.skipif(not MOUNTABLE, reason="may not mount a file system of its own")
def test_a_disk_of_its_own_counts_from_where_it_is_mounted(tmp_path: Path) -> None:
    said = run_app(
        """
async def main():
    await DiskSpace(sys.argv[1], gib=1 / 2048)()
    try:
        await DiskSpace(sys.argv[1] + "/later", gib=1 / 512)()
    except Exception as error:
        print(error)

trio.run(main)
""",
        str(tmp_path),
        env=UNMEASURED,
        within=[
            *("unshare", "--mount", "sh", "-c"),
            f'mount -t tmpfs -o size=1m none {tmp_path} && exec "$@"',
            "sh",
        ],
    )
    (line,) = said
    assert line.startswith(f"the file system of {tmp_path} has 0.00 GiB free")


def test_a_disk_behind_a_closed_directory_says_so(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    said = said_to_nobody(f"DiskSpace({str(closed / 'a')!r}, gib=1)", tmp_path)
    closed.chmod(0o700)
    assert f"how much is free at {closed / 'a'} can't be told: Permission denied" == said


# --- Executable -----------------------------------------------------------------------------------


async def test_a_program_is_looked_for_as_find_binary_does(tmp_path: Path) -> None:
    program = tmp_path / "tool"
    program.write_text("#!/bin/sh\n")
    await Executable("sh")()
    with pytest.raises(BinaryNotFoundError) as by_check:
        await Executable("tool", [tmp_path])()
    with pytest.raises(BinaryNotFoundError) as by_search:
        find_binary("tool", [tmp_path])
    assert str(by_search.value) == str(by_check.value)
    assert f"is not executable: chmod +x {program}" in str(by_check.value)
    program.chmod(0o755)
    await Executable("tool", [tmp_path])()
