"""The detour of a daemon over another program, which becomes the daemon; and waiting for that."""

import signal
from typing import Literal

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._ladder import KILL_PATIENCE_S
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle.abc import Process, SpawnRequest
from trio_lifecycle.spawner._child_environment import environment
from trio_lifecycle.spawner._refusals import refusal
from trio_lifecycle.spawner._shell_gate import ShellGate
from trio_lifecycle.spawner._stepping import StepError, Stepping, explain

Detour = Stepping | ShellGate

# As long as it usually takes, a hundred times over; a program on a dead disk may take for ever.
_PATIENCE_S = 1.0


def find_detour(
    request: SpawnRequest, owner: str | None, cgroup_procs: str | None = None
) -> Detour | None:
    """Prepare what a request needs; None when it needs no detour.

    Args:
        request: What is to be spawned.
        owner: The mark of this program; None for a daemon without an owner.
        cgroup_procs: The file ``cgroup.procs`` of a control group that the daemon is to be in.

    Raises:
        SpawnError: It can't be prepared.
    """
    stepping = Stepping.for_request(request, cgroup_procs)
    needs_more = request.gated or request.pid_variable is not None
    if stepping is not None or not needs_more:
        return stepping
    variables = environment(request, {}, owner)
    if not ShellGate.serves(request, variables):
        return Stepping.as_gate(request)
    try:
        return ShellGate(request, variables)
    except OSError as error:
        raise refusal(request, error.errno or 0, "its gate can't be made") from error


class Gate:
    """Where a process waits before anything of its program runs, and how it is let go on."""

    def __init__(self, detour: Detour, request: SpawnRequest) -> None:
        self._detour = detour
        self._request = request
        self._state: Literal["shut", "opening", "past"] = "shut"

    async def open(self, process: Process, output: FileOutput | PipedOutput) -> None:
        """Let it go on; returns when it is the program. Again is fine.

        Raises:
            SpawnError: It can't be the program; it has ended, or is about to.
        """
        if self._state != "shut":
            await trio.lowlevel.checkpoint()
            return
        self._state = "opening"
        try:
            if isinstance(self._detour, ShellGate):
                await self._detour.open(output)
            else:
                self._detour.order()
                await take_detour(self._detour, process, self._request, output)
        except trio.ClosedResourceError:
            raise SpawnError(self._request.name, "its process was given up at its gate") from None
        finally:
            self._state = "past"
            self._detour.close()

    def close(self) -> None:
        """Let go of it; a process that still waits there ends."""
        # Being opened, it is closed by that: the process may have ended as the program already.
        if self._state == "shut":
            self._detour.close()


async def take_detour(
    detour: Detour, process: Process, request: SpawnRequest, output: FileOutput | PipedOutput
) -> None:
    """Wait until what was let go has become the daemon; if it does not, end it.

    Raises:
        SpawnError: It was refused something.
    """
    detour.let_go()
    try:
        with trio.CancelScope(shield=True), trio.move_on_after(_PATIENCE_S):
            await _end_of(detour, output)
            return
        await _end_of(detour, output)
    except StepError as error:
        await _end(process)  # noqa: ASYNC120  # it shields itself
        raise explain(error, request) from error
    except BaseException:
        await _end(process)  # noqa: ASYNC102  # it shields itself, and is bounded
        raise


async def _end_of(detour: Detour, output: FileOutput | PipedOutput) -> None:
    await (detour.opened(output) if isinstance(detour, ShellGate) else detour.done())


async def _end(process: Process) -> None:
    with trio.CancelScope(shield=True), trio.move_on_after(KILL_PATIENCE_S):
        await process.signal_tree(signal.SIGKILL)
        await process.wait_gone()
    process.close()
