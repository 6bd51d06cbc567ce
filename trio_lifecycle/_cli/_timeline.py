"""``trio-lifecycle timeline``: a picture of what daemons were about, from their events."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from trio_lifecycle._cli._codes import ALL_WELL, NO_EVENTS, NOT_WRITTEN
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._speech import STDIN, answer, say
from trio_lifecycle._cli._timeline_page import page
from trio_lifecycle.observe._phases import lives

USAGE: Final = "trio-lifecycle timeline [EVENTS] [-o PAGE]"

# Where standard input may be named instead of a file.
_STDIN: Final = "standard input"


@frozen(kw_only=True)
class Timeline:
    """One drawing, from the options as they were written to the exit status.

    Attributes:
        source: The file with the events, one JSON object a line; None is standard input.
        page: Where the page is written; None is standard output.
    """

    source: str | None
    page: str | None

    def __call__(self) -> int:
        """Read, draw and write.

        Returns:
            The exit status.
        """
        try:
            lines = self._read()
        except OSError as error:
            say(f"{self._name} can't be read: {error.strerror or error}")
            return NO_EVENTS
        return self._draw(lines, self.page)

    @property
    def _name(self) -> str:
        return _STDIN if self.source is None else printable(self.source)

    def _read(self) -> list[str]:
        source = STDIN if self.source is None else self.source
        with open(source, "rb") as file:  # noqa: PTH123  # it may be a descriptor
            # Other ends of a line, such as U+2028, may stand within one.
            return file.read().decode(errors="replace").split("\n")

    def _draw(self, lines: list[str], target: str | None) -> int:
        entries = list(entries_in(lines))
        found = lives(entries)
        if not found:
            say(
                f"{self._name} has no events of daemons: "
                "it takes what run, ensure and demo write with --json"
            )
            return NO_EVENTS
        strangers = sum(bool(line.strip()) for line in lines) - len(entries)
        if strangers:
            some = "1 line was" if strangers == 1 else f"{strangers} lines were"
            say(f"{some} left out of {self._name}: no JSON objects")
        return write_page(target, page(found))


def entries_in(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Give the JSON objects among some lines; the last one may have been cut off."""
    for line in lines:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(entry, dict):
            yield entry


def write_page(target: str | None, text: str) -> int:
    """Write a page, whole or not at all; say so where that can't be done.

    Returns:
        The exit status.
    """
    if target is None:
        return answer(text)
    try:
        _replace(Path(target), text)
    except OSError as error:
        say(f"{printable(target)} can't be written: {error.strerror or error}")
        return NOT_WRITTEN
    return ALL_WELL


def _replace(path: Path, text: str) -> None:
    if path.exists() and not path.is_file():
        # A pipe, such as /dev/stdout; what that is a link to has no name.
        path.write_text(text, encoding="utf-8")
        return
    path = path.resolve()
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        half.write_text(text, encoding="utf-8")
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)
