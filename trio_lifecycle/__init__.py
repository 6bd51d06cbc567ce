"""Structured concurrency for daemons: started on demand, ready, watched, and gone with their owner.

The map of the house, lowest floor first; imports go downwards only:

- words: errors, events, markers
- rules: states, the stop ladder, polling, names, URLs; plain functions without I/O or clock
- records, and the contracts: ``trio_lifecycle.abc``
- values: ``LifecycleConfig``
- tools: finding programs, ports, processes, HTTP, output
- means: spawners, ready modes, registries, checks before a start, stopping
- handle, entry, search, launch, keeper, and the heart: ``DaemonLifecycle``, ``attach``
- household: ``open_daemon_nursery``
- roof: the command line, and ``trio_lifecycle.testing``
"""

from typing import TYPE_CHECKING, Final

from trio_lifecycle._attach import attach
from trio_lifecycle._binary import find_binary
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output, Rotate
from trio_lifecycle._errors import (
    BinaryNotFoundError,
    ConfigError,
    DaemonDiedError,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    ForeignDaemonError,
    GuaranteeError,
    LifecycleError,
    PreflightError,
    ReadyError,
    ReadyTimeoutError,
    ReaperLostError,
    SpawnError,
    StallTimeoutError,
    StopError,
)
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
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._ladder import StopLadder, StopReport
from trio_lifecycle._lifecycle import DaemonLifecycle
from trio_lifecycle._listen_socket import ListenSocket
from trio_lifecycle._markers import CALLBACK_URL, FREE_PORT
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery
from trio_lifecycle._questions import TLS
from trio_lifecycle._record_errors import (
    ClaimTimeoutError,
    ConfigChangedError,
    DaemonNotRunningError,
    RegistryError,
)
from trio_lifecycle._records import DaemonRecord
from trio_lifecycle._ssh_errors import (
    RemoteBinaryNotFoundError,
    SSHAuthError,
    SSHConnectError,
    SSHHostKeyError,
)
from trio_lifecycle._version import __version__
from trio_lifecycle.observe._logging import log_events
from trio_lifecycle.ready._all_of import AllOf
from trio_lifecycle.ready._any_of import AnyOf
from trio_lifecycle.ready._callback import Callback, CallbackReceiver
from trio_lifecycle.ready._exec import Exec
from trio_lifecycle.ready._file_appears import FileAppears
from trio_lifecycle.ready._grpc import GRPCHealth
from trio_lifecycle.ready._health import HealthCheck
from trio_lifecycle.ready._log_line import LogLine
from trio_lifecycle.ready._manual import Manual
from trio_lifecycle.ready._newline import NewlineOnFD
from trio_lifecycle.ready._notify import Notify
from trio_lifecycle.ready._tcp_port import TCPPort
from trio_lifecycle.ready._unix_socket import UnixSocket
from trio_lifecycle.ready._unless_line import UnlessLine
from trio_lifecycle.registry._memory import MemoryRegistry
from trio_lifecycle.spawner._local import LocalSpawner

if TYPE_CHECKING:
    from trio_lifecycle.preflight._disk_space import DiskSpace
    from trio_lifecycle.preflight._executable import Executable
    from trio_lifecycle.preflight._file_exists import FileExists
    from trio_lifecycle.preflight._free_memory import FreeMemory
    from trio_lifecycle.preflight._free_port import FreePort
    from trio_lifecycle.preflight._free_vram import FreeVRAM
    from trio_lifecycle.preflight._reachable import Reachable
    from trio_lifecycle.registry._sqlite import SQLiteRegistry
    from trio_lifecycle.spawner._ssh import SSHSpawner

__all__ = [
    "CALLBACK_URL",
    "FREE_PORT",
    "TLS",
    "Adopted",
    "AllOf",
    "AnyOf",
    "BinaryNotFoundError",
    "Callback",
    "CallbackReceiver",
    "Checked",
    "ClaimAwaited",
    "ClaimTimeoutError",
    "ConfigChanged",
    "ConfigChangedError",
    "ConfigError",
    "DaemonDiedError",
    "DaemonHandle",
    "DaemonLifecycle",
    "DaemonNotRunningError",
    "DaemonNursery",
    "DaemonRecord",
    "DaemonStateUnknownError",
    "Died",
    "DiedBeforeReadyError",
    "DiskSpace",
    "Event",
    "Exec",
    "Executable",
    "Failed",
    "FileAppears",
    "FileExists",
    "ForeignDaemonError",
    "Found",
    "FreeMemory",
    "FreePort",
    "FreeVRAM",
    "GRPCHealth",
    "GuaranteeError",
    "HealthCheck",
    "Left",
    "LifecycleConfig",
    "LifecycleError",
    "ListenSocket",
    "LocalSpawner",
    "LogLine",
    "Manual",
    "MemoryRegistry",
    "NewlineOnFD",
    "NotRecovered",
    "Notify",
    "Output",
    "PreflightError",
    "Reachable",
    "Ready",
    "ReadyError",
    "ReadyTimeoutError",
    "ReaperLost",
    "ReaperLostError",
    "RecordStale",
    "RegistryError",
    "RemoteBinaryNotFoundError",
    "Rotate",
    "SQLiteRegistry",
    "SSHAuthError",
    "SSHConnectError",
    "SSHHostKeyError",
    "SSHSpawner",
    "Said",
    "SpawnError",
    "Spawned",
    "StallTimeoutError",
    "Starting",
    "StopError",
    "StopLadder",
    "StopReport",
    "Stopped",
    "Stopping",
    "Stray",
    "TCPPort",
    "UnixSocket",
    "UnlessLine",
    "Unseen",
    "__version__",
    "attach",
    "find_binary",
    "log_events",
    "open_daemon_nursery",
]


# Loaded when they are used first: SQLite, which owners need not, and what few programs check.
_LATE: Final = {
    "SQLiteRegistry": "registry._sqlite",
    "DiskSpace": "preflight._disk_space",
    "Executable": "preflight._executable",
    "FileExists": "preflight._file_exists",
    "FreeMemory": "preflight._free_memory",
    "FreePort": "preflight._free_port",
    "FreeVRAM": "preflight._free_vram",
    "Reachable": "preflight._reachable",
    "SSHSpawner": "spawner._ssh",
}


def __getattr__(name: str) -> object:
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    thing = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
    thing.__module__ = __name__
    globals()[name] = thing
    return thing


for _thing in [globals()[name] for name in __all__ if name in globals()]:
    # A traceback shall say trio_lifecycle.ReadyTimeoutError, not in which file it stands.
    if callable(_thing):
        _thing.__module__ = __name__
