"""One command at work: its streams, the signals that end it, and what it says of errors."""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from trio_lifecycle._cli._codes import NOT_WRITTEN, status_of_error, status_of_signal
from trio_lifecycle._cli._complaints import complaints_to
from trio_lifecycle._cli._display import Display
from trio_lifecycle._cli._interrupts import Interrupts, listening
from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import Paint
from trio_lifecycle._cli._sentences import sentence_of, unwritten
from trio_lifecycle._errors import LifecycleError

STDOUT: Final = 1
STDERR: Final = 2

# After a signal: what a reader gets to take our last lines, before they are given up.
_LAST_LINES_S: Final = 1.0


class Session:
    """Does one command's work among all that serves it.

    Args:
        verbosity: -1 shows errors only, 1 also small steps.
        farewell: Says what the first signal leads to; see ``Interrupts``.
        watches_stdout: Whether to end at once when nobody reads standard output any more.
        shows_output: Whether the daemon's output is shown as it comes, so that errors need not
            repeat it.
        status_of: Says which exit status an error has.
        settle: Given the exit status once all is said that can be, gives the one that counts; it
            may complain.

    Attributes:
        out: Standard output.
        display: What people see, on standard error.
        interrupts: The signals.
    """

    def __init__(
        self,
        verbosity: int,
        farewell: Callable[[str], str],
        *,
        watches_stdout: bool = False,
        shows_output: bool = False,
        status_of: Callable[[LifecycleError], int] = status_of_error,
        settle: Callable[[int], int] | None = None,
    ) -> None:
        self._screen = Outlet(STDERR, self._lose_reader)
        self._watches_stdout = watches_stdout
        self._shows_output = shows_output
        self._status_of = status_of
        self._settle = settle
        self.out = Outlet(STDOUT, self._lose_reader)
        self.display = Display(self._screen, Paint(STDERR), verbosity)
        self.interrupts = Interrupts(self.display, farewell)

    async def run(
        self, work: Callable[[], Awaitable[int]], kill: Callable[[], Awaitable[None]]
    ) -> int:
        """Work until it is done, or a signal ends it.

        Args:
            work: Gives the exit status.
            kill: What a second Ctrl-C does.

        Returns:
            The exit status.
        """
        with listening() as arriving:
            async with trio.open_nursery() as services:
                services.start_soon(self._screen.run)
                services.start_soon(self.out.run)
                services.start_soon(self.display.run)
                if self._watches_stdout:
                    services.start_soon(self.out.watch)
                services.start_soon(self.interrupts.listen, arriving, kill)
                with complaints_to(self.display.complain):
                    status = await self._work(work)
                services.cancel_scope.cancel()
        return status

    async def _work(self, work: Callable[[], Awaitable[int]]) -> int:
        status = 0
        with self.interrupts.scope:
            try:
                status = await work()
            except LifecycleError as error:
                status = self.report(error)
            self.display.conclude()
            await self._drain()
        self.display.conclude()
        with trio.move_on_after(_LAST_LINES_S):
            await self._drain()
        signum = self.interrupts.signum
        if signum is not None:
            status = status_of_signal(signum)
        if self._settle is not None:
            status = self._settle(status)
        with trio.move_on_after(_LAST_LINES_S):
            await self._screen.drain()
        return status

    async def _drain(self) -> None:
        await self._screen.drain()
        await self.out.drain()

    def insist_on_output(self, status: int) -> int:
        """Have it count, and said, that standard output did not take all, unless a signal ended us.

        Returns:
            The exit status.
        """
        if self.interrupts.signum is not None or not self.out.shortfall:
            return status
        self.display.complain(unwritten(self.out.shortfall))
        return NOT_WRITTEN

    def report(self, error: LifecycleError) -> int:
        """Say what went wrong.

        Returns:
            The exit status.
        """
        self.display.conclude()
        self.display.complain(sentence_of(error, with_output=not self._shows_output))
        return self._status_of(error)

    def _lose_reader(self) -> None:
        self.interrupts.lose_reader()
