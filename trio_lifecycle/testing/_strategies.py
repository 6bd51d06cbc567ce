"""What Hypothesis draws from: seconds and schedules."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def seconds(longest: float = 100.0) -> "SearchStrategy[float]":
    """Draw a time span of more than 0 seconds.

    Round numbers come often, so that two spans meet: the interesting moments are those at which two
    things happen at once.

    Args:
        longest: The longest span.
    """
    from hypothesis import strategies as st

    round_ones = [0.001, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 1.1, 2.0, 10.0, 30.0]
    meeting = st.sampled_from([span for span in round_ones if span <= longest] or [longest])
    return st.one_of(meeting, st.floats(min_value=0.001, max_value=longest))


def schedules() -> "SearchStrategy[int]":
    """Draw a seed for ``run_simulated``: one order of tasks."""
    from hypothesis import strategies as st

    return st.integers(min_value=0, max_value=2**32 - 1)
