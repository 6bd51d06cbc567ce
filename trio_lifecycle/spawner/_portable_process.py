"""A child of this program on a system that is not Linux: POSIX calls only."""

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._output import FileOutput, PipedOutput
from trio_lifecycle.abc import Hearing, Process, SpawnRequest, Verdict
from trio_lifecycle.spawner._detour import Gate
from trio_lifecycle.spawner._refusals import refusal

# Nothing tells when the last process of a group ends; so it is looked for.
_LOOK_AGAIN_AFTER_S: Final = 0.02


def is_portable_only() -> bool:
    """Say whether this system lacks what the other spawners are built on."""
    return sys.platform != "linux"


class PortableProcess(Process):
    """A daemon and the process group that it leads.

    Its promise is weaker than on Linux. Who listens at its port can't be told. And its number
    belongs to it only as long as it is not reaped, which Python does as soon as it looks: between
    the end of the last process of a group and the next look at it, the number could be given to
    another group.
    """

    def __init__(
        self,
        process: trio.Process,
        output: FileOutput | PipedOutput,
        guarantee: Literal["scoped", "detached"],
    ) -> None:
        self._process = process
        self._output = output
        self._guarantee: Literal["scoped", "detached"] = guarantee
        self._gone = False
        self._gate: Gate | None = None

    @classmethod
    async def start(
        cls,
        request: SpawnRequest,
        program: str,
        argv: Sequence[str],
        env: Mapping[str, str],
        streams: tuple[int, int, int],
        output: FileOutput | PipedOutput,
    ) -> "PortableProcess":
        """Start it in a session of its own.

        Raises:
            SpawnError: The system refused, or a descriptor is to have another number there.
        """
        if any(number != fd for number, fd in request.descriptors.items()):
            problem = "a descriptor can't be given another number on a system that is not Linux"
            raise SpawnError(request.name, problem)
        try:
            process = await trio.lowlevel.open_process(
                [program, *argv],
                stdin=streams[0],
                stdout=streams[1],
                stderr=streams[2],
                env=dict(env),
                cwd=request.working_dir,
                start_new_session=True,
                pass_fds=tuple(request.descriptors),
            )
        except OSError as error:
            raise refusal(request, error.errno or 0) from error
        return cls(process, output, "detached" if request.detached else "scoped")

    def stand_at(self, gate: Gate) -> None:
        """Take over the gate at which it was spawned."""
        self._gate = gate

    async def open_gate(self) -> None:
        """Tell whoever stands in its place to become the program."""
        if self._gate is None:
            await trio.lowlevel.checkpoint()
        else:
            await self._gate.open(self, self._output)

    @property
    def log_file(self) -> Path | None:
        """The file of a detached daemon."""
        return self._output.path if isinstance(self._output, FileOutput) else None

    @property
    def guarantee(self) -> Literal["scoped", "detached"]:
        """As it was asked for."""
        return self._guarantee

    @property
    def pid(self) -> int:
        """The child's id."""
        return self._process.pid

    @property
    def status(self) -> int | None:
        """The exit status."""
        return self._process.returncode

    @property
    def ended(self) -> bool:
        """Look, and reap."""
        return self._process.returncode is not None

    async def wait(self) -> int | None:
        """Wait by Trio's own means."""
        return await self._process.wait()

    @property
    def gone(self) -> bool:
        """Look whether the group has members; once it had none, its number is not used again."""
        if not self._gone and self.ended:
            self._gone = not self._group_exists()
        return self._gone

    def _group_exists(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            # Of another user; or, on some systems, only zombies that nobody has reaped yet.
            return True
        return True

    async def wait_gone(self) -> None:
        """Look from time to time."""
        await self.wait()
        while not self.gone:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(_LOOK_AGAIN_AFTER_S)

    async def send_signal(self, signum: int) -> None:
        """Send it while it is not reaped."""
        await trio.lowlevel.checkpoint()
        if not self.ended:
            self._process.send_signal(signum)

    async def signal_tree(self, signum: int) -> None:
        """Send it to the group."""
        if not self.gone:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signum)

    def find_stuck(self) -> tuple[int, str] | None:
        """Name the main process: where it waits can't be told."""
        return None if self.gone else (self.pid, "")

    async def contains(self, pid: int) -> bool | None:
        """Look at the group; who is in another one may still be of the tree."""
        await trio.lowlevel.checkpoint()
        with suppress(OSError):
            return True if os.getpgid(pid) == self.pid else None
        return None

    async def listener_at(self, host: str, port: int) -> Verdict:
        """It can't be told."""
        await trio.lowlevel.checkpoint()
        return Verdict.UNKNOWN

    @property
    def heard_at(self) -> float | None:
        """When its output was last taken in."""
        return self._output.heard_at

    def output_tail(self) -> bytes:
        """Give the end of the output, complete once the child has ended."""
        if self.ended:
            self._output.take_rest()
        return self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Give lines from now on."""
        return self._output.lines(self)

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard from now on."""
        return self._output.hear_lines(self, hear)

    async def reap_at_end(self) -> None:
        """Leave no zombie when nobody asks after the child any more."""
        await self.wait()
        self.close()

    def close(self) -> None:
        """Take in the rest of the output and close; one that still stands at its gate ends."""
        self._output.take_rest()
        self._output.close()
        if self._gate is not None:
            self._gate.close()
