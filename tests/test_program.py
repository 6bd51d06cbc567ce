"""Which program a process runs: the very file, not one of its name or that only mentions it."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.reapers import wait_until
from tests.support import PATIENCE_S, permitted
from trio_lifecycle._procfs import link, read_about
from trio_lifecycle.spawner._program import runs


@contextmanager
def running(*command: str | Path, exe: str) -> Iterator[int]:
    """A process that waits for its input; the block begins when it runs a program of this name."""
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        try:
            wait_until(lambda: (link(process.pid, "exe") or "").endswith(exe))
            # The kernel shows its arguments a moment later.
            wait_until(lambda: bool(read_about(process.pid, "cmdline")))
            yield process.pid
        finally:
            process.kill()
            process.wait(PATIENCE_S)


def script(path: Path) -> Path:
    """A script of the shell that waits."""
    path.write_text("#!/bin/sh\nread line\n")
    path.chmod(0o700)
    return path


def test_a_script_is_its_interpreters_first_argument_or_follows_an_option(tmp_path: Path) -> None:
    wanted, other = script(tmp_path / "wanted"), script(tmp_path / "other")
    with running(wanted, exe="sh") as pid:
        assert runs(pid, str(wanted))
    with running("/bin/sh", "-e", wanted, exe="sh") as pid:
        assert runs(pid, str(wanted))
    with running("/bin/sh", other, wanted, exe="sh") as pid:
        assert runs(pid, str(other))
        assert not runs(pid, str(wanted))


def test_a_file_that_was_exchanged_by_an_upgrade_is_still_the_program(tmp_path: Path) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/cat", program)
    with running(program, exe="program") as pid:
        program.unlink()
        shutil.copy("/bin/cat", program)
        assert runs(pid, str(program))


@pytest.mark.fault(13)
@pytest.mark.skipif(not permitted("unshare", "--mount", "true"), reason="nothing may be mounted")
def test_a_file_of_the_same_name_in_a_container_is_another_program(tmp_path: Path) -> None:
    program, theirs = tmp_path / "program", tmp_path / "theirs"
    shutil.copy("/bin/sleep", program)
    shutil.copy("/bin/cat", theirs)
    mounted = f"mount --bind {theirs} {program}; exec {program}"
    with running("unshare", "--mount", "/bin/sh", "-c", mounted, exe="program") as pid:
        assert str(program) == link(pid, "exe")
        assert not runs(pid, str(program))
