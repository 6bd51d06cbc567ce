"""The diary: every event once, in order, whatever the observer does."""

import logging

import pytest

from trio_lifecycle._diary import Diary
from trio_lifecycle._events import (
    Died,
    Event,
    Found,
    Ready,
    Spawned,
    Starting,
    Stopped,
    Stopping,
)
from trio_lifecycle._states import IllegalMoveError, State


def live(diary: Diary) -> list[State]:
    """A whole life, and the states that it went through."""
    steps: list[tuple[type[Event], dict[str, object]]] = [
        (Starting, {}),
        (Found, {"path": "/q"}),
        (Spawned, {"pid": 7}),
        (Ready, {"pid": 7, "url": None, "port": None, "ready_after_s": 0.5}),
        (Stopping, {"pid": 7, "rung": "SIGTERM"}),
        (Stopping, {"pid": 7, "rung": "SIGKILL"}),
        (Stopped, {"pid": 7, "rung": "SIGKILL", "status": -9, "seconds": 1.0}),
    ]
    states = []
    for kind, facts in steps:
        diary.note(kind, **facts)
        states.append(diary.state)
    return states


LIFE = [
    *(State.LOOKING, State.PREPARING, State.WAITING, State.READY),
    *(State.STOPPING, State.STOPPING, State.STOPPED),
]
KINDS = ["starting", "found", "spawned", "ready", "stopping", "stopping", "stopped"]


def test_a_new_diary_is_empty() -> None:
    assert State.NEW is Diary("queen", "a1", None).state


def test_a_diary_without_an_observer_follows_the_table() -> None:
    assert LIFE == live(Diary("queen", "a1", None))


def test_the_observer_hears_every_event_once_and_in_order() -> None:
    heard: list[Event] = []
    assert LIFE == live(Diary("queen", "a1", heard.append))
    assert KINDS == [event.kind for event in heard]


def test_every_event_carries_name_and_instance_and_the_wall_clock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 1234.5)
    heard: list[Event] = []
    Diary("queen", "a1", heard.append).note(Starting)
    assert [Starting(name="queen", instance_id="a1", time=1234.5)] == heard


def test_the_state_has_moved_when_the_observer_hears_of_it() -> None:
    seen: list[State] = []
    diary = Diary("queen", "a1", lambda event: seen.append(diary.state))
    assert live(diary) == seen


def test_an_illegal_event_is_told_to_nobody_and_the_life_goes_on() -> None:
    heard: list[Event] = []
    diary = Diary("queen", "a1", heard.append)
    diary.note(Starting)
    with pytest.raises(IllegalMoveError):
        diary.note(Died, pid=7, status=0)
    diary.note(Found, path="/q")
    assert ["starting", "found"] == [event.kind for event in heard]
    assert State.PREPARING is diary.state


def test_an_observer_that_raises_is_logged_once_and_hears_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: list[str] = []

    def observe(event: Event) -> None:
        heard.append(event.kind)
        if event.kind == "spawned":
            raise RuntimeError("observer broke")

    assert LIFE == live(Diary("queen", "a1", observe))
    assert ["starting", "found", "spawned"] == heard
    (record,) = caplog.records
    assert ("trio_lifecycle", logging.ERROR) == (record.name, record.levelno)
    assert "an observer of queen failed at 'spawned' and hears no more" == record.getMessage()
    assert "observer broke" in caplog.text


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_ctrl_c_in_an_observer_is_not_swallowed(error: type[BaseException]) -> None:
    def observe(event: Event) -> None:
        raise error

    diary = Diary("queen", "a1", observe)
    with pytest.raises(error):
        diary.note(Starting)
    assert State.LOOKING is diary.state
