"""The demo's table: as much of each daemon as its terminal has room for."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from attrs import frozen
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from trio_lifecycle._cli._demo_rows import Row
from trio_lifecycle._cli._sentences import printable
from trio_lifecycle._cli._tables import empty_table

_STYLES: Final = {
    "ready": "green",
    "gone": "dim",
    "killed": "dim",
    "died": "red",
    "failed": "red",
    "unseen": "magenta",
}
_AWAITED: Final = "yellow"


@frozen
class _Column:
    """A column.

    Attributes:
        head: What stands above it.
        cell: What it says of a daemon, at this time.
        worth: How long it is kept where there is little room; the lowest goes first.
        is_number: Whether it stands at the right.
    """

    head: str
    cell: Callable[[Row, float], Text]
    worth: int
    is_number: bool = False


def _state(row: Row, _now: float) -> Text:
    return Text(row.state, _AWAITED if row.is_awaited else _STYLES.get(row.state, ""))


def _pid(row: Row, _now: float) -> Text:
    return Text("" if row.pid is None else str(row.pid))


def _ready_after(row: Row, now: float) -> Text:
    if row.ready_after_s is not None:
        return Text(f"{row.ready_after_s:.2f} s")
    # A wait that goes on is seen to go on.
    return Text(f"{max(now - row.since, 0):.1f} s ...", "dim") if row.is_awaited else Text()


def _memory(row: Row, _now: float) -> Text:
    return Text("" if row.memory_mib is None else f"{row.memory_mib} MiB")


_COLUMNS: Final = (
    _Column("program", lambda row, _: Text("  " * row.depth + printable(row.name)), 6),
    _Column("state", _state, 5),
    _Column("process", _pid, 3, is_number=True),
    _Column("ready after", _ready_after, 4, is_number=True),
    _Column("memory", _memory, 1, is_number=True),
    _Column("machine", lambda row, _: Text(printable(row.host)), 2),
)


def table(rows: Sequence[Row], now: float, width: int | None) -> Table:
    """Draw the table.

    Args:
        rows: The daemons.
        now: Seconds since the epoch.
        width: For how many columns of a terminal; None is for any number of them.
    """
    columns = [each for each in _COLUMNS if each.head != "machine" or any(r.host for r in rows)]
    drawn = _draw(columns, rows, now)
    while width is not None and len(columns) > 1 and _width(drawn) > width:
        columns.remove(min(columns, key=lambda each: each.worth))
        drawn = _draw(columns, rows, now)
    return drawn


def _width(drawn: Table) -> int:
    unbounded = Console(width=10_000)
    return Measurement.get(unbounded, unbounded.options, drawn).maximum


def _draw(columns: Iterable[_Column], rows: Sequence[Row], now: float) -> Table:
    drawn = empty_table()
    for each in columns:
        justify = "right" if each.is_number else "left"
        drawn.add_column(each.head, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for row in rows:
        drawn.add_row(*(each.cell(row, now) for each in columns))
    return drawn
