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
        beside = await _remote_copies.begin_copy(line, str(there / "-n" / "b c" / "f"))
        assert str(there / "-n" / "b c") == os.path.dirname(beside)  # noqa: PTH120 - a text there
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
async def test_every_shell_removes_what_it_has_begun_when_it_ends_and_no_sooner(
    shell: str, open_line: OpenLine, there: Path
) -> None:
    first, last = there / "it's a\n*", there / "-n"
    async with open_line(shell) as line:
        done = Path(await _remote_copies.begin_copy(line, str(first)))
        done.touch()
        done.rename(first)
        beside = Path(await _remote_copies.begin_copy(line, str(last)))
        beside.touch()
        # It starts shells of its own.
        await line.run("tl_facts")
        assert {first, beside} == {*there.iterdir()}
        line.close()
        with trio.fail_after(PATIENCE_S):
            await line._session.wait_end()
    assert [first] == [*there.iterdir()]


@each_shell
async def test_every_shell_removes_only_what_nobody_completes_any_more(
    shell: str, open_line: OpenLine, there: Path
) -> None:
    path = str(there / "f")
    async with open_line(shell) as line, open_line(shell) as other:
        living = Path(await _remote_copies.begin_copy(other, path))
        word, machine, pid, started, _ = living.name.removeprefix(".f.").split(".")
        dead = living.with_name(f".f.{word}.{machine}.{pid}.{started}0.tmp")
        old = living.with_name(f".f.{word}.elsewhere.{pid}.{started}.tmp")
        new = living.with_name(f".f.{word}.somewhere.{pid}.{started}.tmp")
        strange = living.with_name(f".f.{word}.tmp")
        for each in (living, dead, old, new, strange):
            each.touch()
        os.utime(old, (0, 0))
        os.utime(strange, (0, 0))
        await _remote_copies.begin_copy(line, path)
        assert {living, new, strange} == {*there.iterdir()}


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
