"""How long to wait between two probes: a fraction of the time elapsed, within bounds."""

import math
from typing import Final

# The first interval. A probe that is refused on loopback costs a tenth of it.
SHORTEST_INTERVAL_S: Final = 0.001

# The interval as a part of the time waited so far: news of readiness is late by half of it on
# average, and a wait of any length costs some hundred probes only (5 s: 400).
FRACTION_OF_ELAPSED: Final = 0.0145

# The same for a probe that is a program of its own, and so costs ten times as much.
FRACTION_FOR_PROGRAMS: Final = 0.05


def next_interval(
    elapsed_s: float, longest_s: float, fraction: float = FRACTION_OF_ELAPSED
) -> float:
    """Say how many seconds to wait before the next probe.

    Args:
        elapsed_s: Seconds since the first probe.
        longest_s: The cap; it wins over the shortest interval where it is below that.
        fraction: The interval as a part of the time elapsed.
    """
    # In whole milliseconds, for epoll_wait(2) rounds up: 2.1 ms would become 3.
    milliseconds = math.floor(elapsed_s * fraction / SHORTEST_INTERVAL_S)
    return min(max(1, milliseconds) * SHORTEST_INTERVAL_S, longest_s)
