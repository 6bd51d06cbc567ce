"""Testing without processes and without waiting: simulated daemons, and checks for your own parts.

>>> simulated = SimulatedDaemon(ready_after=20.0)
>>> run_simulated(use, simulated.lifecycle(ready_timeout=30.0))     # takes milliseconds
"""

from trio_lifecycle.testing._check_ready_mode import check_ready_mode
from trio_lifecycle.testing._check_registry import check_registry
from trio_lifecycle.testing._check_spawner import check_spawner
from trio_lifecycle.testing._daemon import SimulatedDaemon
from trio_lifecycle.testing._incarnation import HANGS, REFUSES
from trio_lifecycle.testing._run import run_simulated
from trio_lifecycle.testing._spawner import SimulatedSpawner
from trio_lifecycle.testing._strategies import schedules, seconds

__all__ = [
    "HANGS",
    "REFUSES",
    "SimulatedDaemon",
    "SimulatedSpawner",
    "check_ready_mode",
    "check_registry",
    "check_spawner",
    "run_simulated",
    "schedules",
    "seconds",
]

for _thing in [globals()[name] for name in __all__]:
    if callable(_thing):
        _thing.__module__ = __name__
