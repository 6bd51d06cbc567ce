"""Output that somebody else reads, and feeds here: that of a daemon on another machine."""

from collections.abc import AsyncIterator, Callable, Iterable

import trio

from trio_lifecycle._destination import Output
from trio_lifecycle._output._intake import Intake
from trio_lifecycle.abc import Hearing, Process


class FedOutput:
    """Takes a daemon's output chunk by chunk, and gives it to who wants it.

    Args:
        name: The daemon's name.
        output: Who wants it.
        secrets: What nobody gets.
        held: Whether to keep back what comes until ``release``: whoever shall miss nothing has yet
            to say so.

    Attributes:
        heard_at: When something was fed last, on Trio's clock; None before.

    Raises:
        OSError: The file that it is to go to can't be opened.
    """

    def __init__(
        self, name: str, output: Output, secrets: Iterable[str] = (), *, held: bool = False
    ) -> None:
        self._intake = Intake(name, output, secrets)
        self._held: list[bytes] | None = [] if held else None
        self._is_finished = False
        self.heard_at: float | None = None

    def feed(self, chunk: bytes) -> None:
        """Take what the daemon wrote; what comes after the end is dropped."""
        if chunk and not self._is_finished:
            self.heard_at = trio.current_time()
            if self._held is None:
                self._intake.take(chunk)
            else:
                self._held.append(chunk)

    async def run(self) -> None:
        """Release what was kept back, in a task that begins after its spawn has returned."""
        self.release()

    def release(self) -> None:
        """Pass on what was kept back; again is fine."""
        held, self._held = self._held, None
        if held is not None:
            for chunk in held:
                self._intake.take(chunk)
            if self._is_finished:
                self._intake.finish()

    def finish(self) -> None:
        """Give what is unfinished to who wants it: there will be no more.

        Calling it again is fine.
        """
        if not self._is_finished:
            self._is_finished = True
            if self._held is None:
                self._intake.finish()

    def take_rest(self) -> None:
        """Pass on what was kept back: all else was fed already."""
        self.release()

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        self.release()
        return self._intake.tail()

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._intake.lines()

    def hear_lines(self, process: Process, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard that comes from now on."""
        return self._intake.hear(hear, self.take_rest)

    def close(self) -> None:
        """Take no more, and let go of what was opened. Calling it again is fine."""
        self.release()
        self.finish()
