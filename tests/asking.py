"""Modes that ask, with real servers and daemons."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from tests.support import Heard, end, spawn_python
from trio_lifecycle import LocalSpawner, Output
from trio_lifecycle.abc import ArmedReady, Process, ReadyMode, Start
from trio_lifecycle.spawner._unseen_process import UnseenProcess

WAITS = "import time; time.sleep(1000)"

# A process that nothing can be known of, so that every answer counts as its own.
ANYBODY = UnseenProcess()


def start(**changes: Any) -> Start:
    """What a mode may know before a spawn on this machine."""
    usual: dict[str, Any] = {"name": "daemon", "instance_id": "instance", "port": None}
    usual["prober"] = LocalSpawner().open_prober()
    return Start(**(usual | changes))


async def arm(mode: ReadyMode, **changes: Any) -> ArmedReady:
    """Get a mode ready to ask on this machine."""
    return await mode.arm(start(**changes))


@asynccontextmanager
async def spawned(code: str, *args: object, **changes: Any) -> AsyncIterator[tuple[Process, Heard]]:
    """A daemon of ours, and what it says; killed at the end of the block."""
    heard = Heard()
    async with trio.open_nursery() as nursery:
        output = Output(to=heard)
        process = await spawn_python(nursery, code, *map(str, args), output=output, **changes)
        try:
            yield process, heard
        finally:
            with trio.CancelScope(shield=True):
                await end(process)


@asynccontextmanager
async def listening_at(path: Path) -> AsyncIterator[None]:
    """This program listens at a path, and takes no connection."""
    with trio.socket.socket(trio.socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        listener.listen()
        yield
