"""Who watches whom, so that nothing is left: a picture, drawn when the pages are built.

One directive: ``guarantee-picture``. Where each box stands is given here, and an arrow is drawn
from border to border.
"""

from html import escape
from typing import Any, Final, Literal, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive

# By the module that draws the states, so that both pictures have the same boxes.
from state_picture import Box, Point

Anchor = Literal["start", "middle", "end"]

WIDTH, HEIGHT = 850, 372
PROGRAM: Final = Box(92, 92, 80, 24)
INNER: Final = Box(400, 92, 76, 24)
OUTER: Final = Box(400, 286, 76, 24)
FRAME: Final = Box(722, 134, 110, 114)
BOXES: Final = (
    ("your program", PROGRAM),
    ("inner reaper", INNER),
    ("outer reaper", OUTER),
    ("daemon", Box(672, 92, 44, 19)),
    ("daemon", Box(772, 92, 44, 19)),
    ("its child", Box(772, 152, 44, 19)),
    ("stray", Box(672, 212, 44, 19)),
)


class Arrow(NamedTuple):
    """An arrow with its label, and where that stands."""

    start: Point
    end: Point
    label: str
    at: Point
    kind: Literal["acts", "watches"]
    anchor: Anchor = "middle"
    both_ways: bool = False


ARROWS: Final = (
    Arrow((175, 82), (321, 82), "socket", (248, 73), "acts", both_ways=True),
    Arrow((324, 104), (175, 104), "watches", (248, 122), "watches"),
    Arrow((476, 92), (609, 92), "starts, signals", (543, 83), "acts"),
    Arrow((772, 111), (772, 130), "", (0, 0), "acts"),
    Arrow((626, 206), (474, 118), "orphans go here", (550, 163), "acts"),
    Arrow((626, 220), (479, 276), "if inner is killed, here", (541, 257), "acts"),
    Arrow((372, 116), (372, 259), "watches", (364, 192), "watches", "end"),
    Arrow((428, 262), (428, 119), "watches", (436, 208), "watches", "start"),
    Arrow((324, 276), (112, 119), "watches", (208, 206), "watches"),
)


def draw() -> str:
    """Give the picture as SVG."""
    parts = [_rectangle(FRAME, "frame")]
    parts.append(_text(FRAME.x, 44, "daemons, and what they start", "title"))
    # The labels come last, and keep a rim around them free of what they cross.
    parts += [_arrow(arrow) for arrow in ARROWS]
    for name, box in BOXES:
        parts += [_rectangle(box, "box"), _text(box.x, box.y + 5, name, "name")]
    parts.append(_text(728, 209, "its parent", "kind", "start"))
    parts.append(_text(728, 225, "has ended", "kind", "start"))
    parts += [_text(*arrow.at, arrow.label, "kind", arrow.anchor) for arrow in ARROWS]
    parts.append('<path class="watches" d="M 12 348 L 66 348" marker-end="url(#guard-arrow)"/>')
    parts.append(_text(78, 353, LEGEND, "kind", "start"))
    return _SVG.format(
        width=WIDTH, height=HEIGHT, description=escape(DESCRIPTION), parts="\n".join(parts)
    )


def _arrow(arrow: Arrow) -> str:
    (x1, y1), (x2, y2) = arrow.start, arrow.end
    start = ' marker-start="url(#guard-arrow)"' if arrow.both_ways else ""
    return (
        f'<path class="{arrow.kind}" d="M {x1} {y1} L {x2} {y2}"{start} '
        'marker-end="url(#guard-arrow)"/>'
    )


def _rectangle(box: Box, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{box.x - box.half_width}" y="{box.y - box.half_height}" '
        f'width="{2 * box.half_width}" height="{2 * box.half_height}" rx="7"/>'
    )


def _text(x: float, y: float, text: str, kind: str, anchor: Anchor = "middle") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(text)}</text>'


LEGEND: Final = "hears at once when the other one has ended: through a pidfd, or as its parent"

# For who can't see the picture.
DESCRIPTION: Final = (
    "Your program talks with the inner reaper over a socket. The inner reaper starts and signals "
    "the daemons, and watches your program and the outer reaper. The outer reaper stands behind "
    "it, and watches your program and the inner one. A process whose parent has ended becomes a "
    "child of the inner reaper or, if that is killed, of the outer one."
)

_SVG: Final = """\
<svg class="guard" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
 role="img" aria-label="{description}">
<style>
.guard {{ width: 100%; color: var(--color-foreground-primary, #222); font-family: inherit; }}
.guard rect.box {{ fill: var(--color-background-secondary, #f4f4f4); stroke: currentColor; }}
.guard rect.frame {{ fill: none; stroke: currentColor; stroke-dasharray: 5 4; }}
.guard path {{ fill: none; stroke: currentColor; stroke-width: 1.2; }}
.guard path.watches {{ stroke-dasharray: 2 4; }}
.guard marker path {{ fill: currentColor; stroke: none; }}
.guard text {{ fill: currentColor; font-size: 14px; }}
.guard text.name {{ font-weight: bold; }}
.guard text.kind {{ font-style: italic; font-size: 13px; stroke-width: 5px; paint-order: stroke;
 stroke: var(--color-background-primary, #fff); stroke-linejoin: round; }}
</style>
<defs><marker id="guard-arrow" viewBox="0 0 8 8" refX="5" refY="4" markerWidth="8" markerHeight="8"
 orient="auto-start-reverse"><path d="M 0 0 L 8 4 L 0 8 z"/></marker></defs>
{parts}
</svg>
"""


class GuaranteePicture(Directive):
    """Puts the picture into a page; other formats than HTML have what it says in words."""

    def run(self) -> list[nodes.Node]:
        """Give the picture."""
        return [nodes.raw("", draw(), format="html")]


def setup(app: Any) -> dict[str, bool]:
    """Tell Sphinx of the directive."""
    app.add_directive("guarantee-picture", GuaranteePicture)
    return {"parallel_read_safe": True}
