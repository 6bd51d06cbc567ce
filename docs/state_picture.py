"""The table of a daemon's states as a picture and as a table, drawn when the pages are built.

Both come from ``TRANSITIONS``, so they cannot fall behind it. What a picture needs besides, where
each state stands, is given here; a state that has no place fails the build.

Two directives: ``state-picture`` and ``state-table``.
"""

from html import escape
from typing import Any, Final, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive

from trio_lifecycle._states import TRANSITIONS, State

# Column and row of each state.
PLACES: Final = {
    State.NEW: (0.0, 0.0),
    State.LOOKING: (1.0, 0.0),
    State.PREPARING: (2.0, 0.0),
    State.WAITING: (3.3, 0.0),
    State.READY: (4.6, 0.0),
    State.LEFT: (6.0, 0.0),
    State.DEAD: (3.3, 1.15),
    State.UNSEEN: (4.6, 1.15),
    State.STOPPING: (6.0, 1.15),
    State.FAILED: (1.5, 2.0),
    State.STOPPED: (5.5, 2.0),
}
# What these have in common is drawn once, from a frame around them.
ALIVE: Final = (State.WAITING, State.READY, State.LEFT)
# How far an arrow swings out upwards, where another state stands in its way.
BENT: Final = {(State.LOOKING, State.READY): 62.0}
# How far an arrow stands to the left of one that comes from the frame.
SHIFTED: Final = {(State.WAITING, State.DEAD): 30.0}
# Where there is no room on the right for an arrow that leads back to its state.
LOOPS_ON_TOP: Final = (State.WAITING, State.READY)
LOOPS_BELOW: Final = (State.LOOKING, State.DEAD)

COLUMN, ROW = 166.0, 105.0
WIDTH, HEIGHT = 96.0, 34.0
MARGIN_X, MARGIN_TOP, MARGIN_BOTTOM = 62.0, 84.0, 32.0
FRAME = 22.0
# Room for the label of an arrow that leads back to its state.
SELF_LABEL = 96.0


Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle: its middle, and half of its width and height."""

    x: float
    y: float
    half_width: float
    half_height: float

    def border_towards(self, x: float, y: float) -> Point:
        """Give the point of the border where a line from the middle to a place leaves it."""
        dx, dy = x - self.x, y - self.y
        reach = max(abs(dx) / self.half_width, abs(dy) / self.half_height, 1e-9)
        return self.x + dx / reach, self.y + dy / reach


def box_of(state: State) -> Box:
    """Give a state's rectangle."""
    column, row = PLACES[state]
    return Box(MARGIN_X + column * COLUMN, MARGIN_TOP + row * ROW, WIDTH / 2, HEIGHT / 2)


def frame_of(states: tuple[State, ...]) -> Box:
    """Give the frame around some states of one row."""
    boxes = [box_of(state) for state in states]
    left, right = min(box.x for box in boxes), max(box.x for box in boxes)
    half_width, half_height = (right - left) / 2 + WIDTH / 2 + FRAME, HEIGHT / 2 + FRAME
    return Box((left + right) / 2, boxes[0].y, half_width, half_height)


def shared_moves(states: tuple[State, ...]) -> dict[str, State]:
    """Give the moves that all of these states have."""
    first, *others = (TRANSITIONS[state] for state in states)
    return {
        kind: target
        for kind, target in first.items()
        if all(other.get(kind) is target for other in others)
    }


def draw() -> str:
    """Give the picture as SVG."""
    missing = set(TRANSITIONS) - set(PLACES)
    if missing:
        raise ValueError(f"docs/state_picture.py gives no place to {sorted(map(str, missing))}")
    shared = shared_moves(ALIVE)
    frame = frame_of(ALIVE)
    parts = [_rectangle(frame, "frame")]
    for state, moves in TRANSITIONS.items():
        own = {
            kind: target
            for kind, target in moves.items()
            if not (state in ALIVE and shared.get(kind) is target)
        }
        for target in dict.fromkeys(own.values()):
            # What leads to the same state is one arrow.
            kinds = ", ".join(kind for kind in own if own[kind] is target)
            parts.append(_arrow(state, target, kinds))
    parts += [_arrow_from_frame(frame, target, kind) for kind, target in shared.items()]
    for state in TRANSITIONS:
        box = box_of(state)
        parts += [_rectangle(box, "state"), _text(box.x, box.y + 5, state.value, "name")]
    width = max(box_of(state).x for state in PLACES) + MARGIN_X + SELF_LABEL
    height = max(box_of(state).y for state in PLACES) + MARGIN_BOTTOM
    return _SVG.format(width=width, height=height, parts="\n".join(parts))


