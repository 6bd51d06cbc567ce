"""A daemon of another machine that the guard there has spawned, and ends if this program can't."""

import signal
from contextlib import ExitStack
from typing import Final, Literal

import trio

from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh import _remote_processes
from trio_lifecycle._ssh._guard_ward import Ward
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_processes import Told, Tree
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.spawner._remote_process import RemoteProcess

_CUT: Final = "the connection to it was lost; the guard there ends the daemon"


class WardProcess(RemoteProcess):
    """A daemon below the guard, which tells its end.

    When the connection is lost, the guard ends the daemon by its own ladder; whether that is done
    is seen over a new connection. When the guard itself was killed, this program ends what it has
    left.

    Args:
        machine: Where it runs.
        name: The daemon's name, for messages.
        identity: Which process it is.
        ward: What the guard says of it.
        instance_id: Which instance of a daemon it is.
        output: What it writes.
        opened: What is closed with it: its output, and pipes.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        identity: Identity,
        ward: Ward,
        instance_id: str,
        output: FedOutput,
        opened: ExitStack,
    ) -> None:
        super().__init__(machine, name, identity, instance_id, output)
        self._ward = ward
        self._opened = opened

    @property
    def guarantee(self) -> Literal["guarded"]:
        """By the guard."""
        return "guarded"

    @property
    def lost(self) -> str | None:
        """Why the guard is lost, while its machine can still be seen."""
        ward = self._ward
        is_killed = ward.lost is not None and not ward.is_cut and not self.ended
        return ward.lost if is_killed else None

    @property
    def unseen(self) -> str | None:
        """Why it can't be told: the connection of the guard is lost."""
        if self._unseen is None and self._tree is None and self._ward.is_cut and not self.ended:
            self._unseen = f"{_CUT} ({self._ward.lost})"
        return self._unseen

    @property
    def seen_alive(self) -> int:
        """As the guard said last."""
        return self._ward.seen_alive if self._tree is None else self._tree.now

    @property
    def status(self) -> int | None:
        """The exit status; None also when the guard was lost before."""
        return self._ward.status

    @property
    def ended(self) -> bool:
        """As the guard has said, or was seen."""
        return self._ward.ended.is_set() or (
            self._tree is not None and not self._tree.has(self._told)
        )

    @property
    def gone(self) -> bool:
        """As the guard has said, or was seen."""
        return self._ward.gone.is_set() or (self._tree is not None and not self._tree.members)

    async def look(self) -> None:
        """Believe the guard while there is one."""
        if self._ward.lost is None:
            await trio.lowlevel.checkpoint()
        else:
            await super().look()

    def _take_in(self, tree: Tree) -> None:
        # While the guard is there it says more, and sooner.
        if self._ward.lost is not None:
            self._tree = tree

    async def _others(self, line: Line) -> list[Told]:
        """Give also who bears its mark: what forked away has no ancestry without the guard."""
        return [*await super()._others(line), *await self._marked(line)]

    async def open_gate(self) -> None:
        """Have the guard let it go on."""
        try:
            await self._ward.open_gate()
        except LostError as error:
            self._lose_sight(f"{_CUT} ({error})")
            raise self._unknown() from error

    async def wait(self) -> int | None:
        """Wait for the guard's word."""
        await self._ward.wait_ended()
        if not self.ended:
            if self.unseen is not None:
                raise self._unknown()
            await self._poll(lambda: self.ended, self.look)
        return self.status

    async def wait_over(self) -> None:
        """Wait for the guard's word, or for its end."""
        await self._ward.wait_ended()

    async def wait_gone(self) -> None:
        """Wait for the guard's word, or look what it has left."""
        await self._ward.wait_gone()
        await self._poll(lambda: self.gone, self.look)

    async def send_signal(self, signum: int) -> None:
        """Have the guard send it."""
        await self._send(signum, whole=False)

    async def signal_tree(self, signum: int) -> None:
        """Have the guard send it to all that the daemon has started."""
        await self._send(signum, whole=True)

    async def _send(self, signum: int, *, whole: bool) -> None:
        if self.gone or (self.ended and not whole):
            return
        try:
            await self._ward.signal(signum, tree=whole)
        except LostError:
            # The guard climbs the daemon's ladder already, if it lives; many programs take a second
            # SIGTERM for an order to drop all.
            if not whole:
                await self._signal_one(signum)
            elif signum == signal.SIGKILL or not self._ward.is_cut:
                await self._signal_tree(signum)
            else:
                await self._ask(self._hurry_guard)

    async def _hurry_guard(self, line: Line) -> None:
        """Tell the guard that its connection is lost, which it may not have noticed yet."""
        await _remote_processes.signal_one(line, self._ward.guard, signal.SIGUSR1)

    async def contains(self, pid: int) -> bool | None:
        """Ask the guard."""
        found = await self._ward.contains(pid)
        return await super().contains(pid) if found is None else found

    def find_stuck(self) -> tuple[int, str] | None:
        """Name one that is left."""
        return self._ward.stuck if self._ward.lost is None else super().find_stuck()

    def close(self) -> None:
        """Let go of the output, and of the guard's word."""
        self._ward.close()
        self._opened.close()
        super().close()
