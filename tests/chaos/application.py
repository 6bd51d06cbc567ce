"""A real application: python -m tests.chaos.application SEED FAULTS KINDS GUARANTEE.

It owns what the plan says, and tells one JSON object a line: {"at": "starting"}, {"at": "up",
"pids": [...]}, and {"at": "end", "errors": [...]} if its own code sees its end. A line on its
standard input is an order: exception, cancellation, exit, or death of a daemon.
"""

import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import trio

from tests.chaos.daemons import command
from tests.chaos.plan import Choice, Daemon, Guarantee, Plan, draw
from trio_lifecycle import (
    FREE_PORT,
    DaemonHandle,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    LocalSpawner,
    Manual,
    Output,
    StopLadder,
)

# Bounds a wait that should be over in well under a second, on a machine with ten times the load.
PATIENCE_S: Final = 30.0


class ChaosError(Exception):
    """What strikes from inside."""


def say(at: str, **facts: object) -> None:
    """Tell one thing."""
    os.write(1, (json.dumps({"at": at} | facts) + "\n").encode())


class Application:
    """The daemons of a plan, and what becomes of them."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._handles: list[DaemonHandle] = []
        self._scope = trio.CancelScope()
        self._struck = trio.Event()
        self._up = False

    async def run(self) -> None:
        """Own the daemons until something strikes."""
        say("starting")
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._obey)
                async with self._owned():
                    self._up = True
                    say("up", pids=[handle.pid for handle in self._handles])
                    await self._struck.wait()
                    raise ChaosError

    @asynccontextmanager
    async def _owned(self) -> AsyncIterator[None]:
        """Have all daemons up: some by a block each, the others by a nursery within."""
        waits: list[trio.Event] = []
        async with AsyncExitStack() as blocks:
            for daemon in self._plan.daemons:
                if daemon.nested:
                    lifecycle = self._lifecycle(daemon, waits)
                    self._handles.append(await blocks.enter_async_context(lifecycle.running()))
            nursery = await blocks.enter_async_context(trio.open_nursery())
            within = [daemon for daemon in self._plan.daemons if not daemon.nested]
            await self._start(nursery, [self._lifecycle(daemon, waits) for daemon in within])
            with trio.fail_after(PATIENCE_S):
                for wait in waits:
                    await wait.wait()
            yield

    async def _start(self, nursery: trio.Nursery, lifecycles: Sequence[DaemonLifecycle]) -> None:
        async def start(lifecycle: DaemonLifecycle) -> None:
            self._handles.append(await nursery.start(lifecycle.run))

        async with trio.open_nursery() as starts:
            for lifecycle in lifecycles:
                if self._plan.together:
                    starts.start_soon(start, lifecycle)
                else:
                    await start(lifecycle)

    async def _obey(self) -> None:
        """Do what the campaign orders."""
        await trio.lowlevel.wait_readable(0)
        match os.read(0, 100).decode().strip():
            case "exit":
                os._exit(7)
            case "cancellation" | "":  # or whoever gives orders is gone
                self._scope.cancel()
            case "exception" if self._up:
                self._struck.set()
            case "exception":
                raise ChaosError
            case "death":
                victim = random.Random(self._plan.seed).choice(self._handles)
                assert victim.pid is not None
                os.kill(victim.pid, signal.SIGKILL)

    def _lifecycle(self, daemon: Daemon, waits: list[trio.Event]) -> DaemonLifecycle:
        """Describe a daemon; an event is added for the moment when it says that it is up."""
        up = trio.Event()
        waits.append(up)

        def hear(line: str) -> None:
            if line == "up":
                up.set()

        serves = daemon.kind == "server"
        config = LifecycleConfig(
            *command(daemon.kind)[:1],
            args=[*command(daemon.kind)[1:], *([FREE_PORT] if serves else [])],
            name=daemon.kind,
            ready_mode=HealthCheck(f"http://127.0.0.1:{FREE_PORT}/") if serves else Manual(),
            stop_ladder=StopLadder(*daemon.rungs),
            output=Output(to=hear),
        )
        spawner = LocalSpawner(guarantee=self._plan.choice.guarantee)
        return DaemonLifecycle(config, spawner=spawner)


def names_of(error: BaseException) -> list[str]:
    """Give the names of all exceptions in a group, or of the one that it is."""
    if isinstance(error, BaseExceptionGroup):
        return sorted({name for inner in error.exceptions for name in names_of(inner)})
    return [type(error).__name__]


def main(seed: str, faults: str, kinds: str, guarantee: Guarantee) -> int:
    """Run; 1 when it ended with an error, 0 after a cancellation."""
    plan = draw(int(seed), Choice(tuple(faults.split()), tuple(kinds.split()), guarantee))
    try:
        trio.run(Application(plan).run)
    except BaseException as error:  # its end is what it is asked for
        say("end", errors=names_of(error))
        raise
    say("end", errors=[])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))  # type: ignore[arg-type]
