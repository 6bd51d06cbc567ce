"""Shells in which the scripts for other machines must work, and a line to one of them."""

import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from tests.sessions import LocalSession
from trio_lifecycle._ssh._line import Line

# What is started in the place of "sh -s".
COMMANDS = {
    "sh": ("sh", "-s"),
    "dash": ("dash", "-s"),
    "bash": ("bash", "--posix", "-s"),
    "busybox": ("busybox", "sh", "-s"),
    "zsh": ("zsh", "--emulate", "sh", "-s"),
}
each_shell = pytest.mark.parametrize(
    "shell",
    [pytest.param(name, marks=pytest.mark.needs(name)) for name in COMMANDS if name != "sh"],
)

# Gives a line to a shell, which lasts as long as the block does; more are environment variables.
OpenLine = Callable[..., AbstractAsyncContextManager[Line]]


@pytest.fixture
def open_line(tmp_path: Path) -> OpenLine:
    """Open lines to shells of this machine; that of busybox finds no tools but its own."""

    @asynccontextmanager
    async def open_line(shell: str = "sh", **env: str) -> AsyncIterator[Line]:
        if shell == "busybox":
            env = {"PATH": _busybox_tools(tmp_path / "busybox"), **env}
        async with open_session(*COMMANDS[shell], **env) as session:
            yield await Line.open(session)

    return open_line


@asynccontextmanager
async def open_session(*command: str, **env: str) -> AsyncIterator[LocalSession]:
    """Start a program in the place of one on another machine; it is killed after the block."""
    async with trio.open_nursery() as nursery:
        program = shutil.which(command[0])
        assert program is not None
        words = (program, *command[1:])
        yield await LocalSession.start(nursery, words, env={**os.environ, **env})
        nursery.cancel_scope.cancel()


def _busybox_tools(directory: Path) -> str:
    if not directory.exists():
        directory.mkdir()
        subprocess.run(["busybox", "--install", "-s", directory], check=True)
    return str(directory)
