"""``trio-lifecycle ensure``: a daemon that is up, of which nobody could be told."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests import cli
from tests.cli import Run, call, is_alive

pytestmark = pytest.mark.usefixtures("all_stopped")

all_stopped = cli.all_stopped

SLEEP = ("sleep", "600")


@pytest.fixture
def full_pipe() -> Iterator[int]:
    """The end to write to of a pipe that takes no more, and that nobody reads."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 65_536)
    os.set_blocking(write_end, True)
    yield write_end
    os.close(read_end)
    os.close(write_end)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_after_it_is_up_leaves_it_and_says_so(name: str, full_pipe: int) -> None:
    with Run("ensure", "-v", "--name", "s", "--", *SLEEP, stdout=full_pipe) as running:
        pid = int(running.line(r"ready, process (\d+)")[1])
        running.signal(signal.Signals[name])
        running.line("leaving; it runs on")
        # Nobody reads the line, so that it still waits a moment.
        running.signal(signal.SIGINT)
        assert 1 == running.end()
    assert is_alive(pid)
    assert "killing" not in running.err
    assert f"s runs as process {pid}; stop it with: trio-lifecycle stop s\n" in running.err


def test_a_signal_after_it_was_said_where_it_is_changes_nothing() -> None:
    with Run("ensure", "--", *SLEEP) as running:
        pid = int(running.line(r"process (\d+), spawned", "stdout")[1])
        running.signal(signal.SIGINT)
        assert 0 == running.end()
    assert is_alive(pid)


def test_a_line_that_nobody_reads_any_more_leaves_it_and_says_so(tmp_path: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    place = ("--registry", str(tmp_path / "r"))
    done = call("ensure", *place, "--", *SLEEP, stdout=write_end)
    os.close(write_end)
    (facts,) = call("status", *place, "--json").events()
    call("stop", *place, "sleep")
    assert (1, "running") == (done.process.returncode, facts["state"])
    said = f"nobody reads it any more; sleep runs as process {facts['pid']}; stop it with: "
    assert f"{said}trio-lifecycle stop --registry {tmp_path}/r sleep\n" in done.err


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_line_that_a_full_disk_does_not_take_leaves_it_and_says_so(words: tuple[str]) -> None:
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = call("ensure", *words, "--", *SLEEP, stdout=full)
    (facts,) = call("status", "--json").events()
    assert (1, "running") == (done.process.returncode, facts["state"])
    assert f"No space left on device; sleep runs as process {facts['pid']}; " in done.err
