"""Signals that end us: the first one stops everything in order, Ctrl-C once more kills."""

import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager

import trio

from trio_lifecycle._cli._codes import SIGNALS
from trio_lifecycle._cli._display import Display


def heeded() -> list[signal.Signals]:
    """Give the signals to listen for: SIGTERM, and what was not ignored at our start (nohup)."""
    ignored = {signum for signum in SIGNALS if signal.getsignal(signum) is signal.SIG_IGN}
    return [signum for signum in SIGNALS if signum not in ignored - {signal.SIGTERM}]


@contextmanager
def listening() -> Iterator[AsyncIterator[int]]:
    """Hear the signals that end us; those that come after the block are too late, and ignored.

    The exit status stands by then, and what it says of a daemon must stay true.
    """
    signums = heeded()
    # Held back meanwhile, so that none is lost between two handlers.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signums)
    for signum in signums:
        # What the receiver puts back when it ends; nothing is to happen then.
        signal.signal(signum, lambda _signum, _frame: None)
    try:
        with trio.open_signal_receiver(*signums) as arriving:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield arriving
    finally:
        for signum in signums:
            # For the interpreter's end, which puts the default in the place of any other handler.
            signal.signal(signum, signal.SIG_IGN)


class Interrupts:
    """Notes the first signal, and cancels what it ends.

    Args:
        display: Where it is said.
        farewell: Says what the first signal leads to, given the key that then kills at once; empty
            where that needs no words.

    Attributes:
        scope: What is cancelled.
        signum: The first signal; None as long as there was none.
    """

    def __init__(self, display: Display, farewell: Callable[[str], str]) -> None:
        self.scope = trio.CancelScope()
        self.signum: int | None = None
        self._display = display
        self._farewell = farewell

    async def listen(
        self, arriving: AsyncIterator[int], kill: Callable[[], Awaitable[None]]
    ) -> None:
        """Heed signals as they arrive.

        A terminal that closes sends SIGHUP more than once, and so do some supervisors with SIGTERM;
        only Ctrl-C is pressed by somebody who has lost patience.

        Args:
            arriving: The signals.
            kill: What a second Ctrl-C does.
        """
        async for number in arriving:
            if self.signum is None:
                self._answer(number)
                self.end(number)
            elif number == signal.SIGINT:
                key = self._next_key()
                # Where none was named there is nothing to kill.
                if key in self._farewell(key):
                    self._display.answer(f"{key}: killing at once")
                await kill()

    def _answer(self, number: int) -> None:
        if words := self._farewell(self._next_key(number)):
            self._display.answer(f"{SIGNALS[signal.Signals(number)]}: {words}")

    def _next_key(self, first: int | None = None) -> str:
        again = (first or self.signum) == signal.SIGINT
        return "Ctrl-C once more" if again else "Ctrl-C"

    def lose_reader(self) -> None:
        """End as other programs do whose output nobody reads any more."""
        self.end(signal.SIGPIPE)

    def end(self, signum: int) -> None:
        """End everything in order; the first reason counts."""
        if self.signum is None:
            self.signum = signum
            self.scope.cancel()
