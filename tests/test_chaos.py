"""The fault campaign in short, with fixed seeds; nox -s chaos plays the long one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos.plan import FAULTS, draw

ROOT = Path(__file__).resolve().parents[1]

# The long form allows 2 s; here a busy machine may take ten times as long.
BOUND_S = "20"

ORDERLY = ("exception", "cancellation", "SIGINT", "death")
KILLED = ("SIGTERM", "SIGHUP", "SIGKILL", "SIGSEGV", "exit")
REAPER_LOST = ("inner", "outer")
BOTH_LOST = tuple(name for name in FAULTS if "+" in name)

WILD = ("setsid", "double", "emptied", "hopper", "chain")


def chaos(*words: str) -> str:
    """Run a campaign to its end; give what it wrote."""
    status, wrote = run_chaos(*words)
    assert 0 == status, wrote
    return wrote


def run_chaos(*words: str) -> tuple[int, str]:
    """Run a campaign to its end; give its exit status and what it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", "--bound", BOUND_S, *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def rounds(seed: int, *only: str) -> None:
    """Play as many rounds as there are faults among these, so that each has one.

    The seeds were chosen: none strikes before there is a daemon, most when all are up, and together
    they have all kinds.
    """
    faults = [name for name in only if name in FAULTS]
    words = [word for name in only for word in ("--only", name)]
    wrote = chaos("--rounds", str(len(faults)), "--seed", str(seed), *words)
    assert set(faults) <= {line.split()[0] for line in wrote.splitlines()}
    assert "FAILED" not in wrote


def test_the_faults_in_short_are_all_there_are() -> None:
    assert set(FAULTS) == {*ORDERLY, *KILLED, *REAPER_LOST, *BOTH_LOST}


def test_a_seed_gives_the_same_plan_again_and_another_seed_another() -> None:
    assert draw(3) == draw(3)
    assert 50 == len({str(draw(seed)).partition(":")[2] for seed in range(50)})


@pytest.mark.slow
@pytest.mark.fault(100)
def test_what_is_only_scoped_stays_when_the_application_is_killed() -> None:
    only = ("--only", "SIGKILL", "--only", "setsid")
    status, wrote = run_chaos(
        "--rounds", "1", "--seed", "7", *only, "--guarantee", "scoped", "--bound", "0.5"
    )
    assert 1 == status
    assert "survivor: " in wrote
    assert "bystander hurt" not in wrote


@pytest.mark.slow
@pytest.mark.fault(99)
def test_nothing_is_left_and_no_bystander_hurt_when_the_application_ends_in_order() -> None:
    rounds(224, *ORDERLY)


@pytest.mark.slow
@pytest.mark.fault(47, 49, 99)
def test_nothing_is_left_and_no_bystander_hurt_when_the_application_is_killed() -> None:
    rounds(152, *KILLED)


@pytest.mark.slow
@pytest.mark.fault(40)
def test_what_leaves_its_session_and_parents_goes_when_the_application_is_killed() -> None:
    rounds(59, "SIGKILL", "SIGSEGV", *WILD)


@pytest.mark.slow
@pytest.mark.fault(50, 99)
def test_nothing_is_left_and_the_owner_is_told_when_the_reaper_loses_a_process() -> None:
    rounds(74, *REAPER_LOST)


@pytest.mark.slow
@pytest.mark.fault(51, 99)
def test_nothing_is_left_when_the_application_and_a_process_of_the_reaper_are_killed() -> None:
    rounds(155, *BOTH_LOST)


@pytest.mark.slow
def test_no_descriptor_zombie_thread_or_memory_is_lost_in_300_cycles() -> None:
    assert "nothing has grown" in chaos("--cycles", "300")
