"""The state table: complete, and the only way to move."""

import pytest

from trio_lifecycle._diary import Diary
from trio_lifecycle._events import Event, Failed, Ready, Starting
from trio_lifecycle._states import TRANSITIONS, IllegalMoveError, State, next_state

KINDS = sorted({kind for moves in TRANSITIONS.values() for kind in moves})
PAIRS = [(state, kind) for state in State for kind in KINDS]
LEGAL = [(state, kind) for state, kind in PAIRS if kind in TRANSITIONS[state]]
ILLEGAL = [(state, kind) for state, kind in PAIRS if kind not in TRANSITIONS[state]]


def reachable(start: State) -> set[State]:
    """The states that events lead to from this one."""
    seen: set[State] = set()
    waiting = [start]
    while waiting:
        for state in TRANSITIONS[waiting.pop()].values():
            if state not in seen:
                seen.add(state)
                waiting.append(state)
    return seen


def test_every_state_has_a_row() -> None:
    assert set(State) == set(TRANSITIONS)


def test_every_state_but_the_first_is_reached_from_it() -> None:
    assert set(State) - {State.NEW} == reachable(State.NEW)


def test_only_a_failed_start_is_a_dead_end() -> None:
    assert [State.FAILED] == [state for state in State if not TRANSITIONS[state]]


@pytest.mark.parametrize("state", State)
def test_every_state_leads_to_an_end(state: State) -> None:
    ends = {State.STOPPED, State.LEFT, State.FAILED}
    assert state in ends or reachable(state) & ends


def test_a_daemon_that_is_gone_never_becomes_ready_again() -> None:
    for state in (State.STOPPED, State.DEAD, State.FAILED, State.STOPPING):
        assert not {State.READY, State.WAITING} & reachable(state)


def test_ready_comes_only_after_waiting_or_adoption() -> None:
    entries = {(state, kind) for state, kind in LEGAL if next_state(state, kind) is State.READY}
    entries -= {(State.READY, "stray"), (State.READY, "said")}
    assert {(State.WAITING, "ready"), (State.LOOKING, "adopted")} == entries


def test_starting_comes_once() -> None:
    assert [(State.NEW, "starting")] == [pair for pair in LEGAL if pair[1] == "starting"]


@pytest.mark.parametrize(("state", "kind"), LEGAL)
def test_a_legal_move_leads_where_the_table_says(state: State, kind: str) -> None:
    assert TRANSITIONS[state][kind] is next_state(state, kind)


@pytest.mark.parametrize(("state", "kind"), [*ILLEGAL, (State.NEW, "no such kind")])
def test_an_illegal_move_raises_and_names_state_and_event(state: State, kind: str) -> None:
    with pytest.raises(
        IllegalMoveError, match=f"that is {state.value} can't get the event '{kind}'"
    ):
        next_state(state, kind)


@pytest.mark.parametrize("state", [state for state in State if "ready" not in TRANSITIONS[state]])
def test_an_illegal_move_changes_nothing_and_tells_nobody(state: State) -> None:
    heard: list[Event] = []
    diary = Diary("queen", "a1", heard.append)
    diary.state = state
    with pytest.raises(IllegalMoveError):
        diary.note(Ready, pid=1, url=None, port=None, ready_after_s=0.0)
    assert (state, []) == (diary.state, heard)


def test_a_start_that_fails_before_the_spawn_has_a_way_through_the_table() -> None:
    diary = Diary("queen", "a1", None)
    diary.note(Starting)
    diary.note(Failed, error="BinaryNotFoundError", reason="not there")
    assert State.FAILED is diary.state
