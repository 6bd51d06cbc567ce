"""Parts of the reaper and of its application's side, each by itself."""

import errno
import mmap
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from tests.support import PATIENCE_S, request
from trio_lifecycle import SpawnError
from trio_lifecycle.spawner import (
    _guarded,
    _kernel,
    _reaper,
    _reaper_program,
    _reapers,
    _streams,
    _table,
)
from trio_lifecycle.spawner._family import Daemon, Family, signal_child
from trio_lifecycle.spawner._reaper_program import ReaperStartError
from trio_lifecycle.spawner._refusals import refusal
from trio_lifecycle.spawner._spawned_process import is_readable_soon
from trio_lifecycle.spawner._ward import ReaperGoneError, SpawnRefusedError


@pytest.fixture
def child() -> "Iterator[subprocess.Popen[bytes]]":
    """A child of this program, ended when the test is over."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


# --- what is asked of the kernel ------------------------------------------------------------------


def test_children_are_the_same_with_and_without_the_kernels_own_list(
    child: "subprocess.Popen[bytes]",
) -> None:
    assert child.pid in _kernel.children(os.getpid())
    assert child.pid in _kernel.children_by_scan(os.getpid())
    assert [] == _kernel.children_by_scan(child.pid) == _kernel.children(child.pid)


def test_what_is_not_there_reads_as_nothing(tmp_path: Path) -> None:
    assert b"" == _kernel.read(str(tmp_path / "none"))
    assert b"" == _kernel.read(str(tmp_path))
    assert _kernel.look(2**22) is None
    assert [] == _kernel.children(2**22)
    _kernel.write(str(tmp_path / "none"), b"1")
    assert not (tmp_path / "none").exists()
    _kernel.write("/proc/self/environ", b"1")  # it may not be written to


def test_a_large_file_is_read_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 200_000)
    assert b"x" * 200_000 == _kernel.read(str(tmp_path / "large"))


def test_members_of_a_control_group_are_those_below_it_too(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("3\n4\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "cgroup.procs").write_text("5\n")
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    assert [3, 4, 5] == _kernel.members(str(tmp_path))
    assert [] == _kernel.members(None) == _kernel.members(str(tmp_path / "none"))
    assert _kernel.is_populated(str(tmp_path))
    assert not _kernel.is_populated(None)
    assert not _kernel.is_populated(str(tmp_path / "none"))


def test_an_empty_control_group_is_removed_with_those_below_and_a_full_one_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / "empty" / "below" / "lowest").mkdir(parents=True)
    _kernel.remove(str(tmp_path / "empty"))
    assert not (tmp_path / "empty").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    _kernel.remove(str(tmp_path / "full"))
    assert (tmp_path / "full").exists()


def test_a_wait_is_over_when_a_child_has_ended_and_the_news_is_taken() -> None:
    read_end, write_end = os.pipe()
    try:
        poll = select.poll()
        poll.register(read_end, select.POLLIN)
        _kernel.wait_for(poll, read_end, -1.0)
        os.write(write_end, b"x")
        _kernel.wait_for(poll, read_end, 3e9)
        assert [] == poll.poll(0)
        assert not is_readable_soon(read_end, 0.001)
        os.write(write_end, b"x")
        assert is_readable_soon(read_end, PATIENCE_S)
    finally:
        os.close(read_end)
        os.close(write_end)


# --- the table of daemons, and ghosts in it -------------------------------------------------------


def rows(count: int) -> dict[int, Daemon]:
    """Daemons that are in a table."""
    rungs = ((int(signal.SIGTERM), 10.0),)
    return {pid: Daemon(pid, 7, rungs, b"x" * 32, None) for pid in range(1, count + 1)}


def test_the_table_is_whole_after_each_of_many_changes() -> None:
    with mmap.mmap(-1, _table.TABLE_BYTES) as table:
        assert {} == _table.read_table(table)
        inner = _reaper.Inner.__new__(_reaper.Inner)
        inner.table = table
        for count in (1, 300, 2, 0, 5, 1000, 999, 3):
            inner.daemons = rows(count)
            inner.publish()
            read = _table.read_table(table)
            assert set(range(1, count + 1)) == set(read)
            assert all(((15, 10.0),) == daemon.rungs for daemon in read.values())


@pytest.mark.fault(44)
def test_a_daemon_of_the_table_that_is_no_child_is_dropped_and_not_signalled(
    child: "subprocess.Popen[bytes]",
) -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    daemons = {pid: Daemon(pid, 0, (), b"", None) for pid in (child.pid, ended.pid)}
    family = Family(daemons)
    family.drop_ghosts()
    assert {child.pid} == set(family.daemons)


def test_a_signal_to_a_child_that_is_gone_is_nothing() -> None:
    with subprocess.Popen(["true"]) as ended:
        ended.wait()
    signal_child(ended.pid, signal.SIGKILL)


# --- what the application makes of refusals -------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "problem", "retryable"),
    [
        (SpawnRefusedError("watch", errno.EMFILE), "its end could not be watched for", True),
        (SpawnRefusedError("directory", errno.EACCES), "this program's own directory", False),
        (SpawnRefusedError("program", errno.ENOENT), "/bin/true: No such file", False),
        (ReaperGoneError("it was killed"), "the reaper was lost meanwhile: it was killed", True),
        (OSError(errno.ENOMEM, "none"), "the reaper can't be asked", True),
    ],
)
async def test_every_refusal_is_an_error_that_says_what_was_refused(
    monkeypatch: pytest.MonkeyPatch, error: Exception, problem: str, retryable: bool
) -> None:
    class Refuses:
        async def spawn(self, *_: object) -> tuple[int, int]:
            await trio.lowlevel.checkpoint()
            raise error

    async def reaper() -> Refuses:
        await trio.lowlevel.checkpoint()
        return Refuses()

    monkeypatch.setattr(_guarded, "reaper", reaper)
    with pytest.raises(SpawnError) as caught, _streams.open_streams(request("/bin/true")) as opened:
        await _guarded.spawn_guarded(request("/bin/true"), "", *opened, contained=False)
    assert problem in caught.value.problem
    assert retryable == caught.value.retryable


async def test_a_reaper_that_the_system_does_not_start_is_a_spawn_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def reaper() -> None:
        await trio.lowlevel.checkpoint()
        raise OSError(errno.EAGAIN, "no process is left")

    monkeypatch.setattr(_guarded, "reaper", reaper)
    with pytest.raises(SpawnError, match="its reaper could not be started") as caught:
        await _guarded._find_reaper(request("/bin/true"), "guarded")
    assert caught.value.retryable


def test_a_kernel_without_pidfds_can_have_no_reaper(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, "not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    with pytest.raises(ReaperStartError, match=r"Linux before 5\.3"):
        _reaper_program.start_program()


def test_a_directory_that_is_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory, words in ((tmp_path / "none", "does not exist"), (tmp_path / "file", "is no")):
        wanted = request("/bin/true", working_dir=directory)
        assert words in refusal(wanted, errno.ENOENT).problem
    assert "larger than the system takes" in refusal(request("/bin/true"), errno.E2BIG).problem


# --- the household --------------------------------------------------------------------------------


async def test_what_was_left_of_killed_programs_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Left:
        class stat:  # noqa: N801 - an attribute of what stands in for a stray
            pid = 4711

    monkeypatch.setattr(_reapers, "find_strays", lambda: [Left])
    monkeypatch.setattr(_reapers, "_LOOK_AFTER_S", 0.0)
    _reapers._has_looked.clear()
    await _reapers._look_for_strays()
    await _reapers._look_for_strays()
    assert 1 == caplog.text.count("processes are left of daemons whose program is gone: 4711")
