"""Daemons that are not what was asked for: another configuration, strangers; in simulated time."""

import pytest
import trio

from tests.records import left_by_a_dead_starter
from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    ConfigChangedError,
    DaemonRecord,
    DaemonStateUnknownError,
    ForeignDaemonError,
    HealthCheck,
)
from trio_lifecycle.abc import Answer
from trio_lifecycle.testing import SimulatedDaemon

# --- another configuration ---


async def run_with_other_arguments(simulated: SimulatedDaemon) -> DaemonRecord:
    """Have it run, started with arguments that differ."""
    return await left_by_a_dead_starter(
        simulated, fingerprint="binary_name:0 args:0 env:4f53cda1", stop_ladder=()
    )


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_kept_with_an_event_that_says_so() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()
    record = await run_with_other_arguments(simulated)

    daemon = await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert record.instance_id == daemon.instance_id
    assert ["starting", "config_changed", "adopted"] == trace.kinds
    assert ("binary_name", "args") == trace.events[1].fields
    assert "keep" == trace.events[1].action


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_an_error_if_it_is_to_be() -> None:
    simulated = SimulatedDaemon()
    record = await run_with_other_arguments(simulated)

    with pytest.raises(ConfigChangedError, match=f"{record.pid}.*binary_name, args"):
        await simulated.lifecycle(detach=True, on_change="error").ensure_running()

    assert (1, 1) == (simulated.spawned, simulated.alive)
    assert [record] == await simulated.registry.daemons()


@pytest.mark.fault(61)
@in_simulated_time
async def test_a_daemon_of_another_configuration_is_started_anew_if_it_is_to_be() -> None:
    simulated = SimulatedDaemon(stops_after=2.0)
    trace = Trace()
    old = await run_with_other_arguments(simulated)

    daemon = await simulated.lifecycle(
        detach=True, on_change="restart", observer=trace.observe
    ).ensure_running()

    assert old.instance_id != daemon.instance_id
    assert (2, 1) == (simulated.spawned, simulated.alive)
    kinds = [(event.kind, event.instance_id == old.instance_id) for event in trace.events]
    assert [
        ("starting", False),
        ("config_changed", False),
        ("stopping", True),
        ("stopped", True),
        ("found", False),
        ("spawned", False),
        ("ready", False),
    ] == kinds


@in_simulated_time
async def test_a_daemon_that_became_ready_otherwise_is_not_asked_what_it_can_not_answer() -> None:
    simulated = SimulatedDaemon()
    await left_by_a_dead_starter(simulated, fingerprint="ready_mode:0")
    simulated.health = [(0.0, 404)]

    daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert "adopted" == daemon.origin


# --- who answers without a record ---


@in_simulated_time
async def test_a_stranger_at_our_address_is_not_adopted_and_nothing_is_started() -> None:
    simulated = SimulatedDaemon(is_foreign=True)
    simulated.start()

    with pytest.raises(ForeignDaemonError, match="process 1000"):
        await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    assert (1, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_a_stranger_that_is_not_even_up_is_named_at_once() -> None:
    simulated = SimulatedDaemon(is_foreign=True, health=[(0.0, 503)])
    simulated.start()
    began = trio.current_time()

    with pytest.raises(ForeignDaemonError, match="process 1000"):
        await simulated.lifecycle(detach=True, free_port=False).ensure_running()

    assert 1.0 > trio.current_time() - began


@in_simulated_time
async def test_who_is_accepted_is_adopted_whoever_it_is() -> None:
    simulated = SimulatedDaemon(is_foreign=True, health=[(0.0, 503), (3.0, 200)])
    simulated.start()
    statuses = []

    def expect(answer: Answer) -> bool:
        statuses.append(answer.status)
        return True

    mode = HealthCheck("http://127.0.0.1:8080/", expect=expect)
    lifecycle = simulated.lifecycle(detach=True, free_port=False, ready_mode=mode)
    daemon = await lifecycle.ensure_running()

    assert ("adopted", [200]) == (daemon.origin, statuses)
    assert 1 == simulated.spawned


@in_simulated_time
async def test_one_that_was_found_at_its_address_is_asked_again_like_any_other() -> None:
    simulated = SimulatedDaemon()
    simulated.start()
    lifecycle = simulated.lifecycle(detach=True, free_port=False, ready_timeout=5.0)
    daemon = await lifecycle.ensure_running()
    simulated.health = [(0.0, 503)]

    with pytest.raises(DaemonStateUnknownError, match="answered 503"):
        await lifecycle.ensure_running()

    simulated.health = None
    assert daemon is await lifecycle.ensure_running()


@in_simulated_time
async def test_who_is_not_accepted_and_is_a_stranger_is_refused() -> None:
    simulated = SimulatedDaemon(is_foreign=True)
    simulated.start()
    mode = HealthCheck("http://127.0.0.1:8080/", expect=lambda _: False)

    with pytest.raises(ForeignDaemonError):
        await simulated.lifecycle(detach=True, free_port=False, ready_mode=mode).ensure_running()
