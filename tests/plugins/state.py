"""A state directory of its own for each test: no test meets another's daemons, or the user's."""

import os
import shutil
import tempfile
from itertools import count

import pytest

_VARIABLE = "XDG_STATE_HOME"
_numbers = count()
_place = ""
_before: str | None = None


def pytest_configure() -> None:
    """Have a place before the first example of a document runs."""
    global _place, _before
    _place, _before = tempfile.mkdtemp(prefix="trio-lifecycle-state-"), os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = _place


def pytest_unconfigure() -> None:
    """Remove it."""
    shutil.rmtree(_place)
    if _before is None:
        del os.environ[_VARIABLE]
    else:
        os.environ[_VARIABLE] = _before


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_VARIABLE, f"{_place}/{next(_numbers)}")
