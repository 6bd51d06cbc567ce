"""A page with a picture of what daemons were about: one file that needs nothing else."""

import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Final

from trio_lifecycle.observe._phases import PHASES, Life, Phase

# What the picture's shortest span is, so that one single event has a place in it.
_LEAST_SPAN_S: Final = 0.001

# Between marks of the axis: these times a power of ten, as on any ruler.
_STEPS: Final = (1, 2, 5, 10)
_MOST_MARKS: Final = 8

# From which part of the span on a mark of the axis is at its end.
_LATE: Final = 0.9

_OUTCOMES: Final = {
    "ready": "is up",
    "adopted": "ran before, is up",
    "stopped": "stopped",
    "left": "left running",
    "died": "died",
    "reaper_lost": "lost its reaper",
    "failed": "did not start",
    "given_up": "given up",
    "unseen": "out of sight",
}
_BAD: Final = frozenset({"died", "reaper_lost", "failed", "unseen"})


def page(lives: Sequence[Life]) -> str:
    """Draw the lives of daemons, and list how long each phase of them took.

    Args:
        lives: At least one.

    Returns:
        HTML that names no other file and runs no script.
    """
    scale = Scale(lives)
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            "<title>Timeline of daemons</title>",
            f"<style>\n{_style()}</style>",
            "</head>",
            "<body>",
            "<h1>Timeline of daemons</h1>",
            f'<p class="about">{_about(lives, scale)}</p>',
            '<div class="chart">',
            *_chart(lives, scale),
            "</div>",
            '<ul class="legend">',
            *_legend(lives),
            "</ul>",
            "<h2>In seconds</h2>",
            '<div class="scroll"><table>',
            *_table(lives),
            "</table></div>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _style() -> str:
    return Path(__file__).with_name("timeline.css").read_text(encoding="utf-8")


class Scale:
    """Where a moment stands in the picture.

    Attributes:
        begin: The first moment: seconds since the epoch.
        span: How many seconds there are.
    """

    def __init__(self, lives: Sequence[Life]) -> None:
        self.begin: float = min(life.begin for life in lives)
        self.span: float = max(*(life.end for life in lives), self.begin) - self.begin
        self.span = max(self.span, _LEAST_SPAN_S)

    def percent(self, seconds: float) -> str:
        """Give what part of the span this is."""
        return f"{100 * seconds / self.span:.4f}%"

    def left(self, moment: float) -> str:
        """Give where a moment is, from the left."""
        return self.percent(moment - self.begin)

    def marks(self) -> list[float]:
        """Give the seconds at which the axis has a mark."""
        unit = 10.0 ** math.floor(math.log10(self.span / _MOST_MARKS))
        step = next(unit * each for each in _STEPS if self.span / (unit * each) <= _MOST_MARKS)
        return [step * number for number in range(int(self.span / step) + 1)]


def _about(lives: Sequence[Life], scale: Scale) -> str:
    names = {(life.by, life.name) for life in lives}
    daemons = "1 daemon" if len(names) == 1 else f"{len(names)} daemons"
    starts = "1 start" if len(lives) == 1 else f"{len(lives)} starts"
    return f"{daemons}, {starts}, {seconds(scale.span)} s from {_moment(scale.begin)}"


def _moment(time: float) -> str:
    try:
        return f"{datetime.fromtimestamp(time, UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (OverflowError, OSError, ValueError):
        # A clock that was never set, or a stream that was written by hand.
        return f"second {time:g}"


def seconds(number: float) -> str:
    """Write seconds as exactly as they are worth it."""
    return f"{number:.0f}" if number >= 100 else f"{number:.2f}" if number >= 1 else f"{number:.3f}"


# --- the picture ----------------------------------------------------------------------------------


