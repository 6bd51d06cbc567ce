"""Has the reaper measured, too, when coverage measures the tests.

It is run by ``python -I -S`` with next to no environment, and so without what coverage puts into
the interpreters that a test starts.
"""

import os
import sys

from trio_lifecycle.spawner import _reaper_program

_SETTINGS = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")}


def command() -> list[str]:
    """Give the reaper's program, in an interpreter that has its site-packages."""
    return [sys.executable, "-c", _reaper_program._BOOTSTRAP]


def environment() -> dict[str, str]:
    """Tell it where coverage finds its settings."""
    return _SETTINGS


if any(map(_SETTINGS.get, ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"))):
    _reaper_program.command = command
    _reaper_program.environment = environment
