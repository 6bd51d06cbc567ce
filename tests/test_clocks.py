"""The clocks of a wait: which ends first, whatever was heard, and never later than the limit."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from trio_lifecycle._clocks import ReadyClocks

seconds = st.integers(1, 1000).map(float)
steps = st.lists(
    st.tuples(st.floats(0.0, 50.0), st.none() | st.floats(0.0, 1e9)),
    max_size=8,
)


def test_a_silent_daemon_has_its_ready_timeout() -> None:
    clocks = ReadyClocks(100.0, 30.0, None, 300.0)
    assert (130.0, "ready_timeout") == (clocks.due, clocks.first_to_end)


def test_silence_ends_the_wait_before_its_time() -> None:
    clocks = ReadyClocks(100.0, 30.0, 5.0, 300.0)
    assert (105.0, "stall_timeout") == (clocks.due, clocks.first_to_end)


def test_each_sign_of_life_gives_another_while_of_silence() -> None:
    clocks = ReadyClocks(100.0, 30.0, 5.0, 300.0)
    clocks.note_life(104.0)
    assert 109.0 == clocks.due
    clocks.note_life(128.0)
    assert (130.0, "ready_timeout") == (clocks.due, clocks.first_to_end)


def test_an_extension_counts_from_when_it_was_asked_for_and_permits_silence() -> None:
    clocks = ReadyClocks(100.0, 30.0, 5.0, 300.0)
    clocks.extend(102.0, 60.0)
    assert (162.0, "ready_timeout") == (clocks.due, clocks.first_to_end)
    assert not clocks.is_at_its_limit


def test_an_extension_never_shortens_the_time() -> None:
    clocks = ReadyClocks(100.0, 30.0, None, 300.0)
    clocks.extend(101.0, 0.001)
    assert 130.0 == clocks.due


def test_no_extension_goes_beyond_the_limit() -> None:
    clocks = ReadyClocks(100.0, 30.0, None, 40.0)
    clocks.extend(101.0, inf)
    assert 140.0 == clocks.due
    assert clocks.is_at_its_limit


@given(ready=seconds, stall=st.none() | seconds, more=seconds, steps=steps)
def test_the_end_only_moves_later_and_stays_within_the_limits(
    ready: float, stall: float | None, more: float, steps: list[tuple[float, float | None]]
) -> None:
    clocks = ReadyClocks(0.0, ready, stall, ready + more)
    now, silent_until = 0.0, inf if stall is None else stall
    for pause, extension in steps:
        before = clocks.due
        now += pause
        if extension is None:
            clocks.note_life(now)
        else:
            clocks.extend(now, extension)
        silent_until = inf if stall is None else max(silent_until, now + stall)
        assert before <= clocks.due <= ready + more
        assert min(ready, silent_until) <= clocks.due
