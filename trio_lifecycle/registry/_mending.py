"""Records that another version wrote: read as far as this one understands them."""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from attrs import evolve, fields

from trio_lifecycle.abc import DaemonRecord

# What tells a process from every other. A record without it is about nobody.
_IDENTITY: Final = ("name", "host", "boot_id", "pid", "start_time")
# In the place of what a record has always had. No process was ever started under such an id.
_STAND_INS: Final[Mapping[str, Any]] = {
    "instance_id": "unknown",
    "started_at": 0.0,
    "heartbeat_at": 0.0,
}
_FIELDS: Final = frozenset(attribute.name for attribute in fields(DaemonRecord))

# Whatever a value is, this is how it is refused.
REFUSALS: Final = (ValueError, TypeError, OverflowError, RecursionError)


class Reading(NamedTuple):
    """What was read.

    Attributes:
        record: The record.
        lost: Which of its fields could not be understood, and have their defaults.
    """

    record: DaemonRecord
    lost: tuple[str, ...] = ()


def read(found: object) -> Reading:
    """Read a record.

    What a later version added is left out. A value that can't be meant gives way to the field's
    default as long as it can be told which process the record is about: a record that counted as
    not there would have a second daemon started beside one that runs.

    Raises:
        ValueError, TypeError, OverflowError, RecursionError: It is about no process.
    """
    if not isinstance(found, dict):
        raise TypeError("it is no record")
    known = {name: value for name, value in found.items() if name in _FIELDS}
    try:
        return Reading(DaemonRecord(**known))
    except REFUSALS:
        return _mend(known)


def _mend(known: Mapping[str, Any]) -> Reading:
    lacking = [name for name in _IDENTITY if name not in known]
    if lacking:
        raise ValueError(f"it lacks {', '.join(lacking)}")
    record = DaemonRecord(**_STAND_INS, **{name: known[name] for name in _IDENTITY})
    lost = _STAND_INS.keys() - known.keys()
    for name in known.keys() - set(_IDENTITY):
        try:
            record = evolve(record, **{name: known[name]})
        except REFUSALS:
            lost.add(name)
    if not lost.isdisjoint(("owner_pid", "owner_start_time")):
        # One of them says nothing without the other.
        record = evolve(record, owner_pid=None, owner_start_time=0)
    return Reading(record, tuple(sorted(lost)))
