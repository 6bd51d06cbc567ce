"""What all processes of other machines have in common."""

import errno
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final, TypeVar

import trio

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._output import FedOutput
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh import _remote_processes
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_processes import Program, Told, Tree
from trio_lifecycle._ssh._remote_sockets import Listening, listening_at
from trio_lifecycle._ssh_errors import SSHConnectError
from trio_lifecycle.abc import Hearing, Process, Verdict

T = TypeVar("T")

# Between two looks at a process whose end nobody tells: at first, and at most.
FIRST_INTERVAL_S: Final = 0.1
LONGEST_INTERVAL_S: Final = 1.0


class RemoteProcess(Process):
    """A process of another machine, told by its number, start time and boot.

    Args:
        machine: Where it runs.
        name: The daemon's name, for messages.
        identity: Which process it is.
        instance_id: Which instance of a daemon it is; empty where that is not known.
        output: What it writes, as far as that comes here.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        identity: Identity,
        instance_id: str,
        output: FedOutput,
    ) -> None:
        self._machine = machine
        self._name = name
        self._identity = identity
        self._instance_id = instance_id
        self._output = output
        self._unseen: str | None = None
        self._tree: Tree | None = None
        self._program: Program | None = None
        self._held = ExitStack()

    @property
    def unseen(self) -> str | None:
        """Why it can't be looked at."""
        return self._unseen

    @property
    def identity(self) -> Identity:
        """Known from the beginning."""
        return self._identity

    @property
    def pid(self) -> int:
        """Its number there."""
        return self._identity.pid

    @property
    def log_file(self) -> Path | None:
        """Its path there."""
        return None

    # --- looking ---

    @property
    def _told(self) -> Told:
        return self._identity.pid, self._identity.start_time

    async def look(self) -> None:
        """Look there, over a new connection if the old one is lost."""
        self._take_in(await self._ask(self._look_at))

    async def _look_at(self, line: Line) -> Tree:
        if not self._is_of(line):
            return Tree(0, [])
        return await _remote_processes.tree_of(line, self._told, await self._others(line))

    def _is_of(self, line: Line) -> bool:
        """Say whether the machine was not started anew since then."""
        return line.facts.boot_id == self._identity.boot_id

    async def _others(self, line: Line) -> list[Told]:
        """Give those whose ancestry may not be seen any more."""
        return [] if self._tree is None else self._tree.told

    async def _marked(self, line: Line) -> list[Told]:
        """Give all that bear the mark of the instance, however they have forked away."""
        return await _remote_processes.strays(line, self._instance_id)

    async def _ask(self, ask: Callable[[Line], Awaitable[T]], *, again: bool = True) -> T:
        try:
            answer = await self._machine.look(ask, again=again)
        except SSHConnectError as error:
            self._lose_sight(str(error))
            raise self._unknown() from error
        self._unseen = None
        return answer

    def _lose_sight(self, reason: str) -> None:
        self._unseen = reason

    def _unknown(self) -> DaemonStateUnknownError:
        problem = f"process {self.pid} on {self._machine.host} can't be seen: {self._unseen}"
        return DaemonStateUnknownError(self._name, problem)

    def _take_in(self, tree: Tree) -> None:
        self._tree = tree

    async def _poll(
        self,
        is_over: Callable[[], bool],
        look: Callable[[], Awaitable[None]],
        patience_s: float = 0.0,
    ) -> None:
        """Look again and again; a machine that is out of reach is waited for, for some seconds."""
        pause, seen_at = FIRST_INTERVAL_S, trio.current_time()
        while not is_over():
            try:
                await look()
                seen_at = trio.current_time()
            except DaemonStateUnknownError:
                if trio.current_time() - seen_at >= patience_s:
                    raise
            if not is_over():
                await trio.sleep(pause)
                pause = min(1.5 * pause, LONGEST_INTERVAL_S)

    # --- signals and relations ---

    @abstractmethod
    async def signal_tree(self, signum: int) -> None:
        """Send to each by its identity."""

    async def _signal_tree(self, signum: int) -> None:
        async def signal(line: Line) -> Tree:
            if not self._is_of(line):
                return Tree(0, [])
            others = await self._others(line)
            done = await _remote_processes.signal_tree(line, self._told, signum, others)
            return done.left

        # Many programs take a second SIGTERM for an order to drop all.
        self._take_in(await self._ask(signal, again=False))

    async def _signal_one(self, signum: int) -> None:
        async def signal(line: Line) -> bool:
            is_of = self._is_of(line)
            return not is_of or await _remote_processes.signal_one(line, self._told, signum)

        if not await self._ask(signal, again=False):
            raise PermissionError(errno.EPERM, "it is another user's")

    async def contains(self, pid: int) -> bool | None:
        """Look at its tree."""
        self._take_in(await self._ask(self._look_at))
        return self._tree is not None and pid in self._tree

    async def listener_at(self, host: str, port: int) -> Verdict:
        """Look who holds the listening socket: one of the tree, or one that bears its id."""

        async def look(line: Line) -> Verdict:
            return await self._verdict(line, await listening_at(line, host, port))

        return await self._ask(look)

    async def _verdict(self, line: Line, found: Listening) -> Verdict:
        if not found.listeners:
            return Verdict.UNKNOWN
        ours = {pid for pid, _ in (await self._look_at(line)).told}
        if self._instance_id and not ours.issuperset(holder.pid for holder in found.holders):
            # A child that forked twice belongs to nobody any more, but has its environment from us.
            marked = await _remote_processes.strays(line, self._instance_id)
            ours.update(pid for pid, _ in marked)
        verdicts = {_verdict_on(listener.inode, found, ours) for listener in found.listeners}
        return verdicts.pop() if len(verdicts) == 1 else Verdict.FOREIGN

    def note_program(self, program: Program) -> None:
        """Note what it runs."""
        self._program = program

    def runs(self, program: str) -> bool | None:
        """Compare with what was seen of it."""
        if self._program is None or self._program.exe is None:
            return None
        executable, arguments = self._program.exe, self._program.args
        wanted = {program, self._machine.resolved.get(program, program)}
        # A script stands after its interpreter, and perhaps an option of its #! line.
        count = 3 if len(arguments) > 1 and arguments[1].startswith("-") else 2
        shown = {executable.removesuffix(" (deleted)"), *arguments[1:count]}
        return bool(wanted & shown)

    def find_stuck(self) -> tuple[int, str] | None:
        """Name one of what was left at the last look."""
        left = [] if self._tree is None else self._tree.members
        return next(((member.stat.pid, member.wchan) for member in left), None)

    # --- output ---

    @property
    def heard_at(self) -> float | None:
        """When output came here last."""
        return self._output.heard_at

    def output_tail(self) -> bytes:
        """Give the end of what came here."""
        return self._output.tail()

    def lines(self) -> AsyncIterator[str]:
        """Give lines from now on."""
        return self._output.lines(self)

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard from now on."""
        return self._output.hear_lines(self, hear)

    def hold(self, let_go: Callable[[], None]) -> None:
        """Have something let go of when this is closed."""
        self._held.callback(let_go)

    def close(self) -> None:
        """Let go of the output, and of what was held for it."""
        self._output.close()
        self._held.close()


def _verdict_on(inode: int, found: Listening, ours: set[int]) -> Verdict:
    holders = {holder.pid for holder in found.holders if holder.inode == inode}
    if not holders:
        return Verdict.UNKNOWN
    return Verdict.OURS if holders & ours else Verdict.FOREIGN
