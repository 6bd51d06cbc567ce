"""Whoever is starting a daemon is killed: somebody else has it up, and there are never two."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.one_start_programs import POINTS
from tests.support import UNMEASURED, run_app

KILLED_AT = """
import json
from pathlib import Path
from tests.one_start_programs import killed_at
print(json.dumps(killed_at(Path(sys.argv[1]), *sys.argv[2:])))
"""

STRUCK = """
from pathlib import Path
from random import Random
from tests.one_start_programs import strike
for seed in range(6):
    directory = Path(sys.argv[1]) / str(seed)
    directory.mkdir()
    strike(directory, "callback" if seed % 2 else "health", Random(seed), float(sys.argv[2]))
"""

# What a start takes here when nobody disturbs it, and some more.
A_START_S = 0.2


def killed_at(directory: Path, point: str, ready: str) -> dict[str, Any]:
    """What the program has got that waited while the starter was killed at this point."""
    (line,) = run_app(KILLED_AT, str(directory), point, ready, env=UNMEASURED)
    seen: dict[str, Any] = json.loads(line)
    assert "claim_awaited" in seen["kinds"]
    assert seen["is_recorded"]
    assert [seen["pid"]] == seen["alive"]
    assert all(line[1:] == ["alone", "alone"] for line in seen["starts"]), seen["starts"]
    assert str(seen["pid"]) == seen["starts"][-1][0]
    assert len(seen["starts"]) == seen["starts_in_the_end"]
    return seen


@pytest.mark.fault(54, 58)
@pytest.mark.parametrize("ready", ["health", "callback"])
@pytest.mark.parametrize("point", POINTS[: POINTS.index("opened")])
def test_nothing_of_the_daemon_ran_and_the_next_starts_it_when_its_gate_was_not_opened(
    tmp_path: Path, point: str, ready: str
) -> None:
    seen = killed_at(tmp_path, point, ready)
    assert ("spawned", 1) == (seen["origin"], len(seen["starts"]))
    if ready == "health":
        # One that calls back may be found, and stopped, in the moment before it hears of the end.
        assert (point == "recorded") == ("record_stale" in seen["kinds"])


@pytest.mark.fault(58)
@pytest.mark.parametrize("point", POINTS[POINTS.index("opened") :])
def test_the_next_finishes_the_start_of_a_daemon_that_can_be_asked(
    tmp_path: Path, point: str
) -> None:
    seen = killed_at(tmp_path, point, "health")
    assert ("adopted", 1) == (seen["origin"], len(seen["starts"]))


@pytest.mark.fault(58)
@pytest.mark.parametrize("point", ["opened", "ready"])
def test_the_next_stops_a_daemon_whose_callback_is_lost_and_starts_it_anew(
    tmp_path: Path, point: str
) -> None:
    seen = killed_at(tmp_path, point, "callback")
    assert ("spawned", 2) == (seen["origin"], len(seen["starts"]))
    kinds = seen["kinds"]
    assert kinds.index("stopped") < kinds.index("spawned")


@pytest.mark.fault(58)
def test_a_daemon_that_called_back_is_kept_when_that_was_written(tmp_path: Path) -> None:
    seen = killed_at(tmp_path, "noted", "callback")
    assert ("adopted", 1) == (seen["origin"], len(seen["starts"]))


@pytest.mark.slow
@pytest.mark.fault(58)
def test_there_is_one_daemon_at_whatever_moment_its_starter_is_killed(tmp_path: Path) -> None:
    """Six moments by chance; the chaos session has more: --ensure."""
    assert [] == run_app(STRUCK, str(tmp_path), str(A_START_S), env=UNMEASURED)
