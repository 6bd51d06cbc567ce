"""Records.

What is remembered of a daemon so that another program can find it and prove that it is the right
one.
"""

from typing import NamedTuple


class DaemonRecord(NamedTuple):
    """One daemon, as a registry remembers it.

    Attributes:
        name: The daemon's name.
        instance_id: Which spawn of it this is.
        host: The machine that it runs on.
        pid: Its main process; trusted only together with the next two.
        start_time: When that process started, in clock ticks since the machine's boot (proc(5),
            field 22).
        boot_id: Which boot of the machine that was.
        url: Where it can be reached, or None.
        state: Its state when the record was written.
        started_at: Seconds since the epoch.
    """

    name: str
    instance_id: str
    host: str
    pid: int
    start_time: int
    boot_id: str
    url: str | None
    state: str
    started_at: float
