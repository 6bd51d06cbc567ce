"""The contracts.

What a spawner, a process, a ready mode, a preflight check, an observer and a registry promise.

All prose about behaviour stands here, once; implementations say only what is special about them.
``trio_lifecycle.testing`` has checks that a spawner, a ready mode or a registry of your own can be
held to.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

import trio
from attrs import frozen

from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._events import Event
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._markers import Marker
from trio_lifecycle._process_contract import Process
from trio_lifecycle._records import ClaimHolder, DaemonRecord, Identity, RecordChange
from trio_lifecycle._registry_contract import Registry
from trio_lifecycle._reports import Answer, Report, Sighting, Verdict
from trio_lifecycle._requests import SpawnRequest

__all__ = [
    "Answer",
    "ArmedReady",
    "ClaimHolder",
    "DaemonRecord",
    "Guarantee",
    "Identity",
    "Marker",
    "Observer",
    "Preflight",
    "Prober",
    "Process",
    "ReadyMode",
    "RecordChange",
    "Registry",
    "Report",
    "ReservedPort",
    "Sighting",
    "SpawnRequest",
    "Spawner",
    "Start",
    "Verdict",
]


# --- spawning -------------------------------------------------------------------------------------


class Spawner(ABC):
    """Starts processes somewhere: on this machine, on another one, or in a simulation."""

    @abstractmethod
    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        """Start the program in a session of its own, with nothing on its standard input.

        Either a process is returned, or there is none: whatever is raised, cancellation included,
        nothing is left. A cancellation that comes when the process exists already does not lose it:
        it is returned, or killed.

        Args:
            request: What to start.
            nursery: Where tasks that serve the process may run (moving its output, say). It lives
                as long as the process's owner; for a detached process it ends soon after the spawn.

        Raises:
            SpawnError: The system refused.
            GuaranteeError: What was asked of the spawner can't be promised here.
        """

    async def find_process(self, record: DaemonRecord) -> Process | None:
        """Give the process that a record is about.

        One that has ``ended`` is given as long as something of its tree is left. None when all is
        gone for sure: it has ended (a zombie is gone), or the machine was started anew since then.

        Raises:
            DaemonStateUnknownError: Whether it lives can't be told from here.
        """
        raise DaemonStateUnknownError(
            record.name,
            f"{type(self).__name__} can't look for process {record.pid} of {record.host}",
        )

    async def find_strays(self, process: Process, instance_id: str) -> Process | None:
        """Give what a detached daemon, whose start has failed, has left outside of its tree.

        Such as a server that has put itself into the background. None when there is nothing, or
        when that can't be told.
        """
        return None

    @abstractmethod
    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        """Give the absolute path of a program where the daemon will run.

        Raises:
            BinaryNotFoundError: It is not there, or what is there can't be started.
        """

    @abstractmethod
    async def reserve_port(self) -> "ReservedPort":
        """Choose a TCP port that is free where the daemon will run, and keep others from it."""

    @abstractmethod
    def open_prober(self) -> "Prober":
        """Give the means to ask daemons of this spawner over HTTP."""


class ReservedPort(Protocol):
    """A port that nobody else who asks will get until it is released."""

    @property
    def number(self) -> int:
        """The port."""
        ...

    def release(self) -> None:
        """Let others have it. Calling it again is fine."""
        ...


# --- readiness ------------------------------------------------------------------------------------


@frozen(kw_only=True)
class Start:
    """What a ready mode may know before the spawn.

    Attributes:
        name: The daemon's name.
        instance_id: The id of the spawn to come.
        port: What FREE_PORT stands for in this spawn; None when it is not used.
        prober: How to ask over HTTP where the daemon will run.
        in_arguments: The markers that stand in the daemon's arguments, which other users of the
            machine can read.
    """

    name: str
    instance_id: str
    port: int | None
    prober: "Prober"
    in_arguments: frozenset[Marker] = frozenset()


class ReadyMode(ABC):
    """Says when a daemon is ready.

    A frozen value: it compares, prints well, and serves any number of spawns.
    """

    @property
    def markers(self) -> frozenset[Marker]:
        """The markers that this mode gives a value to.

        Using one under another mode is a ConfigError.
        """
        return frozenset()

    @property
    def texts(self) -> tuple[str, ...]:
        """The texts of the mode in which markers may stand."""
        return ()

    @property
    def kind(self) -> str:
        """Which mode it is; another one is another configuration of the daemon."""
        return type(self).__qualname__

    @property
    def longest_interval_s(self) -> float:
        """The longest pause between two looks; 0 where the daemon's word comes by itself."""
        return 0.0

    @abstractmethod
    async def arm(self, start: Start) -> "ArmedReady":
        """Get ready to hear from the daemon, before it is spawned: bind a socket, make a token."""

    async def arm_again(self, start: Start) -> "ArmedReady | None":
        """Get ready to ask a daemon that was spawned earlier, perhaps by another program.

        Only ``ask`` is called, so nothing may be held that would have to be let go of, and nothing
        is put into the daemon's arguments or environment any more. None where a daemon gives its
        word only once: then being alive must do.

        Args:
            start: As it was for its spawn; the port is the one that was recorded.
        """
        return None

    async def find_running(self, prober: "Prober") -> "Sighting | None":
        """Look once whether the daemon runs already.

        None when nothing is there, or it can't be asked before a spawn.
        """
        return None


