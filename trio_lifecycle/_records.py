"""Records.

What is remembered of a daemon so that another program can find it and prove that it is the right
one.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, cast, get_args

from attrs import Attribute, field, frozen

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._names import check_name

RecordState = Literal["starting", "ready", "stopping"]
"""Where a recorded daemon stood when its record was written.

- ``"starting"``: its process exists, and somebody waits until it is ready.
- ``"ready"``: it was seen to be up.
- ``"stopping"``: it was asked to go.
"""

# The kernel gives no greater number (PID_MAX_LIMIT, proc_sys_kernel(5) on pid_max). 0 and 1 are
# nobody's daemon, and -1 would signal everybody (kill(2)).
_PIDS: Final = range(2, 2**22 + 1)

# signal(7); 0 would only ask whether somebody is there.
_SIGNALS: Final = range(1, 65)

# What a SQL integer holds.
_MOST: Final = 2**63 - 1

# Up to here a float and an integer are the same number, so that a time is still one when it is
# stored and read.
_LATEST: Final = 2**53


class Identity(NamedTuple):
    """One process, told so that no later one can be taken for it.

    Attributes:
        host: The name of the machine that it runs on.
        boot_id: Which boot of that machine it was (/proc/sys/kernel/random/boot_id). Two machines,
            and two boots of one, never have the same.
        pid: Its number.
        start_time: When it started, in clock ticks since the machine's boot (proc_pid_stat(5),
            field 22).
        pid_namespace: In which pid namespace the number counts (pid_namespaces(7)); 0 where that is
            not known.
    """

    host: str
    boot_id: str
    pid: int
    start_time: int
    pid_namespace: int = 0


def _is_name(record: object, attribute: "Attribute[str]", value: object) -> None:
    check_name(attribute.name, value)


def _is_text(record: object, attribute: "Attribute[Any]", value: object) -> None:
    if not isinstance(value, str):
        raise ConfigError(attribute.name, f"must be a string, not {value!r}")
    if "\0" in value:
        # No path, no URL and no program's argument can hold it.
        raise ConfigError(attribute.name, f"must not contain a NUL: {value!r}")


def _is_text_or_none(record: object, attribute: "Attribute[Any]", value: object) -> None:
    if value is not None:
        _is_text(record, attribute, value)


def _is_pid(record: object, attribute: "Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value not in _PIDS:
        raise ConfigError(attribute.name, f"{value!r} is no number of a daemon's process")


def _is_owner(record: object, attribute: "Attribute[Any]", value: object) -> None:
    # The first process of a container may own daemons.
    if value is not None and value != 1:
        _is_pid(record, attribute, value)


def _is_count(record: object, attribute: "Attribute[int]", value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
        raise ConfigError(attribute.name, f"must be a number, 0 or more, not {value!r}")


def _is_port(record: object, attribute: "Attribute[int | None]", value: object) -> None:
    if value is not None and (
        isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 65_536
    ):
        raise ConfigError(attribute.name, f"must be a port or None, not {value!r}")


def _is_state(record: object, attribute: "Attribute[RecordState]", value: object) -> None:
    if value not in get_args(RecordState):
        known = ", ".join(map(repr, get_args(RecordState)))
        raise ConfigError(attribute.name, f"must be one of {known}, not {value!r}")


def _time(value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= _LATEST:  # type: ignore[operator]
        raise ConfigError("started_at, heartbeat_at", f"must be seconds, not {value!r}")
    return float(value)  # type: ignore[arg-type]


def _rungs(value: object) -> tuple[tuple[int, float], ...]:
    try:
        rungs = tuple((int(signum), float(seconds)) for signum, seconds in value)  # type: ignore[attr-defined]
    except (TypeError, ValueError, OverflowError):
        raise ConfigError("stop_ladder", f"must be pairs of numbers, not {value!r}") from None
    for signum, seconds in rungs:
        if signum not in _SIGNALS or seconds < 0 or not math.isfinite(seconds):
            raise ConfigError("stop_ladder", f"{(signum, seconds)!r} is no signal with its seconds")
    return rungs


def _report(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError("report", f"must be a mapping, not {value!r}")
    try:
        # A copy, of what another program can read again.
        return cast("dict[str, Any]", json.loads(json.dumps(dict(value))))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError("report", f"can't be written as JSON: {error}") from None


@frozen(kw_only=True)
class DaemonRecord:
    """One daemon, as a registry remembers it.

    Attributes:
        name: The daemon's name.
        instance_id: Which spawn of it this is.
        host: The machine that it runs on.
        boot_id: Which boot of the machine that was.
        pid: Its main process; trusted only together with ``start_time`` and ``boot_id``.
        start_time: When that process started, in clock ticks since the machine's boot (proc(5),
            field 22).
        pid_namespace: In which pid namespace the number counts; 0 where that is not known.
        url: Where it can be reached, or None.
        port: Its port, or None.
        state: ``"starting"``, ``"ready"`` or ``"stopping"``: where it stood when this was written.
        log_file: Where its output goes, or None if that is no file.
        fingerprint: Of the configuration that it was started from, field by field; it holds no
            value of it.
        stop_ladder: How it is to be stopped: pairs of a signal's number and seconds.
        report: What it said of itself when it became ready, as ``DaemonHandle.report``.
        seen_alive: When its main process was last known to live, in clock ticks since the machine's
            boot. What is in the session or group of its number and older than that is its own: as
            long as there is one, the kernel gives the number to nobody else.
        owner_pid: The program with which it goes, however that ends; None where it is left running,
            or outlives a killed owner.
        owner_start_time: When that program started, as ``start_time``.
        started_at: When it was spawned, in seconds since the epoch.
        heartbeat_at: When it was last noted to be up, in seconds since the epoch.

    Raises:
        ConfigError: A value can't be meant; a pid of 0, 1 or -1 is never signalled.
    """

    name: str = field(validator=_is_name)
    instance_id: str = field(validator=_is_text)
    host: str = field(validator=_is_text)
    boot_id: str = field(validator=_is_text)
    pid: int = field(validator=_is_pid)
    start_time: int = field(validator=_is_count)
    pid_namespace: int = field(default=0, validator=_is_count)
    url: str | None = field(default=None, validator=_is_text_or_none)
    port: int | None = field(default=None, validator=_is_port)
    state: RecordState = field(default="ready", validator=_is_state)
    log_file: str | None = field(default=None, validator=_is_text_or_none)
    fingerprint: str = field(default="", validator=_is_text)
    stop_ladder: tuple[tuple[int, float], ...] = field(default=(), converter=_rungs)
    report: Mapping[str, Any] = field(factory=dict, converter=_report, hash=False)
    seen_alive: int = field(default=0, validator=_is_count)
    owner_pid: int | None = field(default=None, validator=_is_owner)
    owner_start_time: int = field(default=0, validator=_is_count)
    started_at: float = field(converter=_time)
    heartbeat_at: float = field(converter=_time)

    @property
    def identity(self) -> Identity:
        """The process that it is about."""
        return Identity(self.host, self.boot_id, self.pid, self.start_time, self.pid_namespace)

    def is_about_same(self, other: "DaemonRecord") -> bool:
        """Say whether another record is of the same instance, in the same state."""
        return (self.instance_id, self.state) == (other.instance_id, other.state)


class RecordChange(NamedTuple):
    """Something that happened to a record.

    Attributes:
        record: The record as it is now, or as it was when it was removed.
        removed: True when it is no longer there.
    """

    record: DaemonRecord
    removed: bool


class ClaimHolder(NamedTuple):
    """Who has the right to start a daemon.

    Attributes:
        pid: The process, or None where that can't be told.
        since: Since when, in seconds since the epoch, or None.
    """

    pid: int | None
    since: float | None
