"""Many programs want one daemon at one moment, and starters are killed: there is one, always."""

import os
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Final

from tests.chaos.survey import Offspring, become_subreaper
from tests.one_start_programs import after_it, crowd, daemon, starts, strike

PROGRAMS: Final = 20
TASKS: Final = 10
# Two groups in each round, one with a health check and one with a callback.
READY: Final = ("health", "callback")
# When a start is struck: at most so much later than it began. One takes 0.1 s when nobody disturbs.
LONGEST_S: Final = 0.25
# At most so many are killed of so many more.
MOST_VICTIMS: Final = 4
OTHERS: Final = 3
_PATIENCE_S: Final = 30.0
_SAY_EVERY: Final = 10


def ensure(rounds: int, seed: int) -> bool:
    """Play rounds, each with a crowd and two struck groups; True when there was one daemon."""
    became: list[str] = []
    began = time.monotonic()
    become_subreaper()
    # So that whoever ends a campaign early ends all of it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for number in range(1, rounds + 1):
        became += _play(seed + number - 1)
        if not number % _SAY_EVERY:
            print(f"  {number} crowds, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{rounds} crowds of {PROGRAMS} programs with {TASKS} tasks, {2 * rounds} struck groups")
    print("\n".join(became) if became else "  one daemon each time, the same for all")
    return not became


def _play(seed: int) -> list[str]:
    """Play one round; say what went wrong."""
    random = Random(seed)
    failures = [_try(f"crowd of seed {seed}", _crowd)]
    for ready in READY:

        def struck(directory: Path, ready: str = ready) -> None:
            victims = random.randint(1, MOST_VICTIMS)
            strike(directory, ready, random, LONGEST_S * victims, victims, OTHERS)

        failures.append(_try(f"struck {ready} of seed {seed}", struck))
    return [failure for failure in failures if failure]


def _try(what: str, play: Callable[[Path], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="trio-lifecycle-chaos-") as directory:
        try:
            play(Path(directory))
        except Exception:  # also one of a program, which is told as text
            return f"FAILED {what}: {traceback.format_exc()}"
        finally:
            # What is left comes here, for this is a subreaper.
            Offspring().end(_PATIENCE_S)
    return ""


def _crowd(directory: Path) -> None:
    answers = crowd(directory, PROGRAMS, TASKS)
    instances = {answer["instance"] for answer in answers}
    assert (PROGRAMS * TASKS, 1) == (len(answers), len(instances)), instances
    lines = starts(directory)
    assert [[str(answers[0]["pid"]), "alone", "alone"]] == lines, lines
    found = after_it(directory, daemon(directory))
    assert ("adopted", instances) == (found["origin"], {found["instance"]})
    left = [pid for pid in _children() if pid != answers[0]["pid"]]
    assert [] == left, f"children {left} were left"


def _children() -> list[int]:
    pids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return list(map(int, pids))