def _chart(lives: Sequence[Life], scale: Scale) -> Iterator[str]:
    yield f'<div></div><div class="axis">{"".join(_axis(scale))}</div>'
    ticks = "".join(
        f'<div class="tick" style="left:{scale.percent(at)}"></div>' for at in scale.marks()
    )
    for by, group in _by_starter(lives):
        if by:
            yield f'<div class="by">started by {escape(by)}</div>'
        for life in group:
            who = f"{escape(life.name)} <small>{escape(_where(life))}</small>"
            yield f'<div class="who" title="{escape(life.name)}">{who}</div>'
            bars = "".join(_bars(life, scale))
            yield f'<div class="lane">{ticks}{bars}{_mark(life, scale)}</div>'


def _axis(scale: Scale) -> Iterator[str]:
    for at in scale.marks():
        # At the right end there is room for its words only at its left.
        if at > _LATE * scale.span:
            place = f'class="late" style="right:{scale.percent(scale.span - at)}"'
        else:
            place = f'style="left:{scale.percent(at)}"'
        yield f"<span {place}>{at:g} s</span>"


def _by_starter(lives: Iterable[Life]) -> list[tuple[str, list[Life]]]:
    groups: dict[str, list[Life]] = {}
    for life in lives:
        groups.setdefault(life.by, []).append(life)
    return list(groups.items())


def _where(life: Life) -> str:
    process = "" if life.pid is None else str(life.pid)
    return f"{process} on {life.host}".strip() if life.host else process


def _bars(life: Life, scale: Scale) -> Iterator[str]:
    for phase in life.phases:
        goes_on = life.goes_on and phase is life.phases[-1]
        place = f"left:{scale.left(phase.begin)};width:{scale.percent(phase.seconds)}"
        kind = f"bar {phase.name}{' open' if goes_on else ''}"
        yield f'<div class="{kind}" style="{place}" title="{escape(_words(life, phase))}"></div>'


def _mark(life: Life, scale: Scale) -> str:
    """Mark where it went wrong: a bar that ends says nothing of why."""
    if life.outcome not in _BAD:
        return ""
    # What has died is cleaned up after: the mark stands where that begins.
    at = life.phases[-1].begin if life.phases[-1].name == "stop" else life.end
    # Within the lane, also at its end.
    place = f"left:min({scale.left(at)}, 100% - 1.3rem)"
    return f'<div class="mark" style="{place}" title="{escape(_outcome(life))}">✕</div>'


def _words(life: Life, phase: Phase) -> str:
    return f"{life.name}: {PHASES[phase.name]}, {seconds(phase.seconds)} s"


def _legend(lives: Iterable[Life]) -> Iterator[str]:
    seen = _seen(lives)
    for name, words in PHASES.items():
        if name in seen:
            yield f'<li class="{name}"><i></i>{name} <small>{words}</small></li>'


def _seen(lives: Iterable[Life]) -> set[str]:
    return {phase.name for life in lives for phase in life.phases}


# --- the table ------------------------------------------------------------------------------------


def _table(lives: Sequence[Life]) -> Iterator[str]:
    seen = _seen(lives)
    phases = [name for name in PHASES if name in seen]
    columns = {
        "daemon": [life.name for life in lives],
        "started by": [life.by for life in lives],
        "machine": [life.host for life in lives],
        "process": ["" if life.pid is None else str(life.pid) for life in lives],
    }
    # What no event tells has no column.
    known = {head: facts for head, facts in columns.items() if any(facts)}
    cells = [f"<th>{head}</th>" for head in known]
    cells += [f'<th class="number">{name}</th>' for name in phases]
    yield f"<tr>{''.join(cells)}<th>outcome</th></tr>"
    for number, life in enumerate(lives):
        cells = [f"<td>{escape(facts[number])}</td>" for facts in known.values()]
        cells += [f'<td class="number">{_figure(life.seconds_of(name))}</td>' for name in phases]
        kind = "reason bad" if life.outcome in _BAD else "reason"
        yield f'<tr>{"".join(cells)}<td class="{kind}">{escape(_outcome(life))}</td></tr>'


def _figure(number: float | None) -> str:
    return "" if number is None else seconds(number)


def _outcome(life: Life) -> str:
    words = _OUTCOMES.get(life.outcome, "goes on")
    if (life.outcome, life.rung) == ("stopped", "SIGKILL"):
        words = "killed"
    return f"{words}: {life.reason}" if life.reason else words
