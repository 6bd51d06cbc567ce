"""A daemon is started and stopped very often by one application, and nothing grows by it."""

import gc
import os
import time
from typing import Final

import trio

from tests.chaos.survey import descendants, reapers
from tests.chaos.vitals import Vitals, take
from trio_lifecycle import DaemonLifecycle, LifecycleConfig, Manual

# Until then caches are filled, and modules imported that are only now needed.
WARM_UP: Final = 50
# Python takes memory by the MB; two were seen, the same after 10,000 cycles and after 16,000. What
# loses 400 bytes a cycle is found in 10,000. The reaper grew by 0.15 MB.
GROWTH_KB: Final = {"application": 4096, "outer": 1024, "inner": 1024}
_SAY_EVERY: Final = 1000
# Each way to own a daemon has its turn.
_NURSERY_EVERY: Final = 10
# An ended daemon's processes have left /proc at once; a busy machine takes its time.
_PATIENCE_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.01

DAEMON: Final = DaemonLifecycle(LifecycleConfig("sleep", args=["1000"], ready_mode=Manual()))


def cycles(count: int) -> bool:
    """Start and stop so often, and print what has grown; True when nothing has."""
    began = time.monotonic()
    before, after, left = trio.run(_cycle, count)
    seconds = time.monotonic() - began
    print(f"{count} cycles in {seconds:.1f} s, {1000 * seconds / count:.2f} ms each")
    faults = [f"left: {seen}" for seen in left]
    for name, growth_kb in GROWTH_KB.items():
        if name not in before:
            faults.append(f"{name}: there is no such process of a reaper")
            continue
        print(f"  {name}: {before[name]}; at the end {after[name]}")
        faults += [f"{name}: {worse}" for worse in after[name].worse_than(before[name], growth_kb)]
    print("\n".join(faults) if faults else "  nothing has grown")
    return not faults


async def _cycle(count: int) -> tuple[dict[str, Vitals], dict[str, Vitals], list[str]]:
    before: dict[str, Vitals] = {}
    for number in range(count + WARM_UP):
        if number == WARM_UP:
            before = _all_vitals()
        if number % _NURSERY_EVERY:
            async with DAEMON.running():
                pass
        else:
            async with trio.open_nursery() as nursery:
                await nursery.start(DAEMON.run)
                nursery.cancel_scope.cancel()
        if number > WARM_UP and not number % _SAY_EVERY:
            print(f"  {number} cycles", flush=True)
    with trio.move_on_after(_PATIENCE_S):
        while _left():  # noqa: ASYNC110 - /proc has no event for it
            await trio.sleep(_LOOK_EVERY_S)
    return before, _all_vitals(), _left()


def _left() -> list[str]:
    pair = reapers(os.getpid()) or ()
    return [str(seen) for seen in descendants(os.getpid()) if seen.pid not in pair]


def _all_vitals() -> dict[str, Vitals]:
    gc.collect()
    pair = reapers(os.getpid())
    pids = {"application": os.getpid()} | (
        dict(zip(("outer", "inner"), pair, strict=True)) if pair else {}
    )
    return {name: take(pid) for name, pid in pids.items()}
