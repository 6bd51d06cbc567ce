"""What a terminal can show: colours, a spinner, and lines that fit."""

import os
import re
from typing import Final

from rich.console import Console
from rich.spinner import Spinner
from rich.text import Text

# ECMA-48: to the first column, and erase the line.
ERASE_LINE: Final = "\r\x1b[2K"

# ECMA-48: back to the usual colours. A program may end a line without it.
_RESET: Final = "\x1b[0m"

# What moves the cursor, clears the screen or changes how the terminal works: control sequences but
# those for colours (SGR), and short escapes such as ESC c. Titles and links (OSC) may pass.
_UNRULY: Final = re.compile(
    r"(?:\x1b\[|\x9b)(?![0-9;:]*m)[0-?]*[ -/]*[@-~]?|\x1b[ -/]*[0-OQ-WYZ`-~]|[\b\v\f]"
)

_PREFIX_STYLE: Final = "cyan"
_STATUS_STYLE: Final = "dim"


class Paint:
    """Makes text for one stream; nothing but text where that is no terminal."""

    def __init__(self, fd: int) -> None:
        is_terminal = os.isatty(fd)
        self._console = Console(stderr=fd == 2, force_terminal=is_terminal, highlight=False)
        # https://no-color.org: not empty. Rich would still write bold and dim.
        self._coloured = is_terminal and not os.environ.get("NO_COLOR")
        self._is_terminal = is_terminal
        self.moves = is_terminal and not self._console.is_dumb_terminal
        self._spinner = Spinner("dots" if self._takes_unicode() else "line")

    def _takes_unicode(self) -> bool:
        return not self._console.options.ascii_only

    def prefix(self, text: str) -> str:
        """Paint what stands before a daemon's line."""
        return self._render(Text(text, _PREFIX_STYLE))

    @property
    def fresh_line(self) -> str:
        """What begins a line where a key may have been echoed, such as ^C."""
        if self.moves:
            return ERASE_LINE
        return "\n" if self._is_terminal else ""

    def passed_on(self, line: str) -> str:
        """Make a daemon's line harmless for a terminal; its colours stay, and end with it."""
        if not self._is_terminal:
            return line
        # Of a progress bar, which begins its line again and again, the last state.
        tame = _UNRULY.sub("", line).rstrip("\r").rpartition("\r")[2]
        return f"{tame}{_RESET}" if "\x1b" in tame or "\x9b" in tame else tame

    def status(self, text: str, seconds: float) -> str:
        """Make a line with the spinner as it is after some seconds, no wider than the terminal."""
        picture = self._spinner.render(seconds)
        assert isinstance(picture, Text)  # it has no text of its own, so it is no table
        line = Text.assemble(picture, " ", (text, _STATUS_STYLE))
        # A line that fills the last column would wrap, and could not be erased any more.
        line.truncate(max(1, self._console.width - 1), overflow="ellipsis")
        return self._render(line)

    def _render(self, text: Text) -> str:
        if not self._coloured:
            return text.plain
        with self._console.capture() as captured:
            self._console.print(text, end="", soft_wrap=True)
        return captured.get()
