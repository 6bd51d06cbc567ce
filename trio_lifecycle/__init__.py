"""Structured concurrency for daemons: started on demand, ready, watched, and gone with their owner.

The map of the house, lowest floor first; imports go downwards only:

- words: errors, events, records, markers
- rules: states, the stop ladder, polling, names, URLs; plain functions without I/O or clock
- contracts: ``trio_lifecycle.abc``
- values: ``LifecycleConfig``
- tools: finding programs, ports, processes, HTTP, output
- means: spawners, ready modes, stopping
- handle, launch, keeper, and the heart: ``DaemonLifecycle``
- roof: the command line, and ``trio_lifecycle.testing``
"""

from trio_lifecycle._binary import find_binary
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
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
    StopError,
)
from trio_lifecycle._events import (
    Adopted,
    Died,
    Event,
    Failed,
    Found,
    Left,
    Ready,
    ReaperLost,
    Spawned,
    Starting,
    Stopped,
    Stopping,
    Stray,
)
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._ladder import StopLadder, StopReport
from trio_lifecycle._lifecycle import DaemonLifecycle
from trio_lifecycle._markers import CALLBACK_URL, FREE_PORT
from trio_lifecycle._version import __version__
from trio_lifecycle.observe._logging import log_events
from trio_lifecycle.ready._callback import Callback, CallbackReceiver
from trio_lifecycle.ready._health import HealthCheck
from trio_lifecycle.ready._manual import Manual
from trio_lifecycle.spawner._local import LocalSpawner

__all__ = [
    "CALLBACK_URL",
    "FREE_PORT",
    "Adopted",
    "BinaryNotFoundError",
    "Callback",
    "CallbackReceiver",
    "ConfigError",
    "DaemonDiedError",
    "DaemonHandle",
    "DaemonLifecycle",
    "DaemonStateUnknownError",
    "Died",
    "DiedBeforeReadyError",
    "Event",
    "Failed",
    "ForeignDaemonError",
    "Found",
    "GuaranteeError",
    "HealthCheck",
    "Left",
    "LifecycleConfig",
    "LifecycleError",
    "LocalSpawner",
    "Manual",
    "Output",
    "PreflightError",
    "Ready",
    "ReadyError",
    "ReadyTimeoutError",
    "ReaperLost",
    "ReaperLostError",
    "SpawnError",
    "Spawned",
    "Starting",
    "StopError",
    "StopLadder",
    "StopReport",
    "Stopped",
    "Stopping",
    "Stray",
    "__version__",
    "find_binary",
    "log_events",
]

for _thing in [globals()[name] for name in __all__]:
    # A traceback shall say trio_lifecycle.ReadyTimeoutError, not in which file it stands.
    if callable(_thing):
        _thing.__module__ = __name__
