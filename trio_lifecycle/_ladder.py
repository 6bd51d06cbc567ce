"""The stop ladder: polite first, then not; the last rung is always SIGKILL."""

import signal
import sys
from typing import Final, NamedTuple

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._status import signal_name


@frozen
class Rung:
    """One step of a stop ladder.

    Attributes:
        signum: The signal that every process of the daemon gets.
        seconds: How long they may take before the next rung.
    """

    signum: int
    seconds: float

    @property
    def name(self) -> str:
        """The signal's name."""
        return signal_name(self.signum)


def _rung(step: object) -> Rung:
    match step:
        case (bool(), _) | (_, bool()) | Rung(bool(), _) | Rung(_, bool()):
            pass
        case (int() as signum, int() | float() as seconds) | Rung(
            int() as signum, int() | float() as seconds
        ):
            _check(signum, seconds)
            return Rung(int(signum), float(seconds))
    raise ConfigError(
        "stop_ladder", f"a rung is (signal, seconds), such as (signal.SIGTERM, 10.0), not {step!r}"
    )


def _check(signum: int, seconds: float) -> None:
    if signum not in signal.valid_signals():
        raise ConfigError("stop_ladder", f"{signum} is no signal of this system")
    if signum == signal.SIGKILL:
        raise ConfigError("stop_ladder", "SIGKILL is always the last rung by itself; leave it out")
    # A comparison, not math.isfinite: that can't take an integer beyond what a float can hold.
    if not 0 <= seconds <= sys.float_info.max:
        raise ConfigError(
            "stop_ladder",
            f"the seconds of {signal_name(signum)} must be 0 or more and finite, not {seconds!r}",
        )


def _rungs(steps: tuple[object, ...]) -> tuple[Rung, ...]:
    return tuple(_rung(step) for step in steps)


@frozen(init=False, repr=False)
class StopLadder:
    """How a daemon is stopped: signals in order, each with the seconds it is given.

    SIGKILL follows by itself.

    ``StopLadder((signal.SIGINT, 2.0), (signal.SIGTERM, 30.0))`` asks twice, then insists.
    ``StopLadder()`` without rungs is SIGKILL at once.
    """

    rungs: tuple[Rung, ...] = field()

    def __init__(self, *steps: tuple[int, float] | Rung) -> None:
        object.__setattr__(self, "rungs", _rungs(steps))

    def __repr__(self) -> str:
        return f"StopLadder({', '.join(f'({rung.name}, {rung.seconds})' for rung in self.rungs)})"

    @property
    def seconds(self) -> float:
        """The longest time until SIGKILL."""
        return sum((rung.seconds for rung in self.rungs), 0.0)


# Patience before SIGKILL. OTP and Trio wait 5 s, JupyterHub 60 s, systemd 90 s; databases need some
# seconds to flush.
DEFAULT_STOP_LADDER: Final = StopLadder((signal.SIGTERM, 10.0))

# How long a killed process may take to vanish before the stop is reported as failed. Reaping takes
# milliseconds; what needs seconds waits for a dead disk or network, and no signal can hurry that.
KILL_PATIENCE_S: Final = 5.0


class StopReport(NamedTuple):
    """How a daemon was stopped.

    Attributes:
        rung: The last signal that was needed, by name; None when it had already ended.
        status: Its exit status as ``subprocess`` counts, None where only the process's parent could
            know.
        seconds: How long the stop took.
    """

    rung: str | None
    status: int | None
    seconds: float
