"""Descriptors on their way to other numbers, of which none gets lost.

The reaper has a copy of this file, so it imports next to nothing.
"""

from __future__ import annotations

from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


def moves(wanted: Mapping[int, int]) -> tuple[list[tuple[int, int]], list[int]]:
    """Plan how descriptors get to their numbers, by dup2(2) one after the other.

    One whose own number is wanted for another is put aside first, on a number that nobody wants. So
    is one that is where it belongs: dup2 to itself would leave it close-on-exec.

    Args:
        wanted: Number to have -> descriptor to put there.

    Returns:
        The moves (from, to) in their order, and what is to be closed after them.
    """
    taken = {*wanted, *wanted.values()}
    spare = (number for number in count(3) if number not in taken)
    aside = {fd: next(spare) for fd in sorted(taken.intersection(wanted.values(), wanted))}
    into_place = [(aside.get(fd, fd), number) for number, fd in wanted.items()]
    return [*aside.items(), *into_place], [*aside.values()]
