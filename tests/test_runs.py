"""Which program a process runs: told by its executable, or by its script."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from tests.processes import stat_of
from tests.program_files import Write, write
from tests.support import PATIENCE_S, end, spawn
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle.spawner import _program
from trio_lifecycle.spawner._found_process import FoundProcess
from trio_lifecycle.spawner._program import runs
from trio_lifecycle.spawner._unseen_process import UnseenProcess

__all__ = ["write"]

# It has become what it is to be when it has said so.
SAYS = b"echo up; read line; exit\n"


@contextmanager
def running(command: Sequence[str], cwd: Path | None = None) -> Iterator[int]:
    """A program that runs, once it has written a line."""
    with subprocess.Popen(
        command, cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        try:
            assert b"up\n" == process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program of its own file: a shell by another name."""
    return Path(shutil.copy("/bin/sh", tmp_path / "program"))


def test_it_runs_its_executable_and_no_other(program: Path, write: Write) -> None:
    other = str(shutil.copy("/bin/sh", program.with_name("other")))
    with running([str(program), "-c", SAYS.decode()]) as pid:
        assert runs(pid, str(program)) is True
        assert runs(pid, other) is False
        assert runs(pid, str(write("script"))) is False
        assert runs(pid, "/nowhere/at/all") is False


def test_links_are_resolved(program: Path) -> None:
    link, hard_link = program.with_name("link"), program.with_name("hard-link")
    link.symlink_to(program.name)
    hard_link.hardlink_to(program)
    with running([str(link), "-c", SAYS.decode()]) as pid:
        assert runs(pid, str(link)) is True
        assert runs(pid, str(program)) is True
        assert runs(pid, str(hard_link)) is True


@pytest.mark.parametrize("replaced", [True, False])
def test_it_still_runs_a_program_that_was_upgraded_or_removed(
    program: Path, replaced: bool
) -> None:
    with running([str(program), "-c", SAYS.decode()]) as pid:
        program.unlink()
        if replaced:
            shutil.copy("/bin/true", program)
        assert runs(pid, str(program)) is True


@pytest.mark.parametrize("first", [b"#!/bin/sh\n", b"#!/bin/sh -e\n", b"#!/usr/bin/env sh\n"])
def test_it_runs_its_script(write: Write, first: bytes) -> None:
    script = write("script", first + SAYS)
    link = script.with_name("link")
    link.symlink_to(script)
    with running([str(link)]) as pid:
        assert runs(pid, str(script)) is True
        assert runs(pid, str(link)) is True
        assert runs(pid, str(write("other", first + SAYS))) is False
        assert runs(pid, "/bin/sh") is True


def test_a_script_that_was_called_by_a_relative_path_is_found_from_its_directory(
    write: Write,
) -> None:
    script = write("below/script", b"#!/bin/sh\n" + SAYS)
    with running(["./script"], cwd=script.parent) as pid:
        assert runs(pid, str(script)) is True


def test_a_program_that_is_only_an_argument_does_not_run(program: Path) -> None:
    with running(["/bin/sh", "-c", SAYS.decode(), str(program)]) as pid:
        assert runs(pid, str(program)) is False


def test_arguments_that_are_no_paths_are_no_trouble(write: Write) -> None:
    script = write("script")
    arguments = ["", "\udcff"]
    code = "print('up', flush=True); import sys; sys.stdin.read()"
    with running([sys.executable, "-c", code, *arguments]) as pid:
        assert runs(pid, str(script)) is False


def test_it_can_not_be_told_of_one_that_is_gone_or_may_not_be_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(pid, 0)
    assert runs(pid, "/bin/true") is None
    monkeypatch.setattr(_program, "link", lambda pid, name: None)
    assert runs(os.getpid(), sys.executable) is None


@pytest.mark.parametrize("guarantee", ["guarded", "scoped"])
async def test_a_process_says_so_until_it_has_ended(guarantee: Guarantee) -> None:
    async with trio.open_nursery() as nursery:
        process = await spawn(nursery, "/bin/sleep", "1000", guarantee=guarantee)
        found = FoundProcess(stat_of(process.pid), os.pidfd_open(process.pid))
        for each in (process, found):
            assert each.runs("/bin/sleep") is True
            assert each.runs("/bin/cat") is False
        await end(process)
        with trio.fail_after(PATIENCE_S):
            await found.wait()
        for each in (process, found):
            assert each.runs("/bin/sleep") is None


def test_it_can_not_be_told_of_one_that_is_not_to_be_seen() -> None:
    assert UnseenProcess().runs("/bin/sh") is None
