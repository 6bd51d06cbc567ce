"""What happens in a round, drawn from its seed: which daemons, whose, what strikes, and when."""

import signal
from collections.abc import Sequence
from random import Random
from typing import Final, Literal

from attrs import Factory, evolve, frozen

from tests.chaos.daemons import KINDS, OBEDIENT_KINDS

Victim = Literal["application", "inner", "outer"]
Moment = Literal["start", "starting", "up"]
Guarantee = Literal["guarded", "scoped"]


@frozen
class Fault:
    """What strikes an application.

    Attributes:
        name: What it is called.
        order: What the application is told on its standard input, if that is how it is struck.
        signum: The signal that is sent, otherwise.
        victims: Who gets it, in this order.
        ends: The exception that the application must end with once it is up; empty for none. None
            where it can't say.
    """

    name: str
    order: str = ""
    signum: int = signal.SIGKILL
    victims: tuple[Victim, ...] = ()
    ends: str | None = None

    @property
    def lost_reaper(self) -> bool:
        """Whether the application lives on, without one process of its reaper."""
        return bool(self.victims) and "application" not in self.victims

    @property
    def orderly(self) -> bool:
        """Whether the application's own blocks stop the daemons."""
        return self.ends is not None and not self.lost_reaper


_APPLICATION: Final[tuple[Victim, ...]] = ("application",)

FAULTS: Final = {
    fault.name: fault
    for fault in (
        Fault("exception", order="exception", ends="ChaosError"),
        Fault("cancellation", order="cancellation", ends=""),
        Fault("SIGINT", signum=signal.SIGINT, victims=_APPLICATION, ends="KeyboardInterrupt"),
        Fault("death", order="death", ends="DaemonDiedError"),
        Fault("SIGTERM", signum=signal.SIGTERM, victims=_APPLICATION),
        Fault("SIGHUP", signum=signal.SIGHUP, victims=_APPLICATION),
        Fault("SIGKILL", victims=_APPLICATION),
        Fault("SIGSEGV", signum=signal.SIGSEGV, victims=_APPLICATION),
        Fault("exit", order="exit"),
        Fault("inner", victims=("inner",), ends="ReaperLostError"),
        Fault("outer", victims=("outer",), ends="ReaperLostError"),
        Fault("inner+application", victims=("inner", "application")),
        Fault("application+inner", victims=("application", "inner")),
        Fault("outer+application", victims=("outer", "application")),
        Fault("application+outer", victims=("application", "outer")),
    )
}

Rungs = tuple[tuple[int, float], ...]

# Short, so that a round is; () is SIGKILL at once.
LADDERS: Final[tuple[Rungs, ...]] = (
    (),
    ((signal.SIGTERM, 0.2),),
    ((signal.SIGTERM, 0.4),),
    ((signal.SIGINT, 0.1), (signal.SIGTERM, 0.2)),
)

# Far longer than any bound: who waits to its end for a daemon that has obeyed is found out.
_LONG_LADDER: Final[Rungs] = ((signal.SIGTERM, 60.0),)
_LONG_SHARE: Final = 0.4

# How often a hit comes at which moment: few are so early that there is nothing to hit yet.
_MOMENTS: Final[dict[Moment, float]] = {"start": 0.1, "starting": 0.4, "up": 0.5}
# Starting takes some 0.1 s, and being up as long as one likes.
_LONGEST_DELAY_S: Final[dict[Moment, float]] = {"start": 0.6, "starting": 0.15, "up": 0.6}
# Between two kills: at one instant, or when a sweep begins, is half done, or waits on its ladder.
_GAPS_S: Final = (0.0, 0.0, 0.001, 0.02, 0.15)

MOST_DAEMONS: Final = 5


