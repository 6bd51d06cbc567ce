"""Daemons in simulated time that were recorded before, by a program that is no more."""

from typing import Any

from attrs import evolve

from trio_lifecycle import FREE_PORT, DaemonRecord, HealthCheck
from trio_lifecycle.testing import SimulatedDaemon

HEALTH = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/", interval=0.1)
MANY_HEALTHY = evolve(HEALTH, success_threshold=11)


async def left_by_a_dead_starter(simulated: SimulatedDaemon, **facts: Any) -> DaemonRecord:
    """Have a daemon that runs, and its record, with nobody at work on either."""
    lifecycle = simulated.lifecycle(detach=True)
    await lifecycle.ensure_running()
    record = await simulated.registry.get("simulated")
    assert record is not None
    record = evolve(record, **facts)
    await simulated.registry.put(record)
    return record
