"""The contracts.

What a spawner, a process, a ready mode, a preflight check, an observer and a registry promise.

All prose about behaviour stands here, once; implementations say only what is special about them.
``trio_lifecycle.testing`` has checks that a spawner or a ready mode of your own can be held to. A
registry is used by nothing yet.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import trio
from attrs import frozen

from trio_lifecycle._events import Event
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._markers import Marker
from trio_lifecycle._process_contract import Process
from trio_lifecycle._records import DaemonRecord
from trio_lifecycle._reports import Answer, Report, Sighting, Verdict
from trio_lifecycle._requests import SpawnRequest

__all__ = [
    "Answer",
    "ArmedReady",
    "DaemonRecord",
    "Guarantee",
    "Marker",
    "Observer",
    "Preflight",
    "Prober",
    "Process",
    "ReadyMode",
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
    def longest_interval_s(self) -> float:
        """The longest pause between two looks; 0 where the daemon's word comes by itself."""
        return 0.0

    @abstractmethod
    async def arm(self, start: Start) -> "ArmedReady":
        """Get ready to hear from the daemon, before it is spawned: bind a socket, make a token."""

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
    async def get(self, url: str) -> Answer:
        """Send one GET on a fresh connection: no proxy, no redirect followed, the body not read.

        Never raises for anything that a server, or the want of one, can do. The caller sets the
        time limit by cancelling.
        """

    @abstractmethod
    async def owner_of(self, host: str, port: int) -> Process:
        """Give the process that listens at a loopback address.

        Its ``pid`` is None where that can't be told.
        """

    @abstractmethod
    def describe_owner(self, host: str, port: int) -> str:
        """Say who listens at a loopback address: pid and command, or that it can't be told."""


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


class Registry(ABC):
    """Remembers daemons by name, and gives out the right to start one."""

    @abstractmethod
    def claim(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold the exclusive right to start the daemon of this name for the length of a block.

        The right of a program that is killed is free at once. Waiting for it can be cancelled at
        any time.
        """

    @abstractmethod
    async def get(self, name: str) -> DaemonRecord | None:
        """Give the record of this name, None when there is none."""

    @abstractmethod
    async def put(self, record: DaemonRecord) -> None:
        """Store a record in the place of any other of its name; it is on disk when this returns."""

    @abstractmethod
    async def remove(self, record: DaemonRecord) -> None:
        """Remove the record if it is still about this instance.

        Another instance's is not touched.
        """

    @abstractmethod
    async def daemons(self) -> list[DaemonRecord]:
        """Give all records, ordered by name."""


for _value in (Answer, DaemonRecord, Marker, Process, Report, Sighting, SpawnRequest, Verdict):
    _value.__module__ = __name__
del _value
