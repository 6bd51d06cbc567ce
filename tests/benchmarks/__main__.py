"""Run the benchmarks, all or those that are named, and print a table for each.

A goal that is missed does not make the run fail: a busy machine misses some.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Final

from tests.benchmarks import (
    claiming,
    ensuring,
    guarding,
    importing,
    passing,
    readiness,
    remote,
    spawning,
    speaking,
)
from tests.benchmarks._table import Table

BENCHMARKS: Final[dict[str, Callable[[], Iterable[Table]]]] = {
    "readiness": readiness.tables,
    "speaking": speaking.tables,
    "spawning": spawning.tables,
    "ensuring": ensuring.tables,
    "claiming": claiming.tables,
    "guarding": guarding.tables,
    "importing": importing.tables,
    "passing": passing.tables,
    "remote": remote.tables,
}
LIBRARIES: Final = ("trio", "httpx", "mirakuru")


def describe_machine() -> str:
    """Give what the figures depend on."""
    cores = len(os.sched_getaffinity(0))
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    load = os.getloadavg()[0]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    kernel = f"{platform.system()} {platform.release()}"
    return f"{cores} cores, load {load:.1f}, {kernel}, {python}, {libraries}"


def main(names: list[str]) -> int:
    """Run; 2 for a name that is none."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        print(
            f"no benchmark: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}",
            file=sys.stderr,
        )
        return 2
    print(describe_machine(), end="\n\n")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as directory:
        # Where detached daemons write their output.
        os.environ["XDG_STATE_HOME"] = directory
        for name in names or BENCHMARKS:
            for table in BENCHMARKS[name]():
                print(table, end="\n\n", flush=True)
    print(f"{time.monotonic() - began:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
