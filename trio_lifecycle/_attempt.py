"""An attempt that many share: all who ask while it is under way get its outcome."""

import copy
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TypeVar

import trio

from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._waits import Underway

ErrorT = TypeVar("ErrorT", bound=BaseException)


class Attempt:
    """One attempt to have a daemon, for all tasks that want it.

    It runs in a task of its own, so that a caller who is cancelled takes it from nobody else. When
    the last caller is cancelled it is given up.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[DaemonHandle]]) -> None:
        self._underway = Underway(name)
        self._work = work
        self._scope = trio.CancelScope()
        self._callers = 0
        self._done = trio.Event()
        self._handle: DaemonHandle | None = None
        self._error: BaseException | None = None
        # What the first caller's context variables say goes for the observer, too.
        trio.lowlevel.spawn_system_task(self._run, name="ensure", context=copy_context())

    @property
    def is_open(self) -> bool:
        """True while others may join it: it is neither over nor given up."""
        return not self._done.is_set() and not self._scope.cancel_called

    async def _run(self) -> None:
        try:
            with self._underway.doing(), self._scope:
                self._handle = await self._work()
        except trio.Cancelled:
            # The whole run ends; nobody waits any more.
            raise
        except BaseException as error:  # noqa: ASYNC103  # raised in whoever waits
            self._error = error
        finally:
            self._done.set()

    async def over(self) -> None:
        """Wait until nothing of it goes on."""
        await self._done.wait()

    async def join(self) -> DaemonHandle:
        """Wait for its outcome; each caller gets the same handle, or an error of its own.

        Raises:
            ConfigError: The caller is part of this very attempt, or of one that waits for it.
        """
        self._callers += 1
        try:
            with self._underway.awaited():
                await self._done.wait()
        except BaseException:
            self._callers -= 1
            if self._callers == 0:
                self._scope.cancel()
                # Shielded, so that nothing is left when the caller goes on; bounded by the stop
                # ladder.
                with trio.CancelScope(shield=True):
                    await self._done.wait()
            raise
        if self._error is not None:
            raise twin(self._error)
        assert self._handle is not None
        return self._handle


def twin(error: ErrorT) -> ErrorT:
    """Copy an error for one of those who wait: wherever one is raised, its traceback grows."""
    try:
        copied = copy.copy(error)
    except Exception:
        return error
    if type(copied) is not type(error) or str(copied) != str(error):
        return error
    if hasattr(error, "__notes__"):
        copied.__notes__ = list(error.__notes__)
    copied.__context__, copied.__cause__ = error.__context__, error.__cause__
    copied.__suppress_context__ = error.__suppress_context__
    return copied.with_traceback(error.__traceback__)
