"""Processes of another machine: what its kernel says of them, and signals for them."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._stat import Stat, parse_stat
from trio_lifecycle._status import signal_name

# As with no descriptor left.
_UNREADABLE: Final = "its processes can't be read now"

# A number and when it was started, in the other machine's clock ticks since its boot.
Told = tuple[int, int]


class Member(NamedTuple):
    """A process of a daemon.

    Attributes:
        stat: The process.
        wchan: Where in the kernel it waits; empty when it does not or that can't be known.
    """

    stat: Stat
    wchan: str


class Tree(NamedTuple):
    """A daemon's living processes.

    Attributes:
        now: When this was so, in clock ticks since the machine's boot.
        members: Parents before their children.
    """

    now: int
    members: list[Member]

    def __contains__(self, pid: object) -> bool:
        return any(member.stat.pid == pid for member in self.members)

    def has(self, told: Told) -> bool:
        """Say whether a process is among them."""
        return any((each.stat.pid, each.stat.start_time) == told for each in self.members)

    @property
    def told(self) -> list[Told]:
        """Each by its number and start time, to be asked for again."""
        return [(member.stat.pid, member.stat.start_time) for member in self.members]


class Signalled(NamedTuple):
    """What came of a signal to a daemon's processes.

    Attributes:
        refused: Those of them that it could not be sent to: another user's.
        left: Who lived right after that.
    """

    refused: list[int]
    left: Tree


async def read_stat(line: Line, pid: int) -> Stat | None:
    """Look at one process; None when there is none of that number.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_stat", _number(pid))
    if not looked.output:
        raise LostError(_UNREADABLE)
    return None if looked.output == b"absent" else parse_stat(looked.output)


async def lives(line: Line, told: Told) -> bool:
    """Say whether a process lives; a zombie does not.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_lives", *_numbers([told]))
    return _is_living(looked.output)


async def tree_of(line: Line, leader: Told, others: Iterable[Told] = ()) -> Tree:
    """Find the living processes of a daemon, as ``trio_lifecycle._proc.tree_of`` does.

    Args:
        line: The machine.
        leader: The daemon's main process.
        others: Processes that were seen to belong to it, whatever has become of their parents.
            Those that live are found with their descendants.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_tree", *_numbers([leader, *others]))
    return _parse_tree(line, looked.output.decode(errors="surrogateescape"))


async def signal_one(line: Line, told: Told, signum: int) -> bool:
    """Send a signal to exactly this process; one that is gone counts as sent.

    Returns:
        False when it may not be sent: the process is another user's.

    Raises:
        LostError: Whether it was sent can't be told.
    """
    looked = await line.run("tl_signal", _name(signum), *_numbers([told]))
    if not looked.output:
        raise LostError(_UNREADABLE)
    return looked.output == b"sent"


async def signal_tree(
    line: Line, leader: Told, signum: int, others: Iterable[Told] = ()
) -> Signalled:
    """Send a signal to each of a daemon's processes, and look what is left.

    Args:
        line: The machine.
        leader: The daemon's main process.
        signum: The signal.
        others: As in ``tree_of``.

    Raises:
        LostError: Whether it was sent can't be told.
    """
    looked = await line.run("tl_signal_tree", _name(signum), *_numbers([leader, *others]))
    refused, _, rest = looked.output.decode(errors="surrogateescape").partition("\n")
    return Signalled([int(word) for word in refused.split()], _parse_tree(line, rest))


async def strays(line: Line, instance_id: str) -> list[Told]:
    """Find the processes that bear the mark of an instance, as far as they may be looked at.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_strays", instance_id)
    *rows, end = looked.output.decode().splitlines() or [""]
    if end != ".":
        raise LostError(_UNREADABLE)
    return [_parse_told(row) for row in rows]


class Program(NamedTuple):
    """What a process runs.

    Attributes:
        exe: Its executable, without links; None where that may not be known.
        args: Its arguments, the name that it goes by first.
    """

    exe: str | None
    args: list[str]


async def program_of(line: Line, told: Told) -> Program | None:
    """Say what a process runs; None when it is gone.

    Raises:
        LostError: It can't be told.
    """
    looked = await line.run("tl_program", *_numbers([told]))
    said, _, state = looked.output.rpartition(b"\0")
    if not _is_living(state):
        return None
    exe, _, rest = said.partition(b"\0")
    args = rest.removesuffix(b"\0").split(b"\0") if rest else []
    texts = [arg.decode(errors="surrogateescape") for arg in args]
    return Program(exe.decode(errors="surrogateescape") or None, texts)


def _is_living(word: bytes) -> bool:
    if word not in (b"living", b"dead"):
        raise LostError(_UNREADABLE)
    return word == b"living"


# --- numbers on their way -------------------------------------------------------------------------


def _numbers(processes: Iterable[Told]) -> list[int]:
    return [number for pid, start in processes for number in (_number(pid), start)]


def _number(pid: int) -> int:
    # 0 and -1 would mean many processes at once.
    if pid <= 1:
        raise ValueError(f"process {pid} is nobody's daemon; it is never asked for")
    return pid


def _name(signum: int) -> str:
    # By its name: numbers differ between kinds of machines. Real-time ones have none in sh.
    return signal_name(signum).removeprefix("SIG").removeprefix("signal ")


def _parse_tree(line: Line, text: str) -> Tree:
    uptime, *rows = text.split("\n")
    if rows[-2:] != [".", ""]:
        raise LostError(_UNREADABLE)
    try:
        members = [_parse_member(row) for row in rows[:-2]]
        return Tree(int(float(uptime) * line.facts.ticks_per_s), members)
    except ValueError as error:
        raise LostError(f"its answer makes no sense ({error})") from error


def _parse_member(row: str) -> Member:
    wchan, pid, start, ppid, group, session, state, threads, name = row.split(" ", 8)
    ids = int(pid), int(ppid), int(group), int(session)
    return Member(Stat(*ids, state, int(start), name, int(threads)), "" if wchan == "0" else wchan)


def _parse_told(row: str) -> Told:
    pid, start = row.split()
    return int(pid), int(start)
