"""A shell of another machine compares copies of files, and digests them."""

# ruff: noqa: ASYNC110, ASYNC240 - files of tests are small, and directories have no events

import hashlib
import os
import shutil
import stat
from pathlib import Path

import pytest
import trio

from tests.shells import COMMANDS, OpenLine, each_shell, open_line, open_session
from tests.support import PATIENCE_S
from tests.uploads import local, only, there
from trio_lifecycle._ssh import _remote_copies
from trio_lifecycle._ssh._session import LostError

__all__ = ("local", "open_line", "there")


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
