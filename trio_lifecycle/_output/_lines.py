"""Lines on their way to those who read them, each at its own pace, and to those who hear all."""

import logging
import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Final

import trio

from trio_lifecycle.abc import Hearing

_log: Final = logging.getLogger("trio_lifecycle")

# Lines that a reader of `lines()` may be behind before it loses the oldest.
LINES_KEPT_FOR_A_READER: Final = 10_000


class Lines:
    """Gives lines to any number of readers, each at its own pace."""

    def __init__(self) -> None:
        # A reader that is dropped in the middle of a loop needs no closing: it is forgotten with
        # its last reference.
        self._readers: weakref.WeakSet[LineReader | PipeHearing] = weakref.WeakSet()
        self._closed = False

    @property
    def wanted(self) -> bool:
        """True while somebody reads."""
        return len(self._readers) > 0

    def feed(self, lines: list[str]) -> None:
        """Give lines to whoever reads now."""
        for reader in list(self._readers):
            reader.feed(lines)

    def close(self) -> None:
        """Say that there will be no more."""
        self._closed = True
        for reader in list(self._readers):
            reader.close()

    def read(self) -> "LineReader":
        """Give the lines that come from now on."""
        reader = LineReader()
        if self._closed:
            reader.close()
        self._readers.add(reader)
        return reader

    def hear(self, hear: Callable[[list[str]], None], take_in: Callable[[], None]) -> "PipeHearing":
        """Have the lines heard that come from now on.

        Args:
            hear: It is called with them.
            take_in: Takes in what the pipe holds.
        """
        hearing = PipeHearing(hear, take_in, self._readers.discard)
        if self._closed:
            hearing.close()
        else:
            self._readers.add(hearing)
        return hearing


class LineReader(AsyncIterator[str]):
    """Lines on their way to one reader; the oldest go when it is too slow."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=LINES_KEPT_FOR_A_READER)
        self._news = trio.Event()
        self._closed = False

    def feed(self, lines: list[str]) -> None:
        """Take lines."""
        if lines:
            self._lines.extend(lines)
            self._news.set()

    def close(self) -> None:
        """Take no more."""
        self._closed = True
        self._news.set()

    async def __anext__(self) -> str:
        await trio.lowlevel.checkpoint()
        while not self._lines:
            if self._closed:
                raise StopAsyncIteration
            # Only a used one is replaced: another task may wait for it.
            if self._news.is_set():
                self._news = trio.Event()
            await self._news.wait()
        return self._lines.popleft()


class PipeHearing(Hearing):
    """Lines that are heard at the moment when they are taken out of the pipe."""

    def __init__(
        self,
        hear: Callable[[list[str]], None],
        take_in: Callable[[], None],
        forget: "Callable[[PipeHearing], None]",
    ) -> None:
        self._hear = hear
        self._take_in = take_in
        self._forget = forget
        self._over = trio.Event()

    def feed(self, lines: list[str]) -> None:
        """Have lines heard."""
        if not lines or self._over.is_set():
            return
        try:
            self._hear(lines)
        except Exception:
            # Raised on, it would break off the output for everybody.
            _log.exception("a line of output can't be heard, nor those after it")
            self.close()

    async def run(self) -> None:
        """Wait: whoever empties the pipe lets it be heard."""
        await self._over.wait()

    def look(self) -> None:
        """Empty the pipe."""
        if not self._over.is_set():
            self._take_in()

    def close(self) -> None:
        """Hear no more."""
        self._over.set()
        self._forget(self)
