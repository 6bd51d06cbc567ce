"""Play rounds, start and stop a daemon very often, idle: python -m tests.chaos --rounds 500.

With --ensure 50, have 20 programs want one daemon at one moment, and kill one that starts it.

A round that failed is played again by its seed, with the same --only:
python -m tests.chaos --rounds 1 --seed SEED.
"""

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.chaos.bystanders import Bystanders
from tests.chaos.campaign import PATIENCE_S, play
from tests.chaos.daemons import KINDS
from tests.chaos.plan import FAULTS, Choice, draw
from tests.chaos.report import Report, describe
from tests.chaos.survey import Offspring, become_subreaper

# Seconds that the end may take beyond the ladders. Sweeping takes some milliseconds; a busy machine
# with two cores adds a second now and then.
BOUND_S: Final = 2.0
_SAY_EVERY: Final = 25


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=0, help="how many rounds to play")
    parser.add_argument("--seed", type=int, default=1, help="the first round's; the next has + 1")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*FAULTS, *KINDS],
        metavar="FAULT_OR_KIND",
        help=f"play only this; may be given again: {', '.join([*FAULTS, *KINDS])}",
    )
    parser.add_argument(
        "--bound", type=float, default=BOUND_S, help="seconds that an end may take besides ladders"
    )
    parser.add_argument(
        "--guarantee",
        choices=["guarded", "scoped"],
        default="guarded",
        help="what applications ask of their spawner; scoped can't survive most of this",
    )
    parser.add_argument("--cycles", type=int, default=0, help="how often to start and stop")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds in which nothing may die")
    parser.add_argument(
        "--ensure", type=int, default=0, help="how often 20 programs want one daemon at once"
    )
    return parser.parse_args(words)


def play_rounds(options: argparse.Namespace) -> bool:
    """Play all rounds; True when each went well."""
    faults = tuple(name for name in options.only if name in FAULTS)
    kinds = tuple(name for name in options.only if name in KINDS)
    choice = Choice(faults, kinds, options.guarantee)
    report, bystanders = Report(), Bystanders()
    began = time.monotonic()
    become_subreaper()
    # So that whoever ends a campaign early ends all of it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        bystanders.start()
        for number in range(1, options.rounds + 1):
            plan = draw(options.seed + number - 1, choice)
            outcome = play(plan, options.bound)
            hurt = bystanders.hurt()
            report.add(outcome, hurt)
            if outcome.survivors or outcome.troubles or hurt:
                print(describe(outcome, hurt, plan), flush=True)
            if hurt:
                bystanders.replace()
            if not number % _SAY_EVERY:
                took = f"{number} rounds, {time.monotonic() - began:.0f} s"
                print(f"{took}, {len(report.failing)} failed", flush=True)
    finally:
        bystanders.end()
        Offspring().end(PATIENCE_S)
    print(report)
    return not report.failing


def main(words: Sequence[str] | None = None) -> int:
    """Do what the command line says; 1 if something went wrong."""
    options = arguments(words)
    well = play_rounds(options) if options.rounds else True
    if options.ensure:
        from tests.chaos.ensure import ensure

        well = ensure(options.ensure, options.seed) and well
    # Only these run daemons in this process, so that a round begins with little to fork.
    if options.cycles:
        from tests.chaos.cycles import cycles

        well = cycles(options.cycles) and well
    if options.idle:
        from tests.chaos.idle import idle

        well = idle(options.idle) and well
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
