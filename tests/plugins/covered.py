"""Has the reaper and the guard measured, too, when coverage measures the tests.

They are run by ``python -I -S``, the reaper with next to no environment, and so without what
coverage puts into the interpreters that a test starts. The guard's parts are sent as texts, which
say nothing of their files.
"""

import os
import sys
from pathlib import Path
from typing import Final

import trio_lifecycle
from trio_lifecycle._ssh import _guard_program
from trio_lifecycle.spawner import _reaper_program

_ROOT: Final = str(Path(trio_lifecycle.__file__).parents[1])

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
    _guard_program._OPTIONS = ("-E", "-s")  # type: ignore[misc]  # so that coverage is found
    _guard_program._BOOTSTRAP = _guard_program._BOOTSTRAP.replace(  # type: ignore[misc]
        "compile(code, name,", f"compile(code, {_ROOT!r} + '/' + name.replace('.', '/') + '.py',"
    )
