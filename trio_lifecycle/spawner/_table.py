"""The table of daemons, by which the outer process of a reaper knows what the inner one left.

A part of the program in ``_reaper.py``, and of that in ``_ssh/guard.py``: see ``_family.py``.
"""

from __future__ import annotations

import marshal

from trio_lifecycle.spawner._family import Daemon

TYPE_CHECKING = False
if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping

# Only what is used takes memory; a daemon takes some 100 bytes.
TABLE_BYTES, HEAD_BYTES = 1 << 24, 16


def write_table(table: mmap.mmap, daemons: Mapping[int, Daemon]) -> None:
    """Write down all daemons.

    It is whole at any instant: its place is written last, in one small piece.
    """
    rows = [(d.pid, d.start, d.rungs, d.mark, d.cgroup) for d in daemons.values()]
    blob = marshal.dumps(rows)
    place, length = read_head(table)
    # Behind the one that is there, or in front of it if there is room.
    place = HEAD_BYTES if place >= HEAD_BYTES + len(blob) else place + length
    if place + len(blob) <= TABLE_BYTES:
        table[place : place + len(blob)] = blob
        table[:HEAD_BYTES] = place.to_bytes(8, "big") + len(blob).to_bytes(8, "big")


def read_table(table: mmap.mmap) -> dict[int, Daemon]:
    """Read who is in it; again if it was written meanwhile."""
    while True:
        place, length = read_head(table)
        blob = table[place : place + length]
        if (place, length) == read_head(table):
            rows = marshal.loads(blob) if blob else []
            return {row[0]: Daemon(*row) for row in rows}


def read_head(table: mmap.mmap) -> tuple[int, int]:
    """Give place and length of what is written."""
    head = table[:HEAD_BYTES]
    return int.from_bytes(head[:8], "big") or HEAD_BYTES, int.from_bytes(head[8:], "big")
