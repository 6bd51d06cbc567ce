"""A check that there is memory."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._memory import Room, find_room, left_by
from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import Elsewhere, Told
from trio_lifecycle.preflight._failure import CheckFailed

# It reads some files of the kernel, in a millisecond.
DEFAULT_CHECK_TIMEOUT_S: Final = 5.0


@frozen(repr=False)
class FreeMemory:
    """So much memory can still be had without swapping.

    That is MemAvailable of proc(5), or what the control groups of this program leave where that is
    less: ``memory.max`` or ``memory.high`` (cgroup v2), less what is used and not file cache that
    the kernel takes back first (``inactive_file``). Limits of cgroup v1 are not seen.

    Attributes:
        gib: How much must be free, in GiB (1,073,741,824 bytes).
        check_timeout: Seconds that the check may take. Defaults to 5, a thousand times what it
            takes; it is there for a machine that hangs.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    gib: float = field(converter=_values.gib)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Look how much there is.

        Raises:
            CheckFailed: It is less, or can't be told.
        """
        await trio.lowlevel.checkpoint()
        self._judge(find_room())

    def at(self, prober: Prober) -> Preflight:
        """Give the check of the prober's machine, and of the control groups of its commands."""
        about = "how much memory is free"
        return Elsewhere(self, prober, ("memory",), about, self._judge_told)

    def _judge_told(self, told: Told) -> None:
        self._judge(min(_rooms_told(told), key=lambda room: room.bytes, default=None))

    def _judge(self, room: Room | None) -> None:
        if room is None:
            raise CheckFailed(
                "how much memory is free can't be told: proc(5) shows no MemAvailable"
            )
        wanted = self.gib * _values.BYTES_PER_GIB
        if room.bytes < wanted:
            where = "the machine has" if room.limit is None else f"the limit of {room.limit} leaves"
            cure = "end other programs" if room.limit is None else "raise its memory.max"
            raise CheckFailed(
                f"{where} {_values.in_gib(room.bytes)} of memory, and {_values.in_gib(wanted)} "
                f"are needed: {cure}, or ask for less"
            )


def _rooms_told(told: Told) -> Iterator[Room]:
    """Read what the machine has, and what each control group with a limit leaves."""
    machine = told.get("available") or ""
    if machine.isdecimal():
        yield Room(int(machine) * 1024, None)  # it says kB and means KiB
    for line in told.every("group"):
        most, high, used, reclaimable, place = line.split(" ", 4)
        limits = [int(one) if one.isdecimal() else None for one in (most, high)]
        yield Room(left_by(limits, int(used), int(reclaimable)), Path(place))
