"""The growing interval between probes: its bounds, and what a wait of any length costs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle._polling import FRACTION_OF_ELAPSED, SHORTEST_INTERVAL_S, next_interval

ELAPSED = st.floats(0, 1e6)
CAPS = st.floats(1e-6, 1e3)


def probes_within(seconds: float, cap: float, probe_s: float = 0.0) -> int:
    """How many probes are sent in this time, each taking so long."""
    now, probes = 0.0, 0
    while now < seconds:
        probes += 1
        now += probe_s
        now += next_interval(now, cap)
    return probes


@given(ELAPSED, CAPS)
def test_the_interval_is_never_above_the_cap_and_never_zero(elapsed: float, cap: float) -> None:
    assert 0 < next_interval(elapsed, cap) <= cap


@given(ELAPSED, st.floats(SHORTEST_INTERVAL_S, 1e3))
def test_the_interval_is_never_below_the_shortest_unless_the_cap_is(
    elapsed: float, cap: float
) -> None:
    assert SHORTEST_INTERVAL_S <= next_interval(elapsed, cap)


@given(ELAPSED, ELAPSED, CAPS)
def test_the_interval_never_shrinks_while_time_goes_by(a: float, b: float, cap: float) -> None:
    assert next_interval(min(a, b), cap) <= next_interval(max(a, b), cap)


@given(ELAPSED, CAPS)
def test_news_is_late_by_a_small_part_of_the_wait_or_1_ms_at_most(
    elapsed: float, cap: float
) -> None:
    late = next_interval(elapsed, cap)
    assert late <= max(SHORTEST_INTERVAL_S, elapsed * FRACTION_OF_ELAPSED)


@given(st.floats(0.05, 1e3), st.floats(0, 1))
def test_5_seconds_cost_fewer_than_600_probes(cap: float, probe_s: float) -> None:
    assert probes_within(5.0, cap, probe_s) < 600


@given(st.floats(0.02, 10))
def test_a_minute_costs_no_more_than_polling_at_the_cap_and_the_first_seconds(cap: float) -> None:
    assert probes_within(60.0, cap) <= 60.0 / cap + 1000


@pytest.mark.parametrize(
    ("elapsed", "cap", "expected"),
    [
        (0.0, 0.1, 0.001),
        (0.1, 0.1, 0.001),
        (1.0, 0.1, 0.014),
        (10.0, 0.1, 0.1),
        (100.0, 0.1, 0.1),
        (0.0, 0.0001, 0.0001),
    ],
)
def test_the_interval_is_a_small_part_of_the_wait_between_1_ms_and_the_cap(
    elapsed: float, cap: float, expected: float
) -> None:
    assert pytest.approx(expected) == next_interval(elapsed, cap)


def test_a_wait_of_5_seconds_sends_some_hundred_probes() -> None:
    assert 350 <= probes_within(5.0, 0.1) < 600
