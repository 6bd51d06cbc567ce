"""Programs of their own that have daemons on another machine: python -m tests.ssh_programs WHAT.

The machine is the JSON that TARGET in the environment holds: what SSHSpawner is called with.
"""

import json
import os
import signal
import sys
import time
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

import trio

from tests.cutting import family, staying
from trio_lifecycle import DaemonLifecycle, SQLiteRegistry, SSHSpawner

AT_ONCE: Final = 4


def spawner(**changes: Any) -> SSHSpawner:
    """The machine's."""
    return SSHSpawner(**{**json.loads(os.environ["TARGET"]), **changes})


async def own() -> None:
    """Own two daemons, one by the guard and one by a launcher, until the end."""
    async with AsyncExitStack() as blocks:
        for guarantee in ("guarded", "scoped"):
            lifecycle = DaemonLifecycle(family(guarantee), spawner=spawner(guarantee=guarantee))
            await blocks.enter_async_context(lifecycle.running())
        print("up", flush=True)
        await trio.sleep_forever()


async def ensure(directory: str, name: str) -> None:
    """Have one run that stays, say who it is, and wait."""
    registry = SQLiteRegistry(Path(directory) / name / "registry.sqlite")
    lifecycle = DaemonLifecycle(staying(name), spawner=spawner(), registry=registry)
    daemon = await lifecycle.ensure_running()
    print(daemon.origin, daemon.pid, flush=True)
    await trio.sleep_forever()


def kill_some(directory: str, number: str, seconds: str) -> None:
    """Have as many programs ensure one each, and kill each at a random instant."""
    random = Random(number)
    for first in range(0, int(number), AT_ONCE):
        ends = sorted(
            (random.uniform(0, float(seconds)), _fork(directory, f"killed-{first + n}"))
            for n in range(AT_ONCE)
        )
        began = time.monotonic()
        for end, pid in ends:
            time.sleep(max(0.0, began + end - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _fork(directory: str, name: str) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            trio.run(ensure, directory, name)
        finally:
            os._exit(1)
    return pid


def main(what: str, *words: str) -> None:
    """Do it."""
    match what:
        case "own":
            trio.run(own)
        case "ensure":
            directory, name = words
            trio.run(ensure, directory, name)
        case "kill":
            # What they need is imported once.
            import asyncssh  # noqa: F401
            import trio_asyncio  # noqa: F401

            kill_some(*words)


if __name__ == "__main__":
    main(*sys.argv[1:])
