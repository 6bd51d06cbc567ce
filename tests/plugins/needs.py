"""Tests that need an installed program: skipped without it, with the reason, and never in CI."""

import os
import shutil
from pathlib import Path

import pytest

# Debian puts servers here, and an ordinary user's PATH does not name them.
SYSTEM_DIRECTORIES = (
    *("/usr/local/sbin", "/usr/sbin", "/sbin"),
    *sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True),
)


def find_program(name: str) -> str | None:
    """The program's path, looked for in PATH and where servers are installed."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES))
    return shutil.which(name, path=path)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Look for every program that the test's `needs` markers name."""
    wanted = [name for marker in item.iter_markers("needs") for name in marker.args]
    missing = [name for name in wanted if find_program(name) is None]
    if not missing:
        return
    reason = f"needs {', '.join(missing)}, which is not installed"
    if os.environ.get("TRIO_LIFECYCLE_REQUIRE_REAL") == "1":
        pytest.fail(f"{reason}, and TRIO_LIFECYCLE_REQUIRE_REAL=1 forbids to skip", pytrace=False)
    pytest.skip(reason)
