"""From events to phases: what a daemon was about, from when to when."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import in_simulated_time
from trio_lifecycle import Event, LifecycleError, PreflightError
from trio_lifecycle._states import TRANSITIONS
from trio_lifecycle.observe._phases import PHASES, Life, lives
from trio_lifecycle.testing import SimulatedDaemon


def told(*kinds: str, **facts: Any) -> list[dict[str, Any]]:
    """Events of one attempt, a second apart."""
    same = {"name": "queen", "instance_id": "a1", "pid": 7, **facts}
    return [{"event": kind, "time": 100.0 + at, **same} for at, kind in enumerate(kinds)]


def steps(life: Life) -> list[tuple[str, float]]:
    """Each phase, and how long it took."""
    return [(phase.name, phase.seconds) for phase in life.phases]


def test_a_life_without_checks_has_five_phases() -> None:
    (life,) = lives(told("starting", "found", "spawned", "ready", "stopping", "stopped"))
    names = ["find", "spawn", "wait", "ready", "stop"]
    assert [(name, 1.0) for name in names] == steps(life)
    assert ("stopped", False, 7) == (life.outcome, life.goes_on, life.pid)
    assert (100.0, 105.0) == (life.begin, life.end)


def test_checks_are_a_phase_of_their_own() -> None:
    (life,) = lives(told("starting", "found", "checked", "spawned", "ready"))
    assert [("find", 1), ("preflight", 1), ("spawn", 1), ("wait", 1), ("ready", 0)] == steps(life)
    assert life.goes_on


def test_checks_that_failed_are_the_last_phase() -> None:
    facts = {"error": "PreflightError", "reason": "no memory"}
    (life,) = lives([*told("starting", "found"), *told("", "", "failed", **facts)[2:]])
    assert [("find", 1), ("preflight", 1)] == steps(life)
    assert ("failed", "no memory", False) == (life.outcome, life.reason, life.goes_on)


def test_a_start_that_nobody_waited_for_any_more_is_no_failure() -> None:
    facts = {"error": "Cancelled", "reason": "the start was given up"}
    begun = told("starting", "found", "spawned", "stopping", "stopped")
    (life,) = lives([*begun, *told("", "", "", "", "", "failed", **facts)[5:]])
    assert ("given_up", "", False) == (life.outcome, life.reason, life.goes_on)


def test_a_daemon_that_was_found_running_has_the_search_and_its_time() -> None:
    events = (
        told("starting", "claim_awaited") + told("", "", "adopted", "left", instance_id="b2")[2:]
    )
    (life,) = lives(events)
    assert [("find", 1), ("claim", 1), ("ready", 1)] == steps(life)
    assert (True, "left") == (life.adopted, life.outcome)


def test_a_death_stays_the_outcome_when_the_rest_is_stopped() -> None:
    (life,) = lives(told("starting", "found", "spawned", "ready", "died", "stopping", "stopped"))
    assert "died" == life.outcome
    assert ("stop", 2) == steps(life)[-1]


def test_one_that_is_seen_again_has_its_time_out_of_sight() -> None:
    (life,) = lives(told("starting", "found", "spawned", "ready", "unseen", "stopping", "stopped"))
    assert [("unseen", 1), ("stop", 1)] == steps(life)[-2:]


def test_a_phase_that_goes_on_lasts_until_the_last_event_of_all() -> None:
    events = told("starting", "found", "spawned", "ready")
    other = {"event": "starting", "time": 160.0, "name": "other", "instance_id": "b"}
    queen, _ = lives([*events, other])
    assert 57.0 == queen.seconds_of("ready")
    assert queen.seconds_of("stop") is None


def test_the_same_daemon_in_the_streams_of_two_programs_has_two_lives() -> None:
    mine, theirs = told("starting", "found", by="keeper"), told("starting", "adopted", by="queen")
    assert ["keeper", "queen"] == [life.by for life in lives([*mine, *theirs])]


def test_what_is_no_event_is_passed_over() -> None:
    good = told("starting", "found")
    odd: list[dict[str, Any]] = [
        {},
        {"event": 3},
        {**good[0], "time": "now"},
        {**good[0], "time": float("nan")},
        {**good[0], "name": None},
        {**good[0], "event": "invented"},
        {**good[0], "event": "stopped", "instance_id": "nobody's"},
    ]
    (life,) = lives([*odd, *good])
    assert [("find", 1), ("spawn", 0)] == steps(life)
    assert [] == lives(odd)


KINDS = sorted({kind for moves in TRANSITIONS.values() for kind in moves})


@given(
    st.lists(
        st.builds(
            lambda kind, time, name, instance: {
                "event": kind,
                "time": time,
                "name": name,
                "instance_id": instance,
                "pid": 7,
                "reason": "because",
            },
            st.sampled_from(KINDS),
            st.floats(-1e9, 1e12),
            st.sampled_from(["one", "other"]),
            st.sampled_from(["a", "b", "c"]),
        ),
        max_size=30,
    )
)
def test_whatever_comes_phases_have_no_gaps_and_no_negative_length(
    events: list[dict[str, Any]],
) -> None:
    for life in lives(events):
        assert life.phases
        for phase in life.phases:
            assert phase.name in PHASES
            assert phase.begin <= phase.end
        for before, after in zip(life.phases, life.phases[1:], strict=False):
            assert before.end == after.begin


def test_every_kind_that_moves_a_daemon_is_known_here() -> None:
    """A new event must be told of here, too, or be one of those that begin no phase."""
    silent = {"said", "stray", "record_stale", "config_changed", "not_recovered"}
    known = {kind for kind in KINDS if lives(told("starting", kind))[0].outcome == kind}
    assert set(KINDS) - silent == known


async def fails() -> None:
    """A check that never passes."""
    raise OSError("no memory")


@in_simulated_time
@pytest.mark.parametrize(
    ("daemon", "outcome"),
    [
        (SimulatedDaemon(ready_after=2.0), "stopped"),
        (SimulatedDaemon(ready_after=2.0, dies_after=1.0), "failed"),
        (SimulatedDaemon(ready_after=90.0), "failed"),
    ],
)
async def test_real_events_of_a_start_are_read_to_their_end(
    daemon: SimulatedDaemon, outcome: str
) -> None:
    events: list[Event] = []
    try:
        async with daemon.lifecycle(observer=events.append).running():
            pass
    except LifecycleError:
        pass
    (life,) = lives(json.loads(json.dumps([event.as_dict() for event in events])))
    assert (outcome, False) == (life.outcome, life.goes_on)


@in_simulated_time
async def test_real_events_of_checks_that_failed_end_with_these() -> None:
    events: list[Event] = []
    lifecycle = SimulatedDaemon().lifecycle(preflight=[fails], observer=events.append)
    with pytest.raises(PreflightError):
        async with lifecycle.running():
            pass
    (life,) = lives(event.as_dict() for event in events)
    assert ["find", "preflight"] == [phase.name for phase in life.phases]
