"""The stop ladder: what it takes, what it refuses, and how it shows itself."""

import math
import pickle
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, Rung, StopLadder, StopReport


def test_the_default_is_sigterm_and_10_seconds() -> None:
    assert ((Rung(signal.SIGTERM, 10.0)),) == DEFAULT_STOP_LADDER.rungs


def test_rungs_keep_their_order() -> None:
    ladder = StopLadder((signal.SIGINT, 2), (signal.SIGTERM, 30.5))
    assert (Rung(2, 2.0), Rung(15, 30.5)) == ladder.rungs
    assert ["SIGINT", "SIGTERM"] == [rung.name for rung in ladder.rungs]


def test_the_seconds_of_a_ladder_are_the_sum_of_its_rungs() -> None:
    assert 32.5 == StopLadder((signal.SIGINT, 2), (signal.SIGTERM, 30.5)).seconds


def test_a_ladder_without_rungs_kills_at_once() -> None:
    ladder = StopLadder()
    assert () == ladder.rungs
    assert "0.0" == repr(ladder.seconds)


def test_a_ladder_can_be_made_of_the_rungs_of_another() -> None:
    assert DEFAULT_STOP_LADDER == StopLadder(*DEFAULT_STOP_LADDER.rungs)


def test_ladders_compare_hash_and_pickle() -> None:
    one, two = (StopLadder((signal.SIGTERM, 1), (signal.SIGINT, 0)) for _ in range(2))
    assert one == two
    assert hash(one) == hash(two)
    assert one == pickle.loads(pickle.dumps(one))
    assert one != StopLadder((signal.SIGTERM, 1))


def test_a_ladder_shows_itself_as_it_is_written() -> None:
    ladder = StopLadder((signal.SIGTERM, 10), (int(signal.SIGRTMIN) + 1, 0.5))
    assert f"StopLadder((SIGTERM, 10.0), (signal {int(signal.SIGRTMIN) + 1}, 0.5))" == repr(ladder)


@pytest.mark.parametrize(
    "step",
    [
        None,
        15,
        "SIGTERM",
        (15,),
        (15, 1.0, 2.0),
        ("SIGTERM", 1.0),
        (15, "1"),
        (15, None),
        (15.0, 1.0),
        (True, 1.0),
        (15, True),
        Rung(True, 1.0),
        Rung(15, True),
        Rung(15, "1"),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_a_rung_that_is_no_signal_with_seconds_is_refused(step: tuple[int, float]) -> None:
    with pytest.raises(ConfigError, match=r"^stop_ladder: a rung is \(signal, seconds\)"):
        StopLadder(step)


@pytest.mark.fault(91)
@pytest.mark.parametrize(
    "seconds", [-1, -0.001, math.nan, math.inf, -math.inf, 10**400], ids=lambda s: repr(s)[:9]
)
@pytest.mark.parametrize("make", [lambda *step: step, Rung], ids=["tuple", "Rung"])
def test_seconds_that_are_negative_or_not_finite_are_refused(seconds: float, make: type) -> None:
    with pytest.raises(
        ConfigError, match=r"^stop_ladder: the seconds of SIGTERM must be 0 or more"
    ):
        StopLadder(make(signal.SIGTERM, seconds))


@pytest.mark.parametrize("number", [0, -15, 32, 33, 65, 10**30])
def test_a_number_that_is_no_signal_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"^stop_ladder: {number} is no signal"):
        StopLadder((number, 1.0))


def test_sigkill_as_a_rung_is_refused_because_it_comes_by_itself() -> None:
    with pytest.raises(ConfigError, match="SIGKILL is always the last rung by itself"):
        StopLadder((signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0))


SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL})


@given(st.lists(st.tuples(st.sampled_from(SIGNALS), st.floats(0, 1e300) | st.integers(0, 10**18))))
def test_any_signals_with_finite_seconds_make_a_ladder(steps: list[tuple[int, float]]) -> None:
    ladder = StopLadder(*steps)
    assert [(number, float(seconds)) for number, seconds in steps] == [
        (rung.signum, rung.seconds) for rung in ladder.rungs
    ]
    assert all(type(rung.seconds) is float for rung in ladder.rungs)


def test_a_stop_report_compares_and_pickles() -> None:
    report = StopReport("SIGTERM", 0, 0.5)
    assert report == pickle.loads(pickle.dumps(report))
    assert report != StopReport("SIGKILL", 0, 0.5)
