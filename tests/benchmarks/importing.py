"""The time to import the package, against that of Trio, and what it loads besides."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Final

from tests.benchmarks._table import Row, Table, middle, percentile_90

ROUNDS: Final = 31
GOAL_RATIO: Final = 1.25
PACKAGES: Final = ("trio", "trio_lifecycle")

_TIME_IT: Final = (
    "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"
)


def tables() -> Iterator[Table]:
    """Measure."""
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as cache:
        # Compiled once, as it is for a user; a test machine may be told to write no bytecode.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache, "PYTHONDONTWRITEBYTECODE": ""}
        yield _times(environment)
        yield _modules(environment)


def _times(environment: dict[str, str]) -> Table:
    seconds: dict[str, list[float]] = {package: [] for package in PACKAGES}
    for number in range(ROUNDS + 1):
        for package in PACKAGES:
            value = float(_run(environment, "-c", _TIME_IT.format(package)).stdout)
            if number:  # the first has to compile
                seconds[package].append(value)
    base = middle(seconds["trio"])
    return Table(
        "Importing, in a fresh interpreter (milliseconds)",
        ("import", "rounds", "median", "p90", "ratio"),
        [_row(package, values, base) for package, values in seconds.items()],
    )


def _row(package: str, values: list[float], base: float) -> Row:
    ratio = middle(values) / base
    times = (f"{middle(values) * 1000:.1f}", f"{percentile_90(values) * 1000:.1f}")
    cells = (package, str(len(values)), *times, f"{ratio:.2f}")
    return Row(cells, ratio, None if package == "trio" else GOAL_RATIO)


def _modules(environment: dict[str, str]) -> Table:
    """List what the package loads and Trio does not, the costly first."""
    known, ours = (_self_times(environment, package) for package in PACKAGES)
    added = {name: us for name, us in ours.items() if name not in known}
    slowest = sorted(added.items(), key=lambda item: -item[1])
    return Table(
        "Modules that 'import trio_lifecycle' adds to 'import trio' (own milliseconds)",
        ("module", "time"),
        [Row((name, f"{us / 1000:.2f}")) for name, us in slowest],
        (f"{len(added)} modules, {sum(added.values()) / 1000:.1f} ms, slowed by -X importtime.",),
    )


def _self_times(environment: dict[str, str], package: str) -> dict[str, int]:
    """Give each module's own time in microseconds, without what it imports itself."""
    times = {}
    done = _run(environment, "-X", "importtime", "-c", f"import {package}")
    for line in done.stderr.splitlines():
        own, _, name = line.removeprefix("import time:").split("|")
        if own.strip().isdecimal():
            times[name.strip()] = int(own)
    return times


def _run(environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *args], env=environment, capture_output=True, text=True, check=True
    )
