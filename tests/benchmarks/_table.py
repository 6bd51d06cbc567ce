"""A table of figures, with a goal for some of them."""

from collections.abc import Sequence
from statistics import median

from attrs import Factory, frozen


@frozen
class Row:
    """One line of a table.

    Attributes:
        cells: What stands under the table's own heads.
        value: The figure that the goal is about.
        goal: What the figure may be at most; None where nothing is asked of it.
    """

    cells: tuple[str, ...]
    value: float = 0.0
    goal: float | None = None

    @property
    def verdict(self) -> tuple[str, str]:
        """The goal and whether it is met, as they are printed."""
        if self.goal is None:
            return "", ""
        return f"<= {self.goal:g}", "met" if self.value <= self.goal else "NOT MET"


@frozen
class Table:
    """Figures that belong together.

    Attributes:
        title: What was measured, and in which unit.
        heads: The heads of the columns, without those of goal and verdict.
        rows: The figures.
        notes: What a reader must know to judge them.
    """

    title: str
    heads: tuple[str, ...]
    rows: Sequence[Row]
    notes: Sequence[str] = Factory(tuple)

    def __str__(self) -> str:
        lines = [(*self.heads, "goal", "")] + [(*row.cells, *row.verdict) for row in self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        body = [_line(cells, widths) for cells in lines]
        rule = "  ".join("-" * width for width in widths)
        return "\n".join([self.title, "", body[0], rule, *body[1:], "", *self.notes])


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    """Words to the left, figures to the right."""
    pairs = zip(cells, widths, strict=True)
    return "  ".join(c.rjust(w) if c[:1].isdigit() else c.ljust(w) for c, w in pairs).rstrip()


def percentile_90(values: Sequence[float]) -> float:
    """Give the value that a tenth of them exceed."""
    return sorted(values)[int(len(values) * 0.9)]


def middle(values: Sequence[float]) -> float:
    """Give the median: a colleague's test that ran at the same time moves a mean, but not it."""
    return median(values)
