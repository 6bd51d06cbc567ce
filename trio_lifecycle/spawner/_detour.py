"""Waiting until a daemon's detour over the step is over."""

import signal

import trio

from trio_lifecycle._ladder import KILL_PATIENCE_S
from trio_lifecycle.abc import Process, SpawnRequest
from trio_lifecycle.spawner._stepping import StepError, Stepping, explain

# As long as it usually takes, a hundred times over; a program on a dead disk may take for ever.
_PATIENCE_S = 1.0


async def take_the_step(stepping: Stepping, process: Process, request: SpawnRequest) -> None:
    """Wait until the step has become the daemon; if it does not, end it.

    Raises:
        SpawnError: It was refused something.
    """
    stepping.let_go()
    try:
        with trio.CancelScope(shield=True), trio.move_on_after(_PATIENCE_S):
            await stepping.done()
            return
        await stepping.done()
    except StepError as error:
        await _end(process)  # noqa: ASYNC120  # it shields itself
        raise explain(error, request) from error
    except BaseException:
        await _end(process)  # noqa: ASYNC102  # it shields itself, and is bounded
        raise


async def _end(process: Process) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(KILL_PATIENCE_S):
        await process.signal_tree(signal.SIGKILL)
        await process.wait_gone()
    process.close()
