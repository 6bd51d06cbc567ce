"""Event records: what happened to a daemon, frozen, readable as a sentence and as a dictionary."""

from typing import Any, ClassVar, TypeVar, dataclass_transform

from attrs import frozen

from trio_lifecycle._status import describe_status, visible

EventT = TypeVar("EventT")


@dataclass_transform(kw_only_default=True, frozen_default=True)
def _event(kind: type[EventT]) -> type[EventT]:
    # What all events share is written once below: generating it for each would double the time
    # that importing this package takes.
    return frozen(kind, kw_only=True, slots=False, repr=False, eq=False)


@_event
class Event:
    """Something that happened to a daemon.

    ``str(event)`` is a sentence for people, ``event.as_dict()`` is for logs and machines.

    Attributes:
        name: The daemon's name.
        instance_id: Which spawn of it this is about; the same for every event of one attempt.
        time: When it happened: seconds since the epoch, by the wall clock (for logs; durations are
            measured apart).
    """

    kind: ClassVar[str] = "event"

    name: str
    instance_id: str
    time: float

    def as_dict(self) -> dict[str, Any]:
        """Give the event as plain values, its kind under ``event``.

        Facts that are unknown are left out.
        """
        facts = {key: _plain(value) for key, value in vars(self).items() if value is not None}
        return {"event": self.kind} | facts

    def __str__(self) -> str:
        return f"{self.name} {self._sentence()}"

    def __repr__(self) -> str:
        facts = ", ".join(f"{key}={value!r}" for key, value in vars(self).items())
        return f"{type(self).__name__}({facts})"

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values()))

    def _sentence(self) -> str:
        return self.kind


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


@_event
class Starting(Event):
    """Somebody wants the daemon; whether it runs already is looked at next."""

    kind: ClassVar[str] = "starting"

    def _sentence(self) -> str:
        return "is wanted"


@_event
class Found(Event):
    """The program's file was found; its preflight comes next."""

    kind: ClassVar[str] = "found"
    path: str

    def _sentence(self) -> str:
        return f"is {self.path}"


@_event
class Checked(Event):
    """All checks before its start have passed; its spawn comes next."""

    kind: ClassVar[str] = "checked"
    checks: int

    def _sentence(self) -> str:
        return "has passed its check" if self.checks == 1 else f"has passed {self.checks} checks"


@_event
class Adopted(Event):
    """The daemon ran already and is used as it is."""

    kind: ClassVar[str] = "adopted"
    pid: int | None
    url: str | None

    def _sentence(self) -> str:
        process = "" if self.pid is None else f" as process {self.pid}"
        return f"runs already{process}" + ("" if self.url is None else f", at {self.url}")


@_event
class Spawned(Event):
    """The daemon's process exists; its readiness is awaited from here on."""

    kind: ClassVar[str] = "spawned"
    pid: int

    def _sentence(self) -> str:
        return f"started as process {self.pid}"


@_event
class Ready(Event):
    """The daemon is up: alive, and its ready mode says so."""

    kind: ClassVar[str] = "ready"
    pid: int
    url: str | None
    port: int | None
    ready_after_s: float

    def _sentence(self) -> str:
        return f"ready after {self.ready_after_s:.2f} s" + (
            "" if self.url is None else f" at {self.url}"
        )


@_event
class Said(Event):
    """The daemon said something of itself by itself, while it starts or runs."""

    kind: ClassVar[str] = "said"
    pid: int | None
    topic: str
    text: str

    def _sentence(self) -> str:
        about = "" if self.topic == "status" else f" ({self.topic})"
        return f"says{about}: {visible(self.text)}" if self.text else f"says: {self.topic}"


@_event
class Died(Event):
    """The daemon ended although nobody had asked it to."""

    kind: ClassVar[str] = "died"
    pid: int | None
    status: int | None

    def _sentence(self) -> str:
        return describe_status(self.status)


@_event
class ReaperLost(Event):
    """The helper that guards the daemon was killed; the daemon is ended, too."""

    kind: ClassVar[str] = "reaper_lost"
    pid: int | None
    reason: str

    def _sentence(self) -> str:
        return f"has lost its reaper: {self.reason}"


@_event
class Unseen(Event):
    """The daemon's state can't be told any more, as when the connection to its machine is lost.

    It may live or be gone. Its owner's block ends; nothing is started in its place.
    """

    kind: ClassVar[str] = "unseen"
    pid: int | None
    reason: str

    def _sentence(self) -> str:
        return f"can't be seen any more: {self.reason}"


@_event
class Stray(Event):
    """A process has shown up that this daemon may have started, or another one of its program.

    Its ancestry can't be told any more. It is left alone until the program ends.
    """

    kind: ClassVar[str] = "stray"
    pid: int
    command: str

    def _sentence(self) -> str:
        return f"may have started process {self.pid} ({self.command})"


@_event
class Stopping(Event):
    """The daemon is being asked to go: one event for each rung of the stop ladder."""

    kind: ClassVar[str] = "stopping"
    pid: int | None
    rung: str

    def _sentence(self) -> str:
        return f"gets {self.rung}"


@_event
class Stopped(Event):
    """The daemon was seen to be gone, with every process of it that its owner could see."""

    kind: ClassVar[str] = "stopped"
    pid: int | None
    rung: str | None
    status: int | None
    seconds: float

    def _sentence(self) -> str:
        return f"stopped after {self.seconds:.2f} s ({describe_status(self.status)})"


@_event
class Failed(Event):
    """The start came to nothing; no process is left of it.

    Attributes:
        error: The type of what was raised; "Cancelled" where nobody waited for it any more.
        reason: Why, in a sentence.
    """

    kind: ClassVar[str] = "failed"
    error: str
    reason: str

    def _sentence(self) -> str:
        return f"did not start: {self.reason}"


@_event
class Left(Event):
    """The owner's block ended, and the daemon, which was adopted, was left running."""

    kind: ClassVar[str] = "left"
    pid: int | None

    def _sentence(self) -> str:
        return "is left running"


@_event
class ClaimAwaited(Event):
    """Another program has the right to start the daemon; it is waited for."""

    kind: ClassVar[str] = "claim_awaited"
    holder_pid: int | None

    def _sentence(self) -> str:
        holder = "another program" if self.holder_pid is None else f"process {self.holder_pid}"
        return f"is being started or stopped by {holder}, which is waited for"


@_event
class RecordStale(Event):
    """The registry remembered a process of the daemon that is gone; the record was removed."""

    kind: ClassVar[str] = "record_stale"
    pid: int

    def _sentence(self) -> str:
        return f"was recorded as process {self.pid}, which is gone"


@_event
class ConfigChanged(Event):
    """The daemon that runs was started from another configuration.

    ``action`` says what is done about it: "keep", "restart" or "error".
    """

    kind: ClassVar[str] = "config_changed"
    pid: int
    fields: tuple[str, ...]
    action: str

    def _sentence(self) -> str:
        doing = {"keep": "it is used as it is", "restart": "it is started anew"}
        return (
            f"runs as process {self.pid}, started with other {', '.join(self.fields)}; "
            f"{doing.get(self.action, 'it is left alone')}"
        )


@_event
class NotRecovered(Event):
    """The daemon is gone, but what it had was not free again within ``wait_for_recovery``."""

    kind: ClassVar[str] = "not_recovered"
    pid: int | None
    problem: str
    waited_s: float

    def _sentence(self) -> str:
        return f"is gone, but {self.waited_s:.2f} s later not all of it is free: {self.problem}"
