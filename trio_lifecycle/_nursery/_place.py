"""A place in a nursery: one attempt to have a daemon up, and what became of it."""

from contextlib import suppress
from typing import Final

import trio

from trio_lifecycle._attempt import twin
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._errors import DaemonStateUnknownError, LifecycleError, StopError
from trio_lifecycle._events import ConfigChanged
from trio_lifecycle._fingerprint import differences
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._keeper import Keeper
from trio_lifecycle._ladder import KILL_PATIENCE_S, StopReport
from trio_lifecycle._lifecycle import DaemonLifecycle
from trio_lifecycle._nursery._standing import Standing
from trio_lifecycle._passed_sockets import PassedSockets
from trio_lifecycle._record_errors import DaemonNotRunningError
from trio_lifecycle._sight import is_out_of_sight, look_once
from trio_lifecycle._states import State
from trio_lifecycle._waits import Underway

# How much longer than its ladder a daemon may take to go, before whoever wants it anew is told so:
# SIGKILL has its patience, and a ready mode and a registry get some seconds to hear of the end.
_GOING_MARGIN_S: Final = KILL_PATIENCE_S + 5.0

_STOPPED: Final = "it was stopped while it was being started"
_UNWANTED: Final = "nobody waited for its start any more"
_CRASHED: Final = "a task that serves it has crashed"


