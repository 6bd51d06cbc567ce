"""A daemon in the care of a guard on another machine, as this program sees it."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import trio

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._output import FedOutput
from trio_lifecycle._ssh._guard_frames import number_in
from trio_lifecycle._ssh._guard_refusals import refusal
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.abc import SpawnRequest


def _hear_nothing(pid: int, command: str) -> None:
    """Let a stray pass."""


class Asked(Protocol):
    """The connection to the guard, as far as a daemon needs it."""

    lost: str | None
    is_cut: bool
    inner: int
    inner_start: int
    boot_id: str
    pid_namespace: int

    async def ask(self, message: dict[str, Any]) -> Any:
        """Ask something, and give the answer."""

    def tell(self, message: dict[str, Any]) -> None:
        """Have something sent."""

    def discard(self, number: int) -> None:
        """Have a daemon killed that nobody wants any more."""


class Ward:
    """A daemon that the guard has started.

    When the connection is lost it is not known what becomes of it, though the guard ends it then:
    ``ended`` and ``gone`` stay as they are, and ``lost`` says why.

    Attributes:
        pid: The main process's number on its machine.
        start_time: When it was started, in clock ticks of that machine's boot.
        boot_id: That machine's boot.
        pid_namespace: The pid namespace there.
        status: How it ended, as ``subprocess`` counts; None while it has not.
        ended: Set when the main process has ended; all that it wrote was fed before.
        gone: Set when nothing is left of its tree, and its output is finished.
        seen_alive: When it was last known to live, in clock ticks of its machine's boot.
        stuck: Which process SIGKILL does not end, and what in the kernel that waits in.
        hear_stray: Called with the number and the command of a process that may be of its tree.
    """

    def __init__(
        self,
        link: Asked,
        number: int,
        request: SpawnRequest,
        output: FedOutput,
        forwards: Mapping[int, Callable[[bytes], None]],
    ) -> None:
        self._link = link
        self._number = number
        self._request = request
        self._output = output
        self._forwards = dict(forwards)
        self._opened = trio.Event()
        self._is_asked_to_open = False
        self._refusal: SpawnError | None = None
        self._is_abandoned = False
        self.spawned = trio.Event()
        self.pid = self.start_time = self.seen_alive = 0
        self.boot_id = link.boot_id
        self.pid_namespace = link.pid_namespace
        self.status: int | None = None
        self.ended = trio.Event()
        self.gone = trio.Event()
        self._ended_or_lost = trio.Event()
        self._gone_or_lost = trio.Event()
        self.stuck: tuple[int, str] | None = None
        self.hear_stray: Callable[[int, str], None] = _hear_nothing

    @property
    def lost(self) -> str | None:
        """Why the guard can't be asked any more; None while it can."""
        return self._link.lost

    @property
    def is_cut(self) -> bool:
        """Whether the guard may be there still, and only the connection to it is gone."""
        return self._link.is_cut

    @property
    def guard(self) -> tuple[int, int]:
        """The number of the guard's working process, and when it was started; 0 if unknown."""
        return self._link.inner, self._link.inner_start

    async def wait_ended(self) -> None:
        """Wait until its main process has ended, or the guard is lost."""
        await self._ended_or_lost.wait()

    async def wait_gone(self) -> None:
        """Wait until its tree is gone, or the guard is lost."""
        await self._gone_or_lost.wait()

    async def open_gate(self) -> None:
        """Let its program begin; returns when it has. Again is fine.

        Raises:
            SpawnError: The program can't be executed, or the process has ended.
            LostError: The guard is lost.
        """
        if self._request.gated and not self._is_asked_to_open:
            self._is_asked_to_open = True
            self._link.tell({"do": "open", "id": self._number})
        await self._opened.wait()
        self.check_started()

    async def signal(self, signum: int, *, tree: bool) -> None:
        """Send a signal to its whole tree, or to its main process; returns when that is done.

        Raises:
            LostError: The guard is lost.
        """
        if not self.gone.is_set():
            order = {"do": "signal", "id": self._number, "signum": int(signum), "tree": tree}
            await self._link.ask(order)

    async def contains(self, pid: int) -> bool | None:
        """Say whether a process of its machine belongs to its tree; None when the guard is lost."""
        try:
            return bool(await self._link.ask({"do": "contains", "id": self._number, "pid": pid}))
        except LostError:
            return None

    def close(self) -> None:
        """Let go of it: one that still stands at its gate ends, and nothing more is heard."""
        if self._request.gated and not self._is_asked_to_open:
            self.abandon()
        self._forwards.clear()
        self.hear_stray = _hear_nothing

    def abandon(self) -> None:
        """Have it killed with all of its tree."""
        if not self._is_abandoned and not self.gone.is_set():
            self._is_abandoned = True
            self._link.discard(self._number)

    # --- what the guard says ---

    def on_spawned(self, facts: Mapping[str, Any]) -> None:
        """It is there."""
        self.pid, self.start_time = number_in(facts, "pid", 2), number_in(facts, "start")
        self.seen_alive = number_in(facts, "ticks")
        self.spawned.set()

    def on_opened(self) -> None:
        """Its program runs."""
        self._opened.set()

    def on_failed(self, facts: Mapping[str, Any]) -> None:
        """Something was refused, so the program has not run."""
        self._refusal = refusal(self._request, facts["stage"], facts["what"], facts["errno"])
        self._wake()

    def on_output(self, raw: bytes) -> None:
        """It has written."""
        self._output.feed(raw)

    def on_forwarded(self, number: int, raw: bytes) -> None:
        """It has written to another descriptor, or closed it."""
        hear = self._forwards.get(number)
        if hear is not None:
            hear(raw)

    def on_exited(self, status: int) -> None:
        """Its main process has ended."""
        self.status = status
        self.ended.set()
        self._ended_or_lost.set()

    def on_gone(self) -> None:
        """Nothing is left of it."""
        self._output.finish()
        self.ended.set()
        self.gone.set()
        self._ended_or_lost.set()
        self._gone_or_lost.set()
        if not self._opened.is_set() and self._refusal is None:
            self.on_failed({"stage": "gate", "what": "", "errno": None})

    def on_lost(self) -> None:
        """The guard is lost."""
        self._ended_or_lost.set()
        self._gone_or_lost.set()
        self._wake()

    def check_started(self) -> None:
        """Raise what kept it from starting.

        Raises:
            SpawnError: The other machine refused.
            LostError: The guard was lost before it was told.
        """
        if self._refusal is not None:
            raise self._refusal
        if self.lost is not None:
            raise LostError(self.lost)

    def _wake(self) -> None:
        self.spawned.set()
        self._opened.set()
