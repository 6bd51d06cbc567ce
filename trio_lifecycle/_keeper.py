"""The keeper: the task that has a daemon started, and owns it until its owner has left."""

import logging
from typing import Final

import trio

from trio_lifecycle._errors import (
    DaemonDiedError,
    DaemonStateUnknownError,
    LifecycleError,
    ReaperLostError,
)
from trio_lifecycle._events import Left
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._launch import Launch
from trio_lifecycle._record_errors import DaemonNotRunningError
from trio_lifecycle._sight import lost_from_sight
from trio_lifecycle._states import State
from trio_lifecycle.abc import Process

_log: Final = logging.getLogger("trio_lifecycle")


class Keeper:
    """Keeps one daemon for one owner.

    It works in a task of its own for two reasons: Trio raises Ctrl-C in the main task where that
    waits, and a second one could break off a clean-up there; and a cancellation that reaches the
    owner's block must not reach the daemon before the block has left.

    Attributes:
        handle: The daemon, once it is up.
        body: The owner's block; cancelled when the daemon dies under it, or is lost from sight.
        stop_error: Why the daemon could not be ended, once it should have been.
    """

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._start = trio.CancelScope()
        self._started = trio.Event()
        self._left = trio.Event()
        self.handle: DaemonHandle | None = None
        self._start_error: Exception | None = None
        self._end_error: LifecycleError | None = None
        self.stop_error: LifecycleError | None = None
        self._ready_at = 0.0
        self.body = trio.CancelScope()

    @trio.lowlevel.enable_ki_protection
    async def keep(self) -> None:
        """Start the daemon, and own it until ``leave`` is called.

        Never raises what the owner has to hear.
        """
        # Shielded so that the owner's block leaves first. Bounded: the start by `started`, which
        # cancels it with its caller; the rest by the block and the stop ladder.
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as services:
                await self._begin(services)
                if self.handle is not None:
                    assert self._launch.stopper is not None
                    self._launch.stopper.tell_owner = self._look_for_death
                    if self.handle.origin == "adopted":
                        services.start_soon(self._launch.watch)
                    await self._own(self.handle)
                services.cancel_scope.cancel()

    async def _begin(self, services: trio.Nursery) -> None:
        try:
            with self._start:
                self.handle = await self._launch.run(services)
                self._ready_at = trio.current_time()
        except Exception as error:
            self._start_error = error
        finally:
            self._started.set()

    async def started(self) -> DaemonHandle:
        """Wait until the daemon is up; when that is cancelled, the start is given up.

        Raises:
            DaemonNotRunningError: The start was given up by another task.
            LifecycleError: It did not come up.
        """
        try:
            await self._started.wait()
        except BaseException:
            self.give_up()
            raise
        if self._start_error is not None:
            raise self._start_error
        if self._start.cancelled_caught:
            raise DaemonNotRunningError(self._launch.config.name, "its start was given up")
        if self.handle is None:
            # A task that serves the process has crashed, and its error is on its way here.
            await trio.sleep_forever()
        assert self.handle is not None
        return self.handle

    def give_up(self) -> None:
        """Give the start up; one that is finished stays as it is."""
        self._start.cancel()

    def leave(self) -> None:
        """Say that the owner's block has left."""
        try:
            # Here, too, so that a death in the block is one whichever task heard of it first.
            self._look_for_death()
        finally:
            # An observer may end the program by what it raises; the daemon must go all the same.
            self._left.set()
            self._launch.over.set()

    async def conclude(self, outcome: BaseException | None) -> None:
        """Raise what the block raised, or else what became of the daemon.

        Before that, what the daemon had is waited for, unless the owner is in a hurry.
        """
        try:
            # A start that has failed is told at once.
            if self.handle is not None and (outcome is None or isinstance(outcome, Exception)):
                await self._launch.recovered()
        except trio.Cancelled:
            # What the block raised leaves as it entered, also when this wait is cut short.
            self._raise(outcome)
            raise
        self._raise(outcome)

    def _raise(self, outcome: BaseException | None) -> None:
        if outcome is None and self._end_error is not None:
            raise self._end_error from None
        if outcome is not None:
            if isinstance(outcome, Exception) and self._end_error is not None:
                outcome.add_note(str(self._end_error))
            raise outcome

    async def _own(self, handle: DaemonHandle) -> None:
        try:
            await self._launch.over.wait()
            if not self._left.is_set():
                self._look_for_death()
            await self._let_go(handle)
        except BaseException:
            # A task that serves the process has crashed, or an observer has ended the program. The
            # daemon goes all the same, after the block.
            self.body.cancel()
            with trio.CancelScope(shield=True):
                await self._left.wait()
                await self._let_go(handle)
            raise

    async def _let_go(self, handle: DaemonHandle) -> None:
        process, stopper = self._launch.process, self._launch.stopper
        assert process is not None
        assert stopper is not None
        try:
            if handle.origin == "spawned":
                await stopper.stop()
                self._note_gone()
        except LifecycleError as error:
            _log.error("%s", error)
            self.stop_error = error
            # Of one that is out of sight, what its stop came to says more.
            is_out_of_sight = isinstance(self._end_error, DaemonStateUnknownError)
            self._end_error = error if is_out_of_sight else self._end_error or error
        await self._left.wait()
        if self._launch.diary.state is State.READY:
            self._launch.diary.note(Left, pid=process.pid)
        process.close()
        await self._launch.held.aclose()
        self._launch.close_sockets()

    def _note_gone(self) -> None:
        if isinstance(self._end_error, DaemonStateUnknownError):
            self._end_error.add_note("It came into sight again, and is gone.")

    def _look_for_death(self) -> None:
        """Cancel the owner's block if the daemon died under it, or is out of sight."""
        handle = self.handle
        if handle is not None and self._end_error is None:
            self._end_error = self._loss_of(handle)
            if self._end_error is not None:
                self.body.cancel()

    def _loss_of(self, handle: DaemonHandle) -> LifecycleError | None:
        process, stopper = self._launch.process, self._launch.stopper
        assert process is not None
        assert stopper is not None
        if stopper.note_death():
            lived_s = trio.current_time() - self._ready_at
            return _died(handle.name, process, lived_s, handle.output_tail)
        if stopper.note_unseen():
            return lost_from_sight(handle.name, process, "while it was needed", stopper.unseen)
        return None


def _died(name: str, process: Process, lived_s: float, tail: str) -> DaemonDiedError:
    """Say how a daemon was lost."""
    if process.lost is not None:
        return ReaperLostError(name, process.status, lived_s, tail, process.lost)
    return DaemonDiedError(name, process.status, lived_s, tail)
