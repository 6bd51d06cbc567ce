"""What the kernel says of one process."""

from typing import NamedTuple


class Stat(NamedTuple):
    """One process, as it was when it was looked at.

    Attributes:
        pid: Its number.
        ppid: Its parent's.
        group: Its process group.
        session: Its session.
        state: One letter, as ``ps`` shows it: R, S, D, T, Z ...
        start_time: Clock ticks from the machine's boot to its start.
        command: The kernel's short name of it, of at most 15 bytes; the process can change it.
        threads: How many threads it has.
    """

    pid: int
    ppid: int
    group: int
    session: int
    state: str
    start_time: int
    command: str
    threads: int = 1

    @property
    def dead(self) -> bool:
        """True when nothing of it runs any more: a zombie, or about to be removed."""
        # A main thread that ends alone (pthread_exit) shows as Z while the others work on.
        return self.state in ("Z", "X", "x") and self.threads <= 1

    def is_led_by(self, leader_pid: int) -> bool:
        """Say whether it is in the session or the process group that bears this number."""
        return leader_pid in (self.session, self.group)


def parse_stat(text: bytes) -> Stat:
    """Read the line that proc_pid_stat(5) describes."""
    # The command stands in parentheses and may itself hold ")", spaces and newlines; what follows
    # it does not.
    before, _, after = text.rpartition(b")")
    pid, _, command = before.partition(b"(")
    fields = after.split()
    return Stat(
        pid=int(pid),
        ppid=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        state=fields[0].decode(),
        start_time=int(fields[19]),
        command=command.decode(errors="backslashreplace"),
        threads=int(fields[17]),
    )
