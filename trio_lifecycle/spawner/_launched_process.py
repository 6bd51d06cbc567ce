"""A daemon of another machine that a launcher there has started."""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from math import inf
from typing import Final, Literal

import trio

from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError, SpawnError
from trio_lifecycle._output import FedOutput
from trio_lifecycle._polling import next_interval
from trio_lifecycle._records import Identity
from trio_lifecycle._ssh._launching import Launched
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._machine import Machine
from trio_lifecycle._ssh._remote_processes import Told
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle.abc import Hearing
from trio_lifecycle.spawner._remote_log import LOG_INTERVAL_S, RemoteLog
from trio_lifecycle.spawner._seen_process import SeenProcess

# To say goodbye to a launcher takes a round trip.
_LEAVE_PATIENCE_S: Final = 2.0

# How long a launcher may take to say how a process has ended that is seen to be gone. Who was to
# say it may have been killed.
_WORD_PATIENCE_S: Final = 1.0

# How often to look whether somebody waits for a session.
_LOOK_FOR_ROOM_S: Final = 0.5

_log: Final = logging.getLogger("trio_lifecycle")


class LaunchedProcess(SeenProcess):
    """A daemon whose launcher tells its exit status, as long as its session lasts.

    A detached one is left by its launcher when its start is over, and looked at from then on. One
    that has an owner, on a machine without Python, keeps its launcher, which ends it when the
    session ends or falls silent.
    """

    def __init__(
        self,
        machine: Machine,
        name: str,
        identity: Identity,
        instance_id: str,
        output: FedOutput,
        launched: Launched,
        log: RemoteLog,
        *,
        detached: bool,
    ) -> None:
        super().__init__(machine, name, identity, instance_id, output, launched.log_file, None)
        self._launched = launched
        self._followed = log
        self._is_detached = detached
        self._status: int | None = None
        self._has_ended = trio.Event()
        self._over = trio.Event()
        self._is_served = False
        self._missed_at = inf
        self._is_open = False

    @property
    def guarantee(self) -> Literal["detached", "scoped"]:
        """As it was asked for, or as far as a shell reaches."""
        return "detached" if self._is_detached else "scoped"

    @property
    def status(self) -> int | None:
        """As the launcher has said; None when it was left before."""
        return self._status

    @property
    def ended(self) -> bool:
        """As the launcher says; without one, as it was seen."""
        is_awaited = self._is_served and trio.current_time() < self._missed_at + _WORD_PATIENCE_S
        return self._has_ended.is_set() or (super().ended and not is_awaited)

    @property
    def gone(self) -> bool:
        """As it was seen, once its end is known."""
        return self.ended and super().gone

    async def open_gate(self) -> None:
        """Have the launcher let it go on."""
        if self._is_open:
            await trio.lowlevel.checkpoint()
            return
        if self.ended:
            raise SpawnError(self._name, "its process has ended at its gate")
        try:
            await self._launched.open_gate()
        except LostError as error:
            self._lose_sight(str(error))
            raise self._unknown() from error
        self._is_open = True

    # --- while its session lasts ---

    @trio.lowlevel.enable_ki_protection
    async def serve(self) -> None:
        """Bring its output here and hear of its end; run this for as long as it has an owner.

        When this is cancelled, a detached one whose gate was opened is left running.
        """
        self._is_served = True
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow)
                if self._is_detached:
                    nursery.start_soon(self._make_room)
                else:
                    nursery.start_soon(self._beat)
                await self._hear_end()
                nursery.cancel_scope.cancel()
        finally:
            self._is_served = False
            self._over.set()
            await self._part()  # noqa: ASYNC102  # it shields itself

    async def _beat(self) -> None:
        try:
            await self._launched.beat_forever()
        except LostError as error:
            self._on_lost(str(error))

    async def _hear_end(self) -> None:
        try:
            status = await self._launched.wait_end()
        except LostError as error:
            self._on_lost(str(error))
            if self._is_detached:
                await self._outlive_launcher()
            return
        await self._take_rest()
        self._status = status
        self._has_ended.set()
        self._over.set()

    async def _make_room(self) -> None:
        """Give up the launcher of one that runs when somebody waits for its session.

        A server allows few at once, and a model may load for minutes. How it ends, should it do so
        before it is ready, is not known then.
        """
        while not (self._is_open and self._machine.is_crowded):  # noqa: ASYNC110  # nobody tells
            await trio.sleep(_LOOK_FOR_ROOM_S)
        with suppress(LostError):
            await self._launched.leave()

    async def _outlive_launcher(self) -> None:
        # It runs on, and somebody may still wait for what it writes.
        self._is_served = False
        with suppress(DaemonStateUnknownError):
            await super().wait()
            await self._take_rest()

    def _on_lost(self, reason: str) -> None:
        if not self._is_detached:
            self._lose_sight(f"{reason}; the launcher there ends the daemon")

    async def _follow(self) -> None:
        began = trio.current_time()
        while True:
            try:
                await self._followed.take_all(self._output.feed)
            except LifecycleError as error:
                _log.debug("the log of %s can't be followed: %s", self._name, error)
            # Soon after the start most is written that somebody waits for.
            await trio.sleep(next_interval(trio.current_time() - began, LOG_INTERVAL_S))

    async def _take_rest(self) -> None:
        try:
            await self._followed.take_all(self._output.feed)
        except LifecycleError as error:
            _log.warning("the end of the output of %s is missing: %s", self._name, error)

    async def _part(self) -> None:
        # Shielded: the owner has left. Bounded: the other machine may not answer.
        with trio.move_on_after(_LEAVE_PATIENCE_S, shield=True):
            try:
                if self._is_detached and self._is_open and not self.ended:
                    await self._launched.leave()
            except LostError:
                pass  # one whose gate was opened is left running all the same
        self._launched.close()

    # --- the contract ---

    async def _others(self, line: Line) -> list[Told]:
        """Give, of one that has an owner, also who bears its mark; what stays may leave others."""
        others = await super()._others(line)
        return others if self._is_detached else [*others, *await self._marked(line)]

    async def look(self) -> None:
        """Look there; how one has ended that is not there any more, its launcher says."""
        await super().look()
        if super().ended:
            self._missed_at = min(self._missed_at, trio.current_time())

    async def wait(self) -> int | None:
        """Wait for the launcher's word, or look."""
        while self._is_served and not self.ended:
            with trio.move_on_after(1.0):
                await self._has_ended.wait()
        if not self.ended:
            await super().wait()
            await self._take_rest()
        return self.status

    async def wait_over(self) -> None:
        """Wait for the launcher's word, or until one that has an owner has lost its launcher."""
        if self._is_detached:
            await super().wait_over()
        else:
            await self._over.wait()

    def lines(self) -> AsyncIterator[str]:
        """Give lines from now on."""
        return self._output.lines(self) if self._is_served else super().lines()

    def hear_lines(self, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard from now on."""
        return self._output.hear_lines(self, hear)

    def close(self) -> None:
        """Let go of the session and the output."""
        self._launched.close()
        super().close()
