"""The intake of output: what a daemon wrote, on its way to everybody who wants it."""

from collections.abc import AsyncIterator, Callable, Iterable

from trio_lifecycle._destination import Output
from trio_lifecycle._framing import LineFramer
from trio_lifecycle._output._lines import Lines
from trio_lifecycle._output._sink import Destination
from trio_lifecycle._output._tail import Tail
from trio_lifecycle._secrets import Secrets
from trio_lifecycle.abc import Hearing


class Intake:
    """Keeps the end of the output, cuts it into lines and passes it on.

    Args:
        name: The daemon's name.
        output: Who wants it.
        secrets: What nobody gets.

    Raises:
        OSError: The file that it is to go to can't be opened.
    """

    def __init__(self, name: str, output: Output, secrets: Iterable[str]) -> None:
        known = Secrets(secrets)
        # Before it is cut into lines or to a tail, which could cut a secret.
        self._blotter = known.bytes_blotter() if known else None
        self._destination = Destination(name, output)
        self._tail = Tail(output.tail_bytes)
        self._framer = LineFramer()
        self._lines = Lines()
        # Who hears all for the ready mode hears secrets, too: the URL that a line tells may hold
        # one, and is needed as it is.
        self._heard = Lines() if known else self._lines
        self._heard_framer = LineFramer()

    def take(self, chunk: bytes) -> None:
        """Take a chunk in."""
        self._take(chunk, is_last=False)

    def finish(self) -> None:
        """Give what is unfinished to who wants it: there will be no more.

        Calling it again is fine.
        """
        self._take(b"", is_last=True)
        self._pass_on(self._framer.close())
        self._heard.feed(self._heard_framer.close())
        self._destination.close()
        self._lines.close()
        self._heard.close()

    def tail(self) -> bytes:
        """Give the end of the output so far."""
        return bytes(self._tail)

    def lines(self) -> AsyncIterator[str]:
        """Give the lines that come from now on."""
        return self._lines.read()

    def hear(self, hear: Callable[[list[str]], None], look: Callable[[], None]) -> Hearing:
        """Have every line heard that comes from now on.

        Args:
            hear: It is called with them.
            look: Takes in what is there by now.
        """
        return self._heard.hear(hear, look)

    def _take(self, chunk: bytes, *, is_last: bool) -> None:
        if self._blotter is not None:
            self._have_heard(chunk)
            chunk = self._blotter.close() if is_last else self._blotter.feed(chunk)
        self._tail.feed(chunk)
        self._destination.feed(chunk)
        if self._destination.takes_lines or self._lines.wanted:
            self._pass_on(self._framer.feed(chunk))
        else:
            self._framer.skip(chunk)

    def _have_heard(self, chunk: bytes) -> None:
        if self._heard.wanted:
            self._heard.feed(self._heard_framer.feed(chunk))
        else:
            self._heard_framer.skip(chunk)

    def _pass_on(self, lines: list[str]) -> None:
        self._destination.feed_lines(lines)
        self._lines.feed(lines)
