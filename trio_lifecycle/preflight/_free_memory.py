"""A check that there is memory."""

from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._memory import find_room
from trio_lifecycle.preflight import _values
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
        room = find_room()
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
