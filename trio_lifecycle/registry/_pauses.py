"""Pauses between two tries at what somebody else holds."""

import random
from collections.abc import Iterator


def pauses(first_s: float, longest_s: float) -> Iterator[float]:
    """Give seconds without an end: each about twice the one before, up to a cap.

    Each is between half of its value and the whole, by chance, so that those who were refused
    together do not come back together.
    """
    pause = first_s
    while True:
        yield random.uniform(pause / 2, pause)
        pause = min(2 * pause, longest_s)
