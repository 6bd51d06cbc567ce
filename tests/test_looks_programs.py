"""Programs of another machine: the same rules and the same reasons as on this one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import shells
from tests.shells import OpenLine, each_shell, open_session
from tests.stepping import only_root
from tests.support import permitted
from trio_lifecycle import ConfigError, _binary
from trio_lifecycle._errors import BinaryNotFoundError
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._remote_binary import RemoteBinary, find_binary
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh_errors import RemoteBinaryNotFoundError

open_line = shells.open_line

SCRIPT = b"#!/bin/sh\n"
ELF = Path("/bin/true").resolve().read_bytes()
ODD = "a b\n'$(touch x)\"\\"


def patched(at: int, data: bytes) -> bytes:
    """A program with other bytes in one place."""
    return ELF[:at] + data + ELF[at + len(data) :]


CONTENTS = {
    "script": SCRIPT,
    ODD: SCRIPT,
    "program": ELF,
    "tab": b"#!\t/bin/sh\t-e\n",
    "empty": b"",
    "plain": b"echo\n",
    "no interpreter": b"#!  \n",
    "missing interpreter": b"#! /nowhere/x -a\n",
    "dos": b"#!/bin/sh\r\n",
    "cut": ELF[:60],
    "tiny": ELF[:4],
    "class": patched(4, b"\x07"),
    "order": patched(5, b"\x07"),
    "object": patched(16, b"\1\0"),
    "foreign": patched(18, b"\xb7\0"),
    "unknown": patched(18, b"\xfe\0"),
    "big": patched(5, b"\2\0"),
    "entries": patched(54, b"\1\0"),
    "none": patched(56, b"\0\0"),
    "elder": patched(18, b"\3\0"),
    "musl": ELF.replace(b"/lib64/ld-linux-x86-64.so.2\0", b"/lib64/no-linux-x86-64.so.2\0"),
}


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    """A directory of files, few of which can be started."""
    directory = tmp_path / "programs"
    directory.mkdir()
    for name, content in CONTENTS.items():
        directory.joinpath(name).write_bytes(content)
        directory.joinpath(name).chmod(0o755)
    directory.joinpath("mode").write_bytes(SCRIPT)
    for name in ("nested", "deep"):
        inner = {"nested": "missing\xa0interpreter", "deep": "deep"}[name]
        directory.joinpath(name).write_text(f"#!{directory}/{inner}\n")
        directory.joinpath(name).chmod(0o755)
    directory.joinpath("folder").mkdir()
    directory.joinpath("dangling").symlink_to("/nowhere")
    directory.joinpath("loop").symlink_to("loop")
    directory.joinpath("link").symlink_to("script")
    os.mkfifo(directory / "pipe")
    return directory


def here(path: str) -> object:
    """What is found on this machine."""
    try:
        return _binary.find_binary(path)
    except BinaryNotFoundError as error:
        return error.searched, error.near_misses


async def there(line: Line, path: str) -> object:
    """What is found on the other."""
    try:
        return (await find_binary(line, "gpu-2", path)).path
    except RemoteBinaryNotFoundError as error:
        return error.searched, error.near_misses


@each_shell
async def test_every_file_is_judged_as_on_this_machine(
    shell: str, open_line: OpenLine, programs: Path
) -> None:
    paths = [f"{programs}/{name}" for name in sorted(os.listdir(programs))]  # noqa: PTH208
    paths += [f"{programs}/absent", f"{programs}/script/below", f"{programs}/{'x' * 300}"]
    async with open_line(shell) as line:
        assert [here(path) for path in paths] == [await there(line, path) for path in paths]


@each_shell
async def test_the_file_behind_all_links_is_told_too(
    shell: str, open_line: OpenLine, programs: Path
) -> None:
    async with open_line(shell) as line:
        found = await find_binary(line, "gpu-2", f"{programs}/link")
        assert RemoteBinary(f"{programs}/link", f"{programs}/script") == found
        odd = await find_binary(line, "gpu-2", ODD, [str(programs)])
        assert RemoteBinary(f"{programs}/{ODD}", f"{programs}/{ODD}") == odd


@pytest.fixture
def place(tmp_path: Path) -> Callable[[str, int], Path]:
    """Make directories with a program named tool."""

    def place(name: str, mode: int) -> Path:
        directory = tmp_path / name
        directory.mkdir()
        directory.joinpath("tool").write_bytes(SCRIPT)
        directory.joinpath("tool").chmod(0o755)
        directory.chmod(mode)
        return directory

    return place


@each_shell
async def test_what_only_path_names_is_used_with_care(
    shell: str, open_line: OpenLine, place: Callable[[str, int], Path]
) -> None:
    open_to_all, closed = place("open", 0o777), place("closed", 0o755)
    path = f"relative::{open_to_all}:{closed}/.:{closed}"
    async with open_line(shell, PATH=f"{path}:{os.environ['PATH']}") as line:
        assert f"{closed}/tool" == (await find_binary(line, "gpu-2", "tool")).path
        with pytest.raises(RemoteBinaryNotFoundError) as caught:
            await find_binary(line, "gpu-2", "tool-that-is-not-there")
        assert f"{closed}/tool-that-is-not-there" == caught.value.searched[1]
        asked = await find_binary(line, "gpu-2", "tool", [str(open_to_all)])
        assert f"{open_to_all}/tool" == asked.path


@pytest.mark.skipif(
    not permitted("unshare", "--mount", "mount", "--bind", "/dev/null", "/dev/zero"),
    reason="nothing may be mounted",
)
async def test_a_program_is_found_where_nobody_can_read_what_it_is_made_for() -> None:
    # The usual places are searched whatever the PATH is.
    cover = f"mount --bind /dev/null {shutil.which('od')} && exec sh -s"
    async with open_session("unshare", "--mount", "sh", "-c", cover) as session:
        line = await Line.open(session)
        assert "/bin/true" == (await find_binary(line, "gpu-2", "/bin/true")).path


async def test_an_unsafe_directory_of_path_is_named_with_the_machine(
    open_line: OpenLine, place: Callable[[str, int], Path]
) -> None:
    directory = place("open", 0o1777)
    async with open_line(PATH=f"{directory}:{os.environ['PATH']}") as line:
        with pytest.raises(RemoteBinaryNotFoundError) as caught:
            await find_binary(line, "gpu-2", "tool")
    said = str(caught.value)
    assert f"{directory}/tool is in a directory that anyone can write in" in said
    assert said.startswith("On gpu-2: tool can't be started. What was found:")


async def test_a_relative_name_begins_in_the_login_directory(
    place: Callable[[str, int], Path],
) -> None:
    directory = place("home", 0o755)
    async with open_session("sh", "-c", f"cd '{directory}'; exec sh -s") as session:
        line = await Line.open(session)
        assert f"{directory}/tool" == (await find_binary(line, "gpu-2", "./tool")).path
        assert f"{directory}/tool" == (await find_binary(line, "gpu-2", "tool", ["."])).path
        up = await find_binary(line, "gpu-2", "../home/tool")
        assert RemoteBinary(f"{directory}/../home/tool", f"{directory}/tool") == up


@only_root
@pytest.mark.needs("setpriv")
async def test_what_may_not_be_looked_at_is_said_where_it_was_asked_for(
    place: Callable[[str, int], Path],
) -> None:
    locked, guarded = place("locked", 0o700), place("guarded", 0o755)
    guarded.joinpath("tool").chmod(0o700)
    for above in locked.parents:
        if above.stat().st_uid == os.getuid() and not above.stat().st_mode & 1:
            above.chmod(above.stat().st_mode | 0o011)
    command = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-s")
    async with open_session(*command, PATH=f"{locked}:{os.environ['PATH']}") as session:
        line = await Line.open(session)
        with pytest.raises(RemoteBinaryNotFoundError) as caught:
            await find_binary(line, "gpu-2", "tool")
        assert () == caught.value.near_misses
        with pytest.raises(RemoteBinaryNotFoundError) as caught:
            await find_binary(line, "gpu-2", "tool", [str(locked), str(guarded)])
        near_misses = caught.value.near_misses
        assert f"{locked}/tool can't be looked at: Permission denied" == near_misses[0]
        assert near_misses[1].startswith(f"{guarded}/tool may not be executed by this user, or")


@pytest.mark.parametrize("name", ["", "a\0b"])
async def test_a_name_that_can_be_none_is_refused(name: str, open_line: OpenLine) -> None:
    async with open_line() as line:
        with pytest.raises(ConfigError, match="binary_name"):
            await find_binary(line, "gpu-2", name)
        with pytest.raises(ConfigError, match="search_path"):
            await find_binary(line, "gpu-2", "x", [name])


async def test_a_machine_that_can_start_no_tool_finds_nothing_out(open_line: OpenLine) -> None:
    async with open_line() as line:
        await line.run("ulimit", "-n", 4)
        with pytest.raises(LostError):
            await find_binary(line, "gpu-2", "sh")
