"""Events: plain values for machines, a sentence for people."""

import json
import signal

import pytest
from attrs.exceptions import FrozenInstanceError

from trio_lifecycle import _events
from trio_lifecycle._events import (
    Adopted,
    Checked,
    ClaimAwaited,
    ConfigChanged,
    Died,
    Event,
    Failed,
    Found,
    Left,
    NotRecovered,
    Ready,
    ReaperLost,
    RecordStale,
    Said,
    Spawned,
    Starting,
    Stopped,
    Stopping,
    Stray,
    Unseen,
)
from trio_lifecycle._states import TRANSITIONS
from trio_lifecycle._status import describe_status, signal_name

WHO = {"name": "queen", "instance_id": "a1", "time": 12.5}
URL = "http://127.0.0.1:80/"

EVENTS: list[tuple[Event, str, dict[str, object]]] = [
    (Event(name="queen", instance_id="a1", time=12.5), "event", {}),
    (Starting(name="queen", instance_id="a1", time=12.5), "is wanted", {}),
    (Found(name="queen", instance_id="a1", time=12.5, path="/q"), "is /q", {"path": "/q"}),
    (
        Checked(name="queen", instance_id="a1", time=12.5, checks=1),
        "has passed its check",
        {"checks": 1},
    ),
    (
        Checked(name="queen", instance_id="a1", time=12.5, checks=3),
        "has passed 3 checks",
        {"checks": 3},
    ),
    (
        Adopted(name="queen", instance_id="a1", time=12.5, pid=7, url=URL),
        f"runs already as process 7, at {URL}",
        {"pid": 7, "url": URL},
    ),
    (
        Adopted(name="queen", instance_id="a1", time=12.5, pid=None, url=None),
        "runs already",
        {},
    ),
    (
        Spawned(name="queen", instance_id="a1", time=12.5, pid=7),
        "started as process 7",
        {"pid": 7},
    ),
    (
        Ready(
            name="queen", instance_id="a1", time=12.5, pid=7, url=URL, port=80, ready_after_s=0.5
        ),
        f"ready after 0.50 s at {URL}",
        {"pid": 7, "url": URL, "port": 80, "ready_after_s": 0.5},
    ),
    (
        Ready(
            name="queen", instance_id="a1", time=12.5, pid=7, url=None, port=None, ready_after_s=0.0
        ),
        "ready after 0.00 s",
        {"pid": 7, "ready_after_s": 0.0},
    ),
    (
        Died(name="queen", instance_id="a1", time=12.5, pid=7, status=0),
        "exited with status 0",
        {"pid": 7, "status": 0},
    ),
    (
        Stopping(name="queen", instance_id="a1", time=12.5, pid=7, rung="SIGTERM"),
        "gets SIGTERM",
        {"pid": 7, "rung": "SIGTERM"},
    ),
    (
        Stopped(
            name="queen", instance_id="a1", time=12.5, pid=7, rung=None, status=-15, seconds=1.0
        ),
        "stopped after 1.00 s (was killed by SIGTERM)",
        {"pid": 7, "status": -15, "seconds": 1.0},
    ),
    (
        Failed(name="queen", instance_id="a1", time=12.5, error="SpawnError", reason="no memory"),
        "did not start: no memory",
        {"error": "SpawnError", "reason": "no memory"},
    ),
    (
        ClaimAwaited(name="queen", instance_id="a1", time=12.5, holder_pid=7),
        "is being started or stopped by process 7, which is waited for",
        {"holder_pid": 7},
    ),
    (
        ClaimAwaited(name="queen", instance_id="a1", time=12.5, holder_pid=None),
        "is being started or stopped by another program, which is waited for",
        {},
    ),
    (
        RecordStale(name="queen", instance_id="a1", time=12.5, pid=7),
        "was recorded as process 7, which is gone",
        {"pid": 7},
    ),
    (
        ConfigChanged(
            name="queen",
            instance_id="a1",
            time=12.5,
            pid=7,
            fields=("args", "env"),
            action="keep",
        ),
        "runs as process 7, started with other args, env; it is used as it is",
        {"pid": 7, "fields": ["args", "env"], "action": "keep"},
    ),
    (
        ConfigChanged(
            name="queen", instance_id="a1", time=12.5, pid=7, fields=("args",), action="error"
        ),
        "runs as process 7, started with other args; it is left alone",
        {"pid": 7, "fields": ["args"], "action": "error"},
    ),
    (
        ReaperLost(name="queen", instance_id="a1", time=12.5, pid=7, reason="it was killed"),
        "has lost its reaper: it was killed",
        {"pid": 7, "reason": "it was killed"},
    ),
    (
        Unseen(name="queen", instance_id="a1", time=12.5, pid=7, reason="the connection is lost"),
        "can't be seen any more: the connection is lost",
        {"pid": 7, "reason": "the connection is lost"},
    ),
    (
        Stray(name="queen", instance_id="a1", time=12.5, pid=9, command="sleep 5"),
        "may have started process 9 (sleep 5)",
        {"pid": 9, "command": "sleep 5"},
    ),
    (
        Said(name="queen", instance_id="a1", time=12.5, pid=7, topic="status", text="loading 40 %"),
        "says: loading 40 %",
        {"pid": 7, "topic": "status", "text": "loading 40 %"},
    ),
    (
        Said(name="queen", instance_id="a1", time=12.5, pid=7, topic="status", text="\x1b[2J\r"),
        r"says: \x1b[2J\r",
        {"pid": 7, "topic": "status", "text": "\x1b[2J\r"},
    ),
    (
        Said(name="queen", instance_id="a1", time=12.5, pid=7, topic="reloading", text=""),
        "says: reloading",
        {"pid": 7, "topic": "reloading", "text": ""},
    ),
    (
        NotRecovered(
            name="queen",
            instance_id="a1",
            time=12.5,
            pid=7,
            problem="port 80 is taken",
            waited_s=5.0,
        ),
        "is gone, but 5.00 s later not all of it is free: port 80 is taken",
        {"pid": 7, "problem": "port 80 is taken", "waited_s": 5.0},
    ),
    (
        Left(name="queen", instance_id="a1", time=12.5, pid=7),
        "is left running",
        {"pid": 7},
    ),
]