def _arrow(start: State, end: State, kind: str) -> str:
    here, there = box_of(start), box_of(end)
    if start is end and start in LOOPS_ON_TOP:
        x, y = here.x, here.y - here.half_height
        path = _curve((x + 28, y), (x + 30, y - 22), (x + 10, y - 22), (x + 12, y - 3))
        return path + _text(x + 33, y - 7, kind, "kind", anchor="start")
    if start is end and start in LOOPS_BELOW:
        x, y = here.x, here.y + here.half_height
        path = _curve((x - 28, y), (x - 32, y + 26), (x - 8, y + 26), (x - 12, y + 3))
        return path + _lines(x - 36, y + 18, kind, "end")
    if start is end:
        x, y = here.x + here.half_width, here.y
        path = _curve((x, y - 8), (x + 38, y - 24), (x + 38, y + 24), (x + 3, y + 8))
        # The middle beside the arrow.
        return path + _lines(x + 34, y + 4 - 8 * kind.count(", "), kind, "start")
    if (start, end) in BENT:
        top = here.y - here.half_height
        high = top - BENT[start, end]
        path = _curve((here.x, top), (here.x, high), (there.x, high), (there.x, top - 3))
        # The curve comes three quarters of the way up.
        return path + _text((here.x + there.x) / 2, top * 0.25 + high * 0.75 - 6, kind, "kind")
    if (start, end) in SHIFTED:
        x, bottom = here.x - SHIFTED[start, end], here.y + here.half_height
        path = _path(f"M {x:.1f} {bottom:.1f} L {x:.1f} {there.y - there.half_height - 3:.1f}")
        return path + _text(x - 5, (bottom + there.y) / 2, kind, "kind", anchor="end")
    return _line(here.border_towards(there.x, there.y), there.border_towards(here.x, here.y), kind)


def _lines(x: float, first: float, kinds: str, anchor: str) -> str:
    """Write what leads back to its state, one below the other."""
    return "".join(
        _text(x, first + 16 * number, kind, "kind", anchor)
        for number, kind in enumerate(kinds.split(", "))
    )


def _arrow_from_frame(frame: Box, target: State, kind: str) -> str:
    there = box_of(target)
    top = (there.x, there.y - there.half_height)
    return _line((there.x, frame.y + frame.half_height), top, kind)


def _line(start: Point, end: Point, kind: str) -> str:
    (x1, y1), (x2, y2) = start, end
    length = max(((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5, 1e-9)
    # The head of the arrow ends at the border, not in it.
    x, y = x2 - 3 * (x2 - x1) / length, y2 - 3 * (y2 - y1) / length
    lift = -5 if abs(y2 - y1) < 1 else 4
    # Not at half: there the labels of a long arrow and of a short one meet.
    at = x1 + (x2 - x1) * 0.45, y1 + (y2 - y1) * 0.4 + lift
    return _path(f"M {x1:.1f} {y1:.1f} L {x:.1f} {y:.1f}") + _text(*at, kind, "kind")


def _curve(start: Point, *bends_and_end: Point) -> str:
    places = ", ".join(f"{x:.1f} {y:.1f}" for x, y in bends_and_end)
    return _path(f"M {start[0]:.1f} {start[1]:.1f} C {places}")


def _path(path: str) -> str:
    return f'<path class="arrow" d="{path}" marker-end="url(#state-arrow)"/>'


def _rectangle(box: Box, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{box.x - box.half_width:.1f}" y="{box.y - box.half_height:.1f}" '
        f'width="{2 * box.half_width:.1f}" height="{2 * box.half_height:.1f}" rx="7"/>'
    )


def _text(x: float, y: float, text: str, kind: str, anchor: str = "middle") -> str:
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


_SVG: Final = """\
<svg class="states" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"
 role="img" aria-label="The states of a daemon, and the events that lead from one to the next">
<style>
.states {{ width: 100%; color: var(--color-foreground-primary, #222); font-family: inherit; }}
.states rect.state {{ fill: var(--color-background-secondary, #f4f4f4); stroke: currentColor; }}
.states rect.frame {{ fill: none; stroke: currentColor; stroke-dasharray: 5 4; }}
.states path.arrow {{ fill: none; stroke: currentColor; stroke-width: 1.2; }}
.states text {{ fill: currentColor; font-size: 14px; }}
.states text.name {{ font-weight: bold; }}
.states text.kind {{ font-style: italic; font-size: 13px; stroke-width: 5px; paint-order: stroke;
 stroke: var(--color-background-primary, #fff); stroke-linejoin: round; }}
</style>
<defs><marker id="state-arrow" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="8" markerHeight="8"
 orient="auto"><path d="M 0 0 L 8 4 L 0 8 z" fill="currentColor"/></marker></defs>
{parts}
</svg>
"""


class StatePicture(Directive):
    """Puts the picture into a page; other formats than HTML have the table."""

    def run(self) -> list[nodes.Node]:
        """Give the picture."""
        return [nodes.raw("", draw(), format="html")]


class StateTable(Directive):
    """Puts the table into a page."""

    def run(self) -> list[nodes.Node]:
        """Give one row for each state."""
        table = nodes.table()
        group = nodes.tgroup(cols=2)
        table += group
        group += [nodes.colspec(colwidth=20), nodes.colspec(colwidth=80)]
        head, body = nodes.thead(), nodes.tbody()
        group += [head, body]
        head += _row(
            nodes.paragraph("", "state"), nodes.paragraph("", "event, and the state after it")
        )
        for state, moves in TRANSITIONS.items():
            body += _row(nodes.paragraph("", "", nodes.strong("", state.value)), _moves(moves))
        return [table]


def _row(*cells: nodes.Node) -> nodes.row:
    return nodes.row("", *(nodes.entry("", cell) for cell in cells))


def _moves(moves: dict[str, State]) -> nodes.paragraph:
    if not moves:
        return nodes.paragraph("", "none: this is the end")
    texts: list[nodes.Node] = []
    for kind, target in moves.items():
        texts += [nodes.Text(", " if texts else ""), nodes.emphasis("", kind)]
        texts.append(nodes.Text(f" → {target.value}"))
    return nodes.paragraph("", "", *texts)


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx of the directives."""
    app.add_directive("state-picture", StatePicture)
    app.add_directive("state-table", StateTable)
    return {"parallel_read_safe": True}
