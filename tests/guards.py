"""Guards of this machine in the place of those of another, and daemons in their care."""

import os
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from tests.sessions import LocalSession
from tests.support import PATIENCE_S, QUICK_PYTHON, request
from trio_lifecycle import Output
from trio_lifecycle._output import FedOutput
from trio_lifecycle._ssh._guard_link import GuardLink
from trio_lifecycle._ssh._guard_ward import Ward

Forwards = Mapping[int, Callable[[bytes], None]]
_NONE: Forwards = {}

# What runs the guards of all tests; another one shows what that makes of them.
GUARD_PYTHON = os.environ.get("TRIO_LIFECYCLE_GUARD_PYTHON", sys.executable)

# For applications of `tests.reapers.house`: the limit, then the manners of daemons.
HOLD = """
from tests.guards import guarded, start_python
async def main():
    async with guarded(limit_s=float(sys.argv[1])) as link:
        for manner in sys.argv[2:]:
            code, ladder = DAEMONS[manner]
            heard = Heard()
            await start_python(link, code, to=heard, ladder=StopLadder(*ladder))
            await heard.line("ready")
        print("reaper", link.outer, link.inner)
        await link.wait_lost()
        print("lost:", link.lost)
trio.run(main)
"""


@asynccontextmanager
async def guarded(
    *,
    limit_s: float = PATIENCE_S,
    python: str = GUARD_PYTHON,
    command: Sequence[str] = ("sh", "-s"),
) -> AsyncIterator[GuardLink]:
    """Have a guard at work, and end it with all that it has left."""
    async with trio.open_nursery() as nursery:
        session = await LocalSession.start(nursery, command)
        link = await GuardLink.open(session, python, heartbeat_limit_s=limit_s)
        nursery.start_soon(link.serve)  # noqa: ASYNC113  # what it was asked before waits
        yield link
        link.retire()
        with trio.fail_after(PATIENCE_S):
            await link.wait_lost()
            await session.wait_end()


async def start(
    link: GuardLink,
    program: str,
    *args: str,
    to: Any = None,
    forwards: Forwards = _NONE,
    **more: Any,
) -> tuple[Ward, FedOutput]:
    """Have a program started; what it writes goes to `to`, and is in the output's tail."""
    output = FedOutput("daemon", Output(to=to))
    changes = {"instance_id": uuid.uuid4().hex, **more}
    return await link.spawn(request(program, *args, **changes), output, forwards), output


async def start_python(
    link: GuardLink, code: str, *args: str, to: Any = None, **more: Any
) -> tuple[Ward, FedOutput]:
    """Have a few lines of Python started."""
    return await start(link, sys.executable, *QUICK_PYTHON, code, *args, to=to, **more)


async def run(link: GuardLink, program: str, *args: str, **more: Any) -> tuple[int | None, bytes]:
    """Have a program started, and wait until it is gone; give its status and its output."""
    ward, output = await start(link, program, *args, **more)
    with trio.fail_after(PATIENCE_S):
        await ward.gone.wait()
    return ward.status, output.tail()


async def until(true: Callable[[], bool]) -> None:
    """Look until something is so that no process tells."""
    with trio.fail_after(PATIENCE_S):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.01)
