"""Files of another machine: marks, logs from a place on, and what is removed."""

import os
from pathlib import Path

import pytest

from tests import shells
from tests.shells import OpenLine, each_shell, open_session
from tests.stepping import only_root
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._remote_files import Chunk, find_file, read_log, remove_private
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner._local_prober import _mark_of

open_line = shells.open_line

ODD = "-lo g\n'$(touch x)\"\\\udcff"


@each_shell
async def test_the_mark_of_a_file_is_the_same_as_on_this_machine(
    shell: str, open_line: OpenLine, tmp_path: Path
) -> None:
    path = tmp_path / ODD
    path.write_bytes(b"12345")
    tmp_path.joinpath("link").symlink_to(path)
    async with open_line(shell) as line:
        for each in (path, tmp_path / "link", tmp_path, tmp_path / "absent", path / "below"):
            assert _mark_of(str(each)) == await find_file(line, str(each))
        tmp_path.joinpath("loop").symlink_to("loop")
        with pytest.raises(OSError, match="loop: Too many levels of symbolic links"):
            await find_file(line, str(tmp_path / "loop"))


@each_shell
async def test_a_log_is_read_from_any_place_on_byte_by_byte(
    shell: str, open_line: OpenLine, tmp_path: Path
) -> None:
    path = tmp_path / ODD
    content = os.urandom(10_000) + b"\0\n\n"
    path.write_bytes(content)
    async with open_line(shell) as line:
        for offset, most in (
            (0, 100),
            (4_096, 4_096),
            (4_095, 2),
            (1, 65_536),
            (20_000, 5),
            (7, 0),
        ):
            chunk = await read_log(line, str(path), offset, most)
            assert Chunk(len(content), content[offset : offset + most]) == chunk
        assert await read_log(line, str(tmp_path / "absent"), 0) is None


async def test_what_is_no_log_is_not_read(open_line: OpenLine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    async with open_line() as line:
        for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(OSError, match="it is no regular file"):
                await read_log(line, str(path), 0)


@only_root
@pytest.mark.needs("setpriv")
async def test_what_another_user_may_not_read_is_said(tmp_path: Path) -> None:
    path = Path("/etc/shadow")
    async with open_session("setpriv", "--reuid=65534", "--clear-groups", "sh", "-s") as session:
        line = await Line.open(session)
        with pytest.raises(OSError, match="/etc/shadow: Permission denied"):
            await read_log(line, str(path), 0)
        with pytest.raises(OSError, match="Permission denied"):
            await find_file(line, "/root/x/y")


@each_shell
async def test_a_private_directory_is_removed_with_what_is_in_it(
    shell: str, open_line: OpenLine, tmp_path: Path
) -> None:
    directory = tmp_path / ODD
    directory.joinpath("below").mkdir(parents=True)
    directory.joinpath("below", ODD).touch()
    directory.chmod(0o700)
    async with open_line(shell) as line:
        assert await remove_private(line, str(directory)) is None
        assert ODD not in os.listdir(tmp_path)  # noqa: PTH208
        assert await remove_private(line, str(directory)) is None


async def test_what_is_not_ours_alone_is_not_removed(open_line: OpenLine, tmp_path: Path) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    for directory, mode in ((home, 0o700), (shared, 0o750)):
        directory.mkdir()
        directory.chmod(mode)
    tmp_path.joinpath("link").symlink_to(home)
    tmp_path.joinpath("file").touch(mode=0o700)
    async with open_line(HOME=str(home)) as line:
        for name, why in (
            *(("home", "no directory of ours"), ("shared", "others may use it")),
            *(("link", "no directory of ours"), ("file", "no directory of ours")),
        ):
            reason = await remove_private(line, str(tmp_path / name))
            assert reason is not None
            assert why in reason
        assert {"home", "shared", "link", "file"} == set(os.listdir(tmp_path))  # noqa: PTH208


async def test_a_machine_with_no_descriptor_left_takes_no_file_for_absent(
    open_line: OpenLine, tmp_path: Path
) -> None:
    async with open_line() as line:
        await line.run("ulimit", "-n", 4)
        with pytest.raises(LostError):
            await find_file(line, str(tmp_path))
        with pytest.raises(LostError):
            await read_log(line, str(tmp_path), 0)