@frozen
class Daemon:
    """One daemon of an application.

    Attributes:
        kind: Which of the menagerie.
        rungs: Its stop ladder.
        nested: Whether a block owns it; else a nursery inside of all blocks does.
    """

    kind: str
    rungs: Rungs
    nested: bool

    @property
    def longest_s(self) -> float:
        """How long its ladder is."""
        return sum(seconds for _, seconds in self.rungs)

    @property
    def ladder_s(self) -> float:
        """How long its ladder may keep its end waiting."""
        return 0.0 if self.rungs == _LONG_LADDER else self.longest_s


@frozen
class Choice:
    """What plans are drawn from.

    Attributes:
        faults: Names of those to choose from; all when empty.
        kinds: Names of those to choose from; all when empty.
        guarantee: What the application asks of its spawner.
    """

    faults: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    guarantee: Guarantee = "guarded"


@frozen
class Plan:
    """What happens in a round.

    Attributes:
        seed: What it was drawn by.
        choice: What it was drawn from.
        fault: What strikes.
        daemons: What the application owns, outermost first.
        together: Whether the daemons in the nursery are started at once.
        moment: From which event on the delay counts.
        delay_s: Seconds from there to the hit.
        gap_s: Seconds between two kills.
    """

    seed: int
    choice: Choice
    fault: Fault
    daemons: Sequence[Daemon] = Factory(tuple)
    together: bool = False
    moment: Moment = "up"
    delay_s: float = 0.0
    gap_s: float = 0.0

    @property
    def ladder_s(self) -> float:
        """How long the configured ladders permit the end to take.

        One after the other for blocks in blocks, and then what a sweep finds of all of them.
        """
        longest = max((daemon.ladder_s for daemon in self.daemons), default=0.0)
        if not self.fault.orderly:
            return longest
        inside = [daemon.ladder_s for daemon in self.daemons if not daemon.nested]
        blocks = sum(daemon.ladder_s for daemon in self.daemons if daemon.nested)
        return blocks + max(inside, default=0.0) + longest

    def __str__(self) -> str:
        daemons = " ".join(
            f"{'block' if daemon.nested else 'nursery'}:{daemon.kind}/{daemon.longest_s:g}"
            for daemon in self.daemons
        )
        gap = f", gap {self.gap_s:g} s" if len(self.fault.victims) > 1 else ""
        when = f"{self.delay_s:.3f} s after {self.moment!r}{gap}"
        return f"seed {self.seed}: {self.fault.name} {when}, on {daemons}"


def draw(seed: int, choice: Choice = Choice()) -> Plan:
    """Draw a plan from a seed; some seeds in a row have all the faults in turn.

    Args:
        seed: The same seed gives the same plan, from the same choice.
        choice: What to choose from. Defaults to everything.
    """
    names = choice.faults or tuple(FAULTS)
    fault = FAULTS[names[seed % len(names)]]
    random = Random(seed)
    drawn = [random.choice(choice.kinds or KINDS) for _ in range(random.randint(1, MOST_DAEMONS))]
    blocks = random.randint(0, len(drawn))
    daemons = [
        Daemon(kind, random.choice(LADDERS), nested=number < blocks)
        for number, kind in enumerate(drawn)
    ]
    moment = random.choices(list(_MOMENTS), list(_MOMENTS.values()))[0]
    delay_s = random.uniform(0.0, _LONGEST_DELAY_S[moment])
    # A daemon's number is told only when all are up.
    moment = "up" if fault.order == "death" else moment
    plan = Plan(
        seed,
        choice,
        fault,
        together=random.random() < 0.5,
        moment=moment,
        delay_s=delay_s,
        gap_s=random.choice(_GAPS_S),
    )
    # What still forks while it starts may be missed by the first signal.
    share = _LONG_SHARE if moment == "up" else 0.0
    return evolve(plan, daemons=[_lengthened(daemon, share, random) for daemon in daemons])


def _lengthened(daemon: Daemon, share: float, random: Random) -> Daemon:
    """Give an obedient daemon a long ladder, with some probability."""
    lucky = random.random() < share
    return evolve(daemon, rungs=_LONG_LADDER) if lucky and daemon.kind in OBEDIENT_KINDS else daemon
