"""Tables for people: as wide as their terminal, in full where there is none."""

import io
import os
from typing import IO, Final

from rich.console import Console, RenderableType
from rich.measure import Measurement
from rich.table import Table

# Where there is no terminal to fill, nothing is cut off: wider than the longest command line, and
# than all that a record can hold.
_UNBOUNDED_COLUMNS: Final = 2_000_000

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def empty_table() -> Table:
    """Give a table without lines around it."""
    return Table(box=None, pad_edge=False, header_style="bold")


def fits(table: Table, fd: int) -> bool:
    """Whether all of a table can be seen on what this descriptor is."""
    console = _console(fd, io.StringIO())
    unbounded = console.options.update(max_width=_UNBOUNDED_COLUMNS)
    return Measurement.get(console, unbounded, table).maximum <= console.width


def render(what: RenderableType, fd: int, *, folds: bool = True) -> str:
    """Write a table as wide as the terminal that this descriptor is; in full if it is none.

    Args:
        what: The table, or a text.
        fd: Where it will be written.
        folds: Whether it is made to fit; else that is left to the terminal.
    """
    text = io.StringIO()
    _console(fd, text).print(what, soft_wrap=not folds)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _console(fd: int, file: IO[str]) -> Console:
    is_terminal = os.isatty(fd)
    # https://no-color.org: not empty.
    coloured = is_terminal and not os.environ.get("NO_COLOR")
    return Console(
        file=file,
        force_terminal=is_terminal,
        color_system="auto" if coloured else None,
        width=None if is_terminal else _UNBOUNDED_COLUMNS,
        highlight=False,
    )


def in_words(seconds: float) -> str:
    """Say how long something has lasted, in the greatest unit of which there is one whole."""
    name, unit = next(((n, u) for n, u in _UNITS if seconds >= u), _UNITS[-1])
    return f"{seconds // unit:.0f} {name}"
