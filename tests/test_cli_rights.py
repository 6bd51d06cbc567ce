"""The command line of an ordinary user, to whom the system refuses something."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import cli
from tests.cli import Run, call, ensured
from tests.stepping import DAEMON, only_root
from tests.support import UNMEASURED

pytestmark = [pytest.mark.usefixtures("all_stopped"), only_root]

all_stopped = cli.all_stopped

# All is loaded before the rights to read it are given up.
AS_ORDINARY_USER = f"""
import os, sys
from trio_lifecycle.__main__ import main
from trio_lifecycle._cli import _app
os.setgroups([])
os.setgid({DAEMON.pw_gid})
os.setuid({DAEMON.pw_uid})
sys.exit(main())
"""


def as_ordinary_user(*words: str) -> Run:
    command = (sys.executable, "-c", AS_ORDINARY_USER)
    return call(*words, command=command, env={**os.environ, **UNMEASURED})


@contextmanager
def given_away(directory: Path, mode: int) -> Iterator[None]:
    """Let the state be an ordinary user's, and one directory of it have another mode."""
    before, above = directory.stat().st_mode, state_home().parent
    give_state_to(DAEMON.pw_uid, DAEMON.pw_gid)
    above.chmod(0o711)
    directory.chmod(mode)
    try:
        yield
    finally:
        directory.chmod(before)
        above.chmod(0o700)
        give_state_to(os.getuid(), os.getgid())


def state_home() -> Path:
    return Path(os.environ["XDG_STATE_HOME"])


def give_state_to(uid: int, gid: int) -> None:
    for file in (state_home(), *state_home().rglob("*")):
        os.chown(file, uid, gid)


@pytest.mark.fault(66)
@pytest.mark.parametrize(
    "words",
    [("status",), ("status", "sleep"), ("stop", "sleep"), ("stop", "--all"), ("wait", "sleep")],
    ids=" ".join,
)
def test_a_directory_that_can_not_be_looked_into_is_not_taken_for_an_empty_one(
    words: tuple[str, ...],
) -> None:
    ensured("--", "sleep", "600")
    with given_away(state_home(), 0o000):
        done = as_ordinary_user(*words)
    assert (125, "") == (done.process.returncode, done.out)
    assert "can't be used: " in done.err
    assert "Permission denied" in done.err


@pytest.mark.fault(66)
@pytest.mark.parametrize("command", ["stop", "wait"])
def test_one_that_is_gone_is_so_also_where_nothing_can_be_written(command: str) -> None:
    pid = ensured("--", "sleep", "600")["pid"]
    os.kill(pid, signal.SIGKILL)
    with given_away(state_home() / "trio-lifecycle", 0o500):
        done = as_ordinary_user(command, "sleep")
    said = f"sleep: is not running: process {pid} is gone\n"
    assert (0, said) == (done.process.returncode, done.err)
    assert "gone" in call("status").out


@pytest.mark.fault(66)
def test_a_record_that_can_not_be_written_is_told_once_and_the_daemon_is_stopped() -> None:
    ensured("--user", DAEMON.pw_name, "--", "sleep", "600")
    with given_away(state_home() / "trio-lifecycle", 0o500):
        done = as_ordinary_user("stop", "sleep")
    assert 0 == done.process.returncode, done.err
    assert 1 == done.err.count("trio-lifecycle: the record of sleep: the registry ")
    assert "sleep: stopped after " in done.err