class ArmedReady(ABC):
    """A ready mode at work for one spawn: armed before it, then awaited, always disarmed."""

    @property
    def env(self) -> Mapping[str, str]:
        """Variables for the daemon's environment."""
        return {}

    @property
    def values(self) -> Mapping[Marker, str]:
        """The values of the mode's markers."""
        return {}

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must stand in no message; they are blotted out of output tails."""
        return ()

    @property
    @abstractmethod
    def last_seen(self) -> str:
        """What was seen last, as a part of a sentence such as ``no callback came``."""

    @abstractmethod
    async def wait(self, process: Process) -> Report:
        """Wait until the daemon is ready.

        It is cancelled at the deadline, or when the process ends.

        Raises:
            ForeignDaemonError: Somebody else answers in the daemon's place.
            ReadyError: It can't become ready any more.
        """

    async def ask(self, process: Process) -> Report | None:
        """Look once more, bounded by the mode's own limit for one look; None is not ready.

        Asked at the deadline.
        """
        return None

    async def disarm(self) -> None:  # noqa: B027  # most modes hold nothing
        """Let go of everything that ``arm`` took."""


class Prober(ABC):
    """Asks daemons over HTTP, and who they are, from where they run."""

    async def prepare(self) -> None:
        """Load what asking needs, so that the first question is not late."""
        return

    @abstractmethod
    async def get(self, url: str, body_bytes: int = 0) -> Answer:
        """Send one GET on a fresh connection: no proxy, no redirect followed.

        Never raises for anything that a server, or the want of one, can do. The caller sets the
        time limit by cancelling.

        Args:
            url: What to ask.
            body_bytes: How much of the body to read. Defaults to 0: the answer has none, nor
                headers.
        """

    @abstractmethod
    async def owner_of(self, host: str, port: int) -> Process:
        """Give the process that listens at an address of the machine.

        Its ``pid`` is None where that can't be told.
        """

    @abstractmethod
    def describe_owner(self, host: str, port: int) -> str:
        """Say who listens at an address of the machine: pid and command, if that can be told."""


# --- the rest of the household --------------------------------------------------------------------


class Preflight(Protocol):
    """A check before anything is spawned. Any async callable without arguments is one."""

    def __call__(self) -> Awaitable[object]:
        """Return when all is well; raise with a sentence that says what is not.

        All checks of a start run at once, and all failures are reported together in one
        PreflightError.
        """
        ...


Observer = Callable[[Event], object]
"""Any callable that takes an event.

It is called at once and in order, so it must not block; one that raises is logged
and gets no more events, and the daemon goes on."""


for _value in (
    Answer,
    ClaimHolder,
    DaemonRecord,
    Identity,
    Marker,
    Process,
    RecordChange,
    Registry,
    Report,
    Sighting,
    SpawnRequest,
    Verdict,
):
    _value.__module__ = __name__
del _value
