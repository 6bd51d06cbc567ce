"""Files to bring to another machine, and how tests bring them."""

# ruff: noqa: ASYNC110, ASYNC240 - files of tests are small, and directories have no events

import os
import shutil
from pathlib import Path

import pytest
import trio

from tests.sshd import Server
from tests.support import PATIENCE_S
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine, machine
from trio_lifecycle.spawner._uploads import Uploads


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """A file of this machine."""
    path = tmp_path / "here" / "file"
    path.parent.mkdir()
    path.write_bytes(b"what a daemon needs")
    return path


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """A directory of the other machine."""
    path = tmp_path / "there"
    path.mkdir()
    return path


async def bring(server: Server, *pairs: tuple[Path, object]) -> Machine:
    """Bring files as a spawner does."""
    to = machine(server.target())
    await Uploads({here: str(there) for here, there in pairs}).bring(to)
    return to


async def channels(server: Server) -> int:
    """How often the machine was asked."""
    return (await machine(server.target()).transport()).channels_opened


async def until_begun(directory: Path) -> None:
    """Wait until a copy has begun to arrive."""
    with trio.fail_after(PATIENCE_S):
        while not [*directory.iterdir()]:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.005)


async def until_gone(directory: Path) -> None:
    """Wait until there is nothing any more."""
    with trio.fail_after(PATIENCE_S):
        while [*directory.iterdir()]:  # noqa: ASYNC110 - it has no event
            await trio.sleep(0.005)


def touch(path: Path) -> None:
    """Let a file look like one that was changed."""
    changed = path.stat().st_mtime_ns + 1_000_000
    os.utime(path, ns=(changed, changed))


async def only(line: Line, directory: Path, *programs: str) -> None:
    """Let a shell find no other programs than these."""
    directory.mkdir()
    for program in programs:
        (directory / program).symlink_to(shutil.which(program) or "")
    # Perl's programs begin with env(1).
    (directory / "perl").symlink_to(shutil.which("perl") or "/nowhere")
    await line.run("eval", f"PATH={directory}")
