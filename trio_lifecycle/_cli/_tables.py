"""Tables for people: as wide as their terminal, in full where there is none."""

import io
import os
from typing import Final

from rich.console import Console
from rich.table import Table

# Where there is no terminal to fill, nothing is cut off: wider than the longest command line.
_UNBOUNDED_COLUMNS: Final = 1000

_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def empty_table() -> Table:
    """Give a table without lines around it."""
    return Table(box=None, pad_edge=False, header_style="bold")


def render(table: Table, fd: int) -> str:
    """Write a table as wide as the terminal that this descriptor is; in full if it is none."""
    is_terminal = os.isatty(fd)
    # https://no-color.org: not empty.
    coloured = is_terminal and not os.environ.get("NO_COLOR")
    text = io.StringIO()
    console = Console(
        file=text,
        force_terminal=is_terminal,
        color_system="auto" if coloured else None,
        width=None if is_terminal else _UNBOUNDED_COLUMNS,
        highlight=False,
    )
    console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def in_words(seconds: float) -> str:
    """Say how long something has lasted, in the greatest unit of which there is one whole."""
    name, unit = next(((n, u) for n, u in _UNITS if seconds >= u), _UNITS[-1])
    return f"{seconds // unit:.0f} {name}"
