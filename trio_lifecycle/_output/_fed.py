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

    Attributes:
        heard_at: When something was fed last, on Trio's clock; None before.

    Raises:
        OSError: The file that it is to go to can't be opened.
    """

    def __init__(self, name: str, output: Output, secrets: Iterable[str] = ()) -> None:
        self._intake = Intake(name, output, secrets)
        self._is_finished = False
        self.heard_at: float | None = None

    def feed(self, chunk: bytes) -> None:
        """Take what the daemon wrote; what comes after the end is dropped."""
        if chunk and not self._is_finished:
            self.heard_at = trio.current_time()
            self._intake.take(chunk)

    def finish(self) -> None:
        """Give what is unfinished to who wants it: there will be no more.

        Calling it again is fine.
        """
        if not self._is_finished:
            self._is_finished = True
            self._intake.finish()

    def take_rest(self) -> None:
        """Do nothing: what there is was fed already."""

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        return self._intake.tail()

    def lines(self, process: Process) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._intake.lines()

    def hear_lines(self, process: Process, hear: Callable[[list[str]], None]) -> Hearing:
        """Have every line heard that comes from now on."""
        return self._intake.hear(hear, self.take_rest)

    def close(self) -> None:
        """Take no more, and let go of what was opened. Calling it again is fine."""
        self.finish()