class Place:
    """One attempt to have a daemon up in a nursery, and what became of it.

    Args:
        lifecycle: What to start.
        after: The last place of the name, if what its daemon had may not be free yet.

    Attributes:
        config: What was started.
        handle: The daemon, once it is up; it stays when that has ended.
        over: Set when all is done for it. It may still be there: one that outlived SIGKILL.
    """

    def __init__(
        self, lifecycle: DaemonLifecycle, sockets: PassedSockets, after: "Place | None" = None
    ) -> None:
        self.config = lifecycle.config
        self.handle: DaemonHandle | None = None
        self.over = trio.Event()
        self._launch = lifecycle._launch(detached=False, sockets=sockets)
        self._launch.predecessor = None if after is None else after._launch.stopper
        self._keeper = Keeper(self._launch)
        self._settled = trio.Event()
        self._underway = Underway(lifecycle.config.name)
        self._waiting = 0
        self._given_up: str | None = None
        self._failure: Exception | None = None

    # --- where it stands ---

    @property
    def standing(self) -> Standing:
        """Where the daemon stands at this moment."""
        if self.over.is_set():
            return Standing.GONE if self._is_gone() else Standing.STUCK
        if self._given_up is not None:
            return Standing.GOING
        if not self._settled.is_set():
            return Standing.STARTING
        return Standing.GOING if self._is_going() else Standing.UP

    @property
    def up(self) -> bool:
        """Whether it is up at this moment."""
        return self.standing is Standing.UP

    @property
    def pid(self) -> int:
        """Its main process; 0 where that can't be seen."""
        return (self.handle and self.handle.pid) or 0

    @property
    def stop_error(self) -> LifecycleError | None:
        """Why it could not be ended; None as long as nobody has failed to."""
        if isinstance(self._failure, (StopError, DaemonStateUnknownError)):
            return self._failure
        return self._keeper.stop_error

    def _is_gone(self) -> bool:
        process = self._launch.process
        if self.stop_error is None or process is None:
            return True
        with suppress(OSError):
            return process.gone
        return False

    def _is_going(self) -> bool:
        # Its end may have come a moment ago, and nobody has heard of it yet.
        process, stopper = self._launch.process, self._launch.stopper
        assert process is not None
        assert stopper is not None
        ended = process.ended or process.lost is not None
        return ended or stopper.asked or self._launch.over.is_set()

    @property
    def is_recovering(self) -> bool:
        """Whether what its daemon had is still to be waited for."""
        stopper = self._launch.stopper
        # A start that has failed is over with its failure.
        return self.handle is not None and stopper is not None and stopper.is_recovering

    async def recovered(self) -> None:
        """Wait until what its daemon had is free again, or the time for that is up."""
        await self._launch.recovered()

    def changed(self, config: LifecycleConfig) -> tuple[str, ...]:
        """Name the fields in which it was started otherwise."""
        return differences(self._launch.fingerprint, config.fingerprint)

    def note_change(self, lifecycle: DaemonLifecycle, fields: tuple[str, ...]) -> None:
        """Tell the observer of who wants it of another configuration."""
        assert self.handle is not None
        diary = lifecycle._launch(detached=False).diary
        # It is about the one that runs, and it has been looked whether one does.
        diary.instance_id, diary.state = self.handle.instance_id, State.LOOKING
        diary.note(ConfigChanged, pid=self.pid, fields=fields, action=lifecycle.config.on_change)

    def doubt(self) -> DaemonStateUnknownError:
        """Say that it was asked to go and is not gone."""
        process = self._launch.process
        unseen = None if process is None else process.unseen
        left = "is still there" if unseen is None else f"can't be seen to be gone: {unseen}"
        return DaemonStateUnknownError(
            self.config.name,
            f"process {process.pid if process else 0} was asked to go, and {left}; "
            "nothing was started, so that there are never two",
        )

    async def clear_up(self) -> None:
        """End one that was to be gone and was out of sight, if it can be seen by now.

        Raises:
            DaemonStateUnknownError: It is still there, or can't be seen.
            StopError: A process of it outlived SIGKILL.
        """
        process = self._launch.process
        if process is None or process.unseen is None:
            raise self.doubt()
        await look_once(process, KILL_PATIENCE_S)
        if is_out_of_sight(process):
            raise self.doubt()
        await self.stop()

    # --- its life ---

    @trio.lowlevel.enable_ki_protection
    async def keep(self) -> None:
        """Have it up, and keep it until it ends or is left."""
        try:
            # Shielded as the keeper is: others wait for the start, and the block leaves first.
            # Bounded: the nursery leaves when its block does, and the stop has its ladder.
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    with self._underway.doing():
                        nursery.start_soon(self._keeper.keep)
                    try:
                        await self._live()
                    finally:
                        self._keeper.leave()
        finally:
            if not self._settled.is_set() and self._failure is None:
                self._failure = DaemonNotRunningError(self.config.name, _CRASHED)
            self._settled.set()
            self.over.set()

    async def _live(self) -> None:
        try:
            self.handle = await self._keeper.started()
        except DaemonNotRunningError as error:
            self._failure = self._stopped(self._given_up) if self._given_up else error
        except Exception as error:
            self._failure = error
        else:
            if self._given_up:
                # Too late to give it up, so it is stopped.
                self._failure = self._stopped(self._given_up)
                return
            self._settled.set()
            with self._keeper.body:
                await self._launch.over.wait()

    def _stopped(self, problem: str) -> DaemonNotRunningError:
        return DaemonNotRunningError(self.config.name, problem)

    async def join(self) -> DaemonHandle | None:
        """Wait for the outcome of its start; None when it has died since then."""
        self._waiting += 1
        try:
            with self._underway.awaited():
                await self._settled.wait()
        except BaseException:
            self._waiting -= 1
            if not self._waiting and self.standing is Standing.STARTING:
                self.give_up(_UNWANTED)
                # Shielded: who is cancelled returns when nothing is left. Bounded by the ladder.
                with trio.CancelScope(shield=True):
                    await self.over.wait()
            raise
        self._waiting -= 1
        if self._failure is not None:
            raise twin(self._failure)
        if self.up:
            return self.handle
        if self._launch.stopper is not None and self._launch.stopper.asked:
            raise self._stopped(_STOPPED)
        return None

    async def await_change(self) -> None:
        """Wait until it is up or gone.

        Raises:
            ConfigError: The caller is part of its start.
            DaemonStateUnknownError: It was asked to go, and is still there.
        """
        if not self._settled.is_set():
            with self._underway.awaited():
                await self._settled.wait()
            return
        stopper = self._launch.stopper
        seconds = self.config.stop_ladder.seconds if stopper is None else stopper.seconds
        with trio.move_on_after(seconds + _GOING_MARGIN_S):
            await self.over.wait()
            return
        raise self.doubt()

    async def is_there_still(self) -> bool:
        """Say whether it is up; one whose end can't be seen is asked, and left when it is gone.

        Raises:
            ForeignDaemonError: Somebody else has taken its place.
            DaemonStateUnknownError: It is there, but not up.
        """
        if self.handle is not None and self.handle.pid is None and not await self._launch.answers():
            self.leave()
        return self.up

    # --- its end ---

    def give_up(self, problem: str) -> None:
        """Give its start up; who waits for it is told why."""
        self._given_up = problem
        self._keeper.give_up()

    def leave(self) -> None:
        """Stop it, unless it was found running; ``over`` says when that is done."""
        self._launch.over.set()

    async def end(self) -> StopReport | None:
        """Stop it, or give its start up, and wait until it is over."""
        if self.standing is Standing.STARTING:
            self.give_up(_STOPPED)
        if self._given_up is not None:
            await self.over.wait()
        report = await self.stop()
        await self.over.wait()
        return report

    async def stop(self) -> StopReport | None:
        """Climb its ladder; None when nothing was ever spawned."""
        if self.handle is not None:
            return await self.handle.stop()
        stopper = self._launch.stopper
        return None if stopper is None else await stopper.stop()
