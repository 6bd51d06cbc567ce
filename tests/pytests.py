"""Runs of pytest, for tests of its plugins."""

from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run_pytest(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a test file in a pytest of its own, with our plugins but not our settings."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def run(source: str, *arguments: str) -> pytest.RunResult:
        pytester.makepyfile(source)
        names = ("hygiene", "needs", "faults")
        plugins = [word for name in names for word in ("-p", f"tests.plugins.{name}")]
        return pytester.runpytest_subprocess(*plugins, *arguments)

    return run
