"""Simulated daemons with names, for daemon nurseries."""

from collections.abc import Callable
from typing import Any

from attrs import evolve

from trio_lifecycle import DaemonLifecycle, Event
from trio_lifecycle._nursery import DaemonNursery
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner


def named(
    name: str,
    simulated: SimulatedDaemon | None = None,
    observer: Callable[[Event], object] | None = None,
    *,
    free_port: bool = True,
    **changes: Any,
) -> DaemonLifecycle:
    """A simulated daemon with a name of its own."""
    simulated = simulated or SimulatedDaemon()
    config = evolve(simulated.lifecycle(free_port=free_port).config, name=name, **changes)
    return DaemonLifecycle(config, spawner=SimulatedSpawner(simulated), observer=observer)


def names(daemons: DaemonNursery) -> list[str]:
    """Which daemons are up, in order."""
    return [daemon.name for daemon in daemons]
