"""How much memory this program, and what it starts, can still get."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from trio_lifecycle._hierarchy import own_group, own_mounts
from trio_lifecycle._procfs import available_memory


class Room(NamedTuple):
    """Memory that is to be had.

    Attributes:
        bytes: How much.
        limit: What sets the limit: a control group's directory, or None where it is the machine.
    """

    bytes: int
    limit: Path | None


def find_room() -> Room | None:
    """Say how much memory can still be had here; None where that can't be told."""
    machine = available_memory()
    rooms = [] if machine is None else [Room(machine, None)]
    group = own_group()
    for mount in own_mounts() if group else []:
        directory = mount.directory_of(group or "")
        if directory is not None:
            rooms += rooms_in(directory, mount.point)
    return min(rooms, key=lambda room: room.bytes, default=None)


def rooms_in(directory: Path, top: Path) -> Iterator[Room]:
    """Say what a control group leaves, and what each above it does: a limit binds all below.

    Args:
        directory: The group's.
        top: Where the hierarchy begins. At the top of a machine nothing is limited; the top that a
            container sees is a group like others.
    """
    for group in (directory, *directory.parents):
        limits = [_number(group, name) for name in ("memory.max", "memory.high")]
        used = _number(group, "memory.current")
        if used is not None and limits != [None, None]:
            yield Room(left_by(limits, used, _reclaimable(group)), group)
        if group == top:
            break


def left_by(limits: Iterable[int | None], used: int, reclaimable: int) -> int:
    """Give the bytes that limits leave of which one is set; None is no limit."""
    limit = min(one for one in limits if one is not None)
    return max(0, limit - max(0, used - reclaimable))


def _number(group: Path, name: str) -> int | None:
    """Read a file of one number; None for "max", which is no limit, and for what is not there."""
    text = _read(group / name).strip()
    return int(text) if text.isdecimal() else None


def _reclaimable(group: Path) -> int:
    """Give what memory.current counts and the kernel takes back first: files not used of late."""
    rows = (line.split() for line in _read(group / "memory.stat").splitlines())
    return next((int(row[1]) for row in rows if row[:1] == ["inactive_file"]), 0)


def _read(file: Path) -> str:
    # A group without the memory controller has none of these files; one may vanish as we look.
    try:
        return file.read_text(encoding="ascii")
    except OSError:
        return ""
