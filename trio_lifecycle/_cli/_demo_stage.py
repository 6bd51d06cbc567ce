"""What a person sees of the demo: a table that changes, and the text as it is made."""

import os
import time
from collections.abc import Callable, Sequence
from typing import IO, Any, cast

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from trio_lifecycle._cli._demo_rows import Row
from trio_lifecycle._cli._demo_table import table
from trio_lifecycle._cli._display import next_word_s
from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import ERASE_LINE
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._speech import STDOUT
from trio_lifecycle._cli._tables import render


class Stage:
    """Shows the programs at work.

    On a terminal a table is drawn anew with each change; elsewhere a line is written for each step.

    Args:
        outlet: Where to write.

    Attributes:
        moves: Whether what is shown can be changed.
    """

    def __init__(self, outlet: Outlet) -> None:
        is_terminal = os.isatty(STDOUT)
        # https://no-color.org: not empty.
        coloured = is_terminal and not os.environ.get("NO_COLOR")
        self._outlet = outlet
        self._console = Console(
            file=cast("IO[str]", _File(outlet)),
            force_terminal=is_terminal,
            color_system="auto" if coloured else None,
            highlight=False,
        )
        self.moves = is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._steps = _Steps(self.say)
        self._rows: Sequence[Row] = ()
        self._text = ""
        self._begin = ""

    def begin(self) -> None:
        """Begin to draw."""
        if self.moves:
            self._live.start()

    def end(self) -> None:
        """Leave the last picture where it is."""
        if self.moves:
            self._live.stop()
        if self._rows:
            self._outlet.write(render(self._table(), STDOUT))

    def show_rows(self, rows: Sequence[Row]) -> None:
        """Show how the daemons are."""
        self._rows = rows
        if self.moves:
            self._draw()
        else:
            self._steps.show(rows)

    def say(self, text: str) -> None:
        """Write a line, above what moves."""
        self._console.print(Text(printable(text)), soft_wrap=not self._console.is_terminal)

    def pass_on(self, text: str) -> None:
        """Write above what moves what was meant for standard error, on the same terminal."""
        for line in text.removeprefix(ERASE_LINE).splitlines():
            self.say(line)

    def begin_text(self, text: str) -> None:
        """Begin the text that is made."""
        self._text = self._begin = text

    def go_on(self, word: str) -> None:
        """Add to the text."""
        self._text += word
        self._draw()

    def end_text(self) -> None:
        """Keep the text above what moves."""
        text, self._text = self._text, ""
        if text != self._begin:
            self.say(text)
        self._draw()

    def _table(self) -> Table:
        return table(self._rows, time.time(), self._console.width if self.moves else None)

    def _draw(self) -> None:
        if self.moves and self._live.is_started:
            parts: list[Any] = [self._table()] if self._rows else []
            parts += ["", *self._last_lines()] if self._text else []
            self._live.update(Group(*parts), refresh=True)

    def _last_lines(self) -> list[Text]:
        """Give as many of the text's last lines as there is room for below the table."""
        lines = Text(printable(self._text)).wrap(self._console, self._console.width)
        # The head of the table, the empty line, and the one where the cursor is.
        room = self._console.height - len(self._rows) - 3
        return list(lines)[-max(room, 1) :]


class _Steps:
    """Tells of changes by a line each, where no line can be changed, and of waits now and then."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: dict[str, str] = {}
        self._due_s: dict[str, float] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """Tell what is new."""
        for row in rows:
            waited_s = time.time() - row.since
            if self._told.get(row.name) != row.state:
                self._told[row.name] = row.state
                self._due_s[row.name] = next_word_s(0)
                self._say(f"  {_step(row)}")
            elif row.is_awaited and waited_s >= self._due_s[row.name]:
                self._due_s[row.name] = next_word_s(waited_s)
                self._say(f"  {row.name}: {row.state} ({waited_s:.0f} s)")


def _step(row: Row) -> str:
    words = f"{row.name}: {row.state}"
    if row.state != "ready" or row.ready_after_s is None:
        return words
    there = f" on {row.host}" if row.host else ""
    return f"{words}, process {row.pid}{there}, after {row.ready_after_s:.2f} s"


class _File:
    """A file for Rich, whose writes wait for nobody."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def write(self, text: str) -> int:
        """Hand it on."""
        self._outlet.write(text)
        return len(text)

    def flush(self) -> None:
        """Nothing is kept back."""

    def isatty(self) -> bool:
        """Whether it is one is known elsewhere."""
        return os.isatty(STDOUT)
