"""Running a command to its end: as a daemon is, and with nothing left of it."""

import os
import signal
from typing import Final

import trio

from trio_lifecycle._destination import Output
from trio_lifecycle._errors import LifecycleError, SpawnError
from trio_lifecycle._ladder import KILL_PATIENCE_S, StopLadder
from trio_lifecycle._requests import INSTANCE_VARIABLE, NOT_INHERITED
from trio_lifecycle.abc import Command, Process, Ran, Spawner, SpawnRequest

# Enough for the last lines of a command that says what is wrong.
TAIL_BYTES: Final = 4096


async def run_command(spawner: Spawner, command: Command) -> Ran:
    """Run it as the spawner runs daemons; see ``Prober.run``."""
    request = _request(command, os.urandom(16).hex())
    ran = Ran(None)
    failure: LifecycleError | None = None
    async with trio.open_nursery() as nursery:
        try:
            process = await spawner.spawn(request, nursery)
        except LifecycleError as error:
            # Kept, so that the nursery puts no group around it.
            failure = error
        else:
            ran = await _finish(process)
        nursery.cancel_scope.cancel()
    if isinstance(failure, SpawnError) and failure.retryable:
        return Ran(None, problem=f"could not be run this time ({failure.problem})")
    if failure is not None:
        raise failure
    return ran


def _request(command: Command, instance_id: str) -> SpawnRequest:
    not_inherited: dict[str, str | None] = dict.fromkeys(NOT_INHERITED)
    return SpawnRequest(
        name=command.name,
        # Its own: what it leaves is not to be taken for a part of the daemon.
        instance_id=instance_id,
        program=command.program,
        args=command.args,
        env=not_inherited | {**command.env, INSTANCE_VARIABLE: instance_id},
        working_dir=command.working_dir,
        output=Output(tail_bytes=TAIL_BYTES),
        detached=False,
        user=command.user,
        group=command.group,
        ladder=StopLadder(),
    )


async def _finish(process: Process) -> Ran:
    try:
        await process.wait_over()
        if process.lost is not None:
            return Ran(None, problem=f"could not be run to its end ({process.lost})")
        return Ran(process.status, process.output_tail())
    finally:
        # Shielded: whoever cancels this has no handle of it. Bounded: what SIGKILL does not end
        # waits for a dead disk, and the reaper goes on to watch it.
        with trio.move_on_after(KILL_PATIENCE_S, shield=True):
            await process.signal_tree(signal.SIGKILL)
            await process.wait_gone()
        process.close()
