"""The contracts.

What a spawner, a process, a ready mode, a preflight check, an observer and a registry promise.

All prose about behaviour stands here, once; implementations say only what is special about them.
``trio_lifecycle.testing`` has checks that a spawner, a ready mode or a registry of your own can be
held to.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

import trio

from trio_lifecycle._armed_contract import ArmedReady
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._events import Event
from trio_lifecycle._guarantee import Guarantee
from trio_lifecycle._inbox_contract import Datagram, Inbox
from trio_lifecycle._markers import Marker
from trio_lifecycle._prober_contract import Prober
from trio_lifecycle._process_contract import Hearing, Process
from trio_lifecycle._questions import TLS, Command, Contact, FileMark, Question, Ran
from trio_lifecycle._ready_contract import ReadyMode, StableFor
from trio_lifecycle._records import ClaimHolder, DaemonRecord, Identity, RecordChange
from trio_lifecycle._registry_contract import Registry
from trio_lifecycle._reports import Answer, Progress, Report, Sighting, Verdict
from trio_lifecycle._requests import SpawnRequest
from trio_lifecycle._start import Start
from trio_lifecycle._way_back_contract import Caller, Peer, WayBack

__all__ = [
    "TLS",
    "Answer",
    "ArmedReady",
    "Caller",
    "ClaimHolder",
    "Command",
    "Contact",
    "DaemonRecord",
    "Datagram",
    "FileMark",
    "Guarantee",
    "Hearing",
    "Identity",
    "Inbox",
    "Marker",
    "Observer",
    "Peer",
    "Placed",
    "Preflight",
    "Prober",
    "Process",
    "Progress",
    "Question",
    "Ran",
    "ReadyMode",
    "RecordChange",
    "Recovering",
    "Registry",
    "Report",
    "ReservedPort",
    "Sighting",
    "SpawnRequest",
    "Spawner",
    "StableFor",
    "Start",
    "Verdict",
    "WayBack",
]


# --- spawning -------------------------------------------------------------------------------------


class Spawner(ABC):
    """Starts processes somewhere: on this machine, on another one, or in a simulation."""

    @property
    def is_here(self) -> bool:
        """Whether daemons run on this machine.

        Where they do not, paths are those of the other machine, and given as they are; the log of a
        detached daemon is made by the spawner, at ``output.to`` or where it chooses; and no sockets
        can be passed.
        """
        return True

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

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        """Give a daemon's ``url`` and ``port`` as this program reaches them.

        Asked just before its handle is given out. The record keeps what the daemon itself has.

        Args:
            report: What the daemon's machine knows it by.
            nursery: Where tasks may run that bring it nearer (a forwarded port, say). It lives as
                long as the daemon's owner; None where nobody owns it.
            process: The daemon's. What nobody owns is of no more use when it was closed.

        Raises:
            LifecycleError: It can't be reached.
        """
        return report

    @abstractmethod
    def open_prober(self) -> Prober:
        """Give the means to ask daemons of this spawner, from where they run."""


class ReservedPort(Protocol):
    """A port that nobody else who asks will get until it is released."""

    @property
    def number(self) -> int:
        """The port."""
        ...

    def release(self) -> None:
        """Let others have it. Calling it again is fine."""
        ...


# --- the rest of the household --------------------------------------------------------------------


class Preflight(Protocol):
    """A check before anything is spawned. Any async callable without arguments is one."""

    def __call__(self) -> Awaitable[object]:
        """Return when all is well; raise with a sentence that says what is not.

        All checks of a start run at once, and all failures are reported together in one
        PreflightError. One that takes longer than the seconds of its attribute ``check_timeout``
        is cancelled, and has failed. Without that attribute it gets 600 s: it may have another
        daemon started first, which for a large model takes some 300 s.
        """
        ...


@runtime_checkable
class Recovering(Protocol):
    """A preflight check, besides, of what a daemon gives back late: GPU memory, a port.

    A stop by the daemon's owner waits for that, when the daemon's tree is gone, before it returns;
    so does a start that has stopped an earlier one. What is not back in time is told by the event
    NotRecovered, and the stop returns as usual.
    """

    @property
    def wait_for_recovery(self) -> float:
        """Seconds from the end of the daemon that a stop waits at most; 0 is not at all."""
        ...

    async def recovery(self) -> Preflight:
        """Look what there is before the spawn, and give the check to ask after the stop.

        Asked when the check itself has passed, within the same ``check_timeout``. What it gives is
        called again and again: it returns when all is back, and raises with a sentence as long as
        that is not so. For a daemon that was not started here the check itself serves.
        """
        ...


@runtime_checkable
class Placed(Protocol):
    """A preflight check, besides, that can look at the machine where the daemon will run.

    A check without it runs in this program, as any callable does, wherever the daemon will run.
    """

    def at(self, prober: Prober) -> Preflight:
        """Give the check that asks by this prober; nothing is asked yet.

        Called before each start whose prober is not here (``Prober.is_here``), and the check that
        it gives takes this one's place; it may be Recovering, too. Of this one, ``check_timeout``
        and the name in messages stay.
        """
        ...


Observer = Callable[[Event], object]
"""Any callable that takes an event.

It is called at once and in order, so it must not block; one that raises is logged
and gets no more events, and the daemon goes on."""


for _value in (
    Answer,
    ArmedReady,
    Caller,
    ClaimHolder,
    Command,
    Contact,
    DaemonRecord,
    Datagram,
    FileMark,
    Hearing,
    Identity,
    Inbox,
    Marker,
    Peer,
    Prober,
    Process,
    Progress,
    Question,
    Ran,
    ReadyMode,
    RecordChange,
    Registry,
    Report,
    Sighting,
    SpawnRequest,
    StableFor,
    Start,
    Verdict,
    WayBack,
):
    _value.__module__ = __name__
del _value
