"""What stands before each line of output on its way to its destination."""

import time

from trio_lifecycle._destination import Output


class Head:
    """The beginning of lines: the time, the prefix, both, or nothing."""

    def __init__(self, output: Output) -> None:
        self._timestamps = output.timestamps
        self._prefix = output.prefix

    def __bool__(self) -> bool:
        return self._timestamps or bool(self._prefix)

    def __str__(self) -> str:
        """Give it as it is at this moment."""
        return f"{timestamp(time.time())} {self._prefix}" if self._timestamps else self._prefix


def timestamp(seconds: float) -> str:
    """Write a time, in seconds since the epoch, as ``2026-03-01T09:30:00.250+01:00``.

    It is the local time (ISO 8601), with the offset from UTC that it had then.
    """
    # Costs a millisecond to load, which is nothing beside a spawn, but much at import.
    from datetime import datetime

    return datetime.fromtimestamp(seconds).astimezone().isoformat(timespec="milliseconds")
