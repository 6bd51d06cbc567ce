"""What a campaign found, as a table: a row for each fault."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Final

from tests.chaos.campaign import Outcome

_HEADS: Final = (
    *("fault", "rounds", "survivors", "hurt", "late", "p50 s", "max s", "beyond the ladder s"),
    "failing seeds",
)


class Report:
    """Collects rounds.

    Attributes:
        failing: The rounds that went wrong.
    """

    def __init__(self) -> None:
        self._rounds: dict[str, list[tuple[Outcome, list[str]]]] = {}
        self.failing: list[tuple[Outcome, list[str]]] = []

    def add(self, outcome: Outcome, hurt: list[str]) -> None:
        """Take in a round, with the bystanders that were hurt in it."""
        self._rounds.setdefault(outcome.fault, []).append((outcome, hurt))
        if outcome.survivors or outcome.troubles or hurt:
            self.failing.append((outcome, hurt))

    def __str__(self) -> str:
        rows = [_HEADS, *(_row(name, rounds) for name, rounds in self._rounds.items())]
        rows.append(_row("all", [each for rounds in self._rounds.values() for each in rounds]))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join(lines)


def _row(name: str, rounds: Sequence[tuple[Outcome, list[str]]]) -> tuple[str, ...]:
    outcomes = [outcome for outcome, _ in rounds]
    seconds = [outcome.seconds for outcome in outcomes] or [0.0]
    return (
        name,
        str(len(rounds)),
        _total(outcome.survivors for outcome in outcomes),
        _total(hurt for _, hurt in rounds),
        str(sum(outcome.late for outcome in outcomes)),
        f"{median(seconds):.2f}",
        f"{max(seconds):.2f}",
        f"{max((outcome.over_s for outcome in outcomes), default=0.0):.2f}",
        " ".join(str(o.seed) for o, hurt in rounds if o.survivors or o.troubles or hurt),
    )


def _total(lists: Iterable[list[str]]) -> str:
    return str(sum(map(len, lists)))


def describe(outcome: Outcome, hurt: Sequence[str], plan: object) -> str:
    """Say all of a round that went wrong."""
    lines = [f"FAILED: {plan}"]
    lines += [f"  survivor: {survivor}" for survivor in outcome.survivors]
    lines += [f"  bystander hurt: {one}" for one in hurt]
    lines += [f"  {trouble}" for trouble in outcome.troubles]
    return "\n".join(lines)
