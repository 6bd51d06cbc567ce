"""Events as log lines: level, sentence and facts."""

import logging

import pytest

from trio_lifecycle import log_events
from trio_lifecycle._diary import Diary
from trio_lifecycle._events import (
    Adopted,
    Died,
    Event,
    Failed,
    Found,
    Left,
    Ready,
    Spawned,
    Starting,
    Stopped,
    Stopping,
)


@pytest.mark.parametrize(
    ("event", "level"),
    [
        (Starting(name="queen", instance_id="a1", time=0.0), logging.DEBUG),
        (Found(name="queen", instance_id="a1", time=0.0, path="/100%s"), logging.DEBUG),
        (Adopted(name="queen", instance_id="a1", time=0.0, pid=7, url=None), logging.INFO),
        (Spawned(name="queen", instance_id="a1", time=0.0, pid=7), logging.INFO),
        (
            Ready(
                name="queen", instance_id="a1", time=0.0, pid=7, url=None, port=1, ready_after_s=1
            ),
            logging.INFO,
        ),
        (Stopping(name="queen", instance_id="a1", time=0.0, pid=7, rung="SIGINT"), logging.INFO),
        (
            Stopped(
                name="queen", instance_id="a1", time=0.0, pid=7, rung=None, status=0, seconds=1
            ),
            logging.INFO,
        ),
        (Left(name="queen", instance_id="a1", time=0.0, pid=7), logging.INFO),
        (Died(name="queen", instance_id="a1", time=0.0, pid=7, status=1), logging.WARNING),
        (Failed(name="queen", instance_id="a1", time=0.0, error="E", reason="r"), logging.WARNING),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_an_event_is_one_line_with_its_facts(
    event: Event, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, "trio_lifecycle.events"):
        log_events(event)
    (record,) = caplog.records
    assert ("trio_lifecycle.events", level) == (record.name, record.levelno)
    assert str(event) == record.getMessage()
    assert event.as_dict() == vars(record)["daemon_event"]


def test_small_steps_are_silent_unless_somebody_asks(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "trio_lifecycle.events"):
        log_events(Starting(name="queen", instance_id="a1", time=0.0))
        log_events(Spawned(name="queen", instance_id="a1", time=0.0, pid=7))
    assert ["queen started as process 7"] == caplog.messages


def test_it_serves_as_an_observer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "trio_lifecycle.events"):
        Diary("queen", "a1", log_events).note(Starting)
    assert ["queen is wanted"] == caplog.messages
