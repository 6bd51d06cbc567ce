"""Daemons that nobody needs for a while live on.

With PR_SET_PDEATHSIG they would die with the thread that forked them, and Trio's worker threads end
after 10 idle seconds.
"""

import os
import signal
from contextlib import AsyncExitStack
from typing import Final

import trio

from tests.chaos.daemons import STEADY_KINDS, command
from tests.chaos.survey import Seen, descendants, look
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, Manual, Output, StopLadder

# Until all are up, which takes a fraction of a second.
_PATIENCE_S: Final = 30.0


def idle(seconds: float) -> bool:
    """Have daemons, do nothing; True when each of their processes is still the same."""
    lost, count = trio.run(_idle, seconds)
    words = "\n".join(map(str, lost)) if lost else f"  all {count} processes are still there"
    print(f"idle for {seconds:g} s\n{words}")
    return not lost


async def _idle(seconds: float) -> tuple[list[Seen], int]:
    async with AsyncExitStack() as blocks:
        ups = [trio.Event() for _ in STEADY_KINDS]
        daemons = [
            await blocks.enter_async_context(_lifecycle(kind, up).running())
            for kind, up in zip(STEADY_KINDS, ups, strict=True)
        ]
        with trio.fail_after(_PATIENCE_S):
            for up in ups:
                await up.wait()
        before = descendants(os.getpid())
        assert {daemon.pid for daemon in daemons} <= {seen.pid for seen in before}
        await trio.sleep(seconds)
        return [seen for seen in before if _is_gone(seen)], len(before)


def _lifecycle(kind: str, up: trio.Event) -> DaemonLifecycle:
    program, *args = command(kind)
    output = Output(to=lambda line: up.set())
    config = LifecycleConfig(
        program,
        args=args,
        name=kind,
        ready_mode=Manual(),
        output=output,
        stop_ladder=StopLadder((signal.SIGTERM, 0.2)),
    )
    return DaemonLifecycle(config)


def _is_gone(seen: Seen) -> bool:
    now = look(seen.pid)
    return now is None or now.dead or now.started != seen.started
