"""Nothing is left of a remote guard's daemons, however its application or it itself ends."""

import signal

import pytest

from tests import reapers
from tests.guards import HOLD
from tests.reapers import Mark, held, house, kill, reaper_of, wait_until
from tests.support import lives

mark = reapers.mark

SIMPLE = ("plain", "setsid", "double fork", "no environment", "deaf", "stopped")
LONG, SHORT = "60", "0.6"


def wait_for_all(mark: Mark) -> None:
    """Wait for the application, both halves, a main process each, and the children of four."""
    wait_until(lambda: len(mark.pids()) >= 3 + len(SIMPLE) + 4)


@pytest.mark.fault(40, 47, 49)
def test_no_daemon_of_any_manner_is_left_when_the_application_is_killed(mark: Mark) -> None:
    with house(HOLD, mark, LONG, *SIMPLE) as program, held(reaper_of(program)) as guard:
        wait_for_all(mark)
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        guard.wait_gone()


def test_no_daemon_is_left_when_the_application_is_silent_for_the_limit(mark: Mark) -> None:
    with house(HOLD, mark, SHORT, *SIMPLE) as program, held(reaper_of(program)) as guard:
        wait_for_all(mark)
        program.signal(signal.SIGSTOP)
        mark.wait_until_alone(program.pid)
        guard.wait_gone()
        program.signal(signal.SIGCONT)
        # Whichever of reading and writing is tried first says so.
        assert program.say().startswith("lost: ")


@pytest.mark.fault(50)
@pytest.mark.parametrize("half", ["inner", "outer"])
def test_nothing_is_left_and_the_application_hears_of_it_when_a_half_is_killed(
    half: str, mark: Mark
) -> None:
    with house(HOLD, mark, LONG, *SIMPLE) as program, held(reaper_of(program)) as guard:
        wait_for_all(mark)
        kill(getattr(guard, half))
        assert "lost: the guard has ended" == program.say()
        mark.wait_until_alone(program.pid)
        guard.wait_gone()


@pytest.mark.parametrize("victim", ["inner", "outer", "application"])
def test_a_daemon_is_asked_once_and_then_killed_when_there_is_an_end_of(
    victim: str, mark: Mark
) -> None:
    with house(HOLD, mark, LONG, "counting") as program, held(reaper_of(program)) as guard:
        kill(program.pid if victim == "application" else getattr(guard, victim))
        mark.wait_until_alone(program.pid)
        guard.wait_gone()
        assert ["SIGTERM"] == mark.noted()


def test_a_daemon_gets_its_own_rung_and_tidies_up_when_the_application_is_killed(
    mark: Mark,
) -> None:
    with house(HOLD, mark, LONG, "tidy", "unasked") as program, held(reaper_of(program)) as guard:
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        guard.wait_gone()
        assert ["asked"] == mark.noted()


def test_a_guard_that_is_told_that_its_connection_is_lost_ends_all_daemons(mark: Mark) -> None:
    with house(HOLD, mark, LONG, *SIMPLE) as program, held(reaper_of(program)) as guard:
        wait_for_all(mark)
        kill(guard.inner, signal.SIGUSR1)
        mark.wait_until_alone(program.pid)
        guard.wait_gone()


def test_signals_that_end_programs_do_not_end_a_guard(mark: Mark) -> None:
    with house(HOLD, mark, LONG, "plain") as program, held(reaper_of(program)) as guard:
        for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE):
            for pid in guard.pids:
                kill(pid, signum)
        assert [True, True] == [*map(lives, guard.pids)]
        kill(guard.outer, signal.SIGSTOP)
        program.signal(signal.SIGKILL)
        mark.wait_until_alone()
        guard.wait_gone()


GATED = """
from tests.guards import guarded, start_python
from tests.reapers import BEGINNING
async def main():
    async with guarded() as link:
        await start_python(link, BEGINNING + "note('ran')", gated=True)
        print("reaper", link.outer, link.inner)
        await trio.sleep_forever()
trio.run(main)
"""


@pytest.mark.parametrize("victim", ["inner", "outer", "application"])
def test_a_program_never_runs_when_before_its_gate_opens_there_is_an_end_of(
    victim: str, mark: Mark
) -> None:
    with house(GATED, mark) as program, held(reaper_of(program)) as guard:
        kill(program.pid if victim == "application" else getattr(guard, victim))
        mark.wait_until_alone(program.pid)
        guard.wait_gone()
        assert [] == mark.noted()