each_event = pytest.mark.parametrize(
    ("event", "sentence", "facts"), EVENTS, ids=[f"{e.kind}-{s}" for e, s, _ in EVENTS]
)
KINDS = {
    value
    for value in vars(_events).values()
    if isinstance(value, type) and issubclass(value, Event)
}


def test_every_event_of_the_file_is_tried_here() -> None:
    assert {type(event) for event, _, _ in EVENTS} == KINDS


@each_event
def test_an_event_is_a_sentence_about_the_daemon(
    event: Event, sentence: str, facts: dict[str, object]
) -> None:
    assert f"queen {sentence}" == str(event)


@each_event
def test_an_event_is_plain_values_without_the_unknown_ones(
    event: Event, sentence: str, facts: dict[str, object]
) -> None:
    assert {"event": event.kind} | WHO | facts == json.loads(json.dumps(event.as_dict()))


@each_event
def test_an_event_compares_and_can_not_be_changed(
    event: Event, sentence: str, facts: dict[str, object]
) -> None:
    with pytest.raises(FrozenInstanceError):
        event.name = "other"  # type: ignore[misc]
    assert event in {event}


def test_kinds_are_the_events_of_the_state_table() -> None:
    in_table = {kind for moves in TRANSITIONS.values() for kind in moves}
    assert in_table == {kind.kind for kind in KINDS - {Event}}


# --- what an exit status means --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with status 0"),
        (127, "exited with status 127"),
        (-9, "was killed by SIGKILL"),
        (-int(signal.SIGRTMIN) - 1, f"was killed by signal {int(signal.SIGRTMIN) + 1}"),
        (None, "ended with a status that only its parent knows"),
    ],
)
def test_an_exit_status_is_described(status: int | None, words: str) -> None:
    assert words == describe_status(status)


def test_a_number_that_is_no_signal_is_still_named() -> None:
    assert "signal 4000" == signal_name(4000)
