"""The right to start a daemon, and to have its port; in simulated time."""

from typing import Any

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import ClaimTimeoutError, DiedBeforeReadyError
from trio_lifecycle.testing import SimulatedDaemon

# --- the right to start it ---


@pytest.mark.fault(59)
@in_simulated_time
async def test_who_holds_the_claim_for_too_long_is_named_and_not_robbed() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()
    lifecycle = simulated.lifecycle(detach=True, ready_timeout=5.0, observer=trace.observe)
    began = trio.current_time()

    async with simulated.registry.claim("simulated"):
        with pytest.raises(ClaimTimeoutError, match=r"process \d+ is starting it, since"):
            await lifecycle.ensure_running()

    assert 15.0 == pytest.approx(trio.current_time() - began)
    assert ["starting", "claim_awaited", "failed"] == trace.kinds
    assert 0 == simulated.spawned


@in_simulated_time
async def test_how_long_a_claim_is_waited_for_is_configuration() -> None:
    simulated = SimulatedDaemon()
    began = trio.current_time()

    async with simulated.registry.claim("simulated"):
        with pytest.raises(ClaimTimeoutError):
            await simulated.lifecycle(detach=True, claim_timeout=2.0).ensure_running()

    assert 2.0 == pytest.approx(trio.current_time() - began)


@in_simulated_time
async def test_a_claim_that_is_freed_in_time_is_taken() -> None:
    simulated = SimulatedDaemon()
    trace = Trace()

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def hold() -> None:
            async with simulated.registry.claim("simulated"):
                await trio.sleep(7.0)

        await trio.testing.wait_all_tasks_blocked()
        await simulated.lifecycle(detach=True, observer=trace.observe).ensure_running()

    assert ["starting", "claim_awaited", "found", "spawned", "ready"] == trace.kinds


@in_simulated_time
async def test_a_daemon_that_is_up_is_found_although_somebody_has_the_claim() -> None:
    simulated = SimulatedDaemon()
    await simulated.lifecycle(detach=True).ensure_running()

    async with simulated.registry.claim("simulated"):
        daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert "adopted" == daemon.origin


# --- ports ---


@pytest.mark.fault(14)
@in_simulated_time
async def test_a_daemon_that_lost_its_port_is_started_again_with_another() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"bind: Address already in use\n"
    )
    trace = Trace()
    ports = []

    def note(event: Any) -> None:
        trace.observe(event)
        if event.kind == "spawned":
            ports.append(simulated.incarnations[-1].port)
            if len(ports) == 2:
                simulated.dies_after = None
                simulated.incarnations[-1].ends = simulated.incarnations[-1].goes = float("inf")

    async with simulated.lifecycle(observer=note).running() as daemon:
        assert ports[1] == daemon.port
        assert 1 == simulated.alive

    assert 2 == len(set(ports))
    assert trace.follows_the_table
    assert 0 == simulated.alive


@in_simulated_time
async def test_a_daemon_that_always_says_that_its_port_is_taken_is_given_up() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"Error: listen EADDRINUSE\n"
    )

    with pytest.raises(DiedBeforeReadyError, match="EADDRINUSE"):
        async with simulated.lifecycle().running():
            pytest.fail("it has no port")

    assert 3 == simulated.spawned


@in_simulated_time
async def test_a_daemon_with_a_port_of_its_own_is_tried_once() -> None:
    simulated = SimulatedDaemon(
        ready_after=1.0, dies_after=0.1, writes=b"bind: Address already in use\n"
    )

    with pytest.raises(DiedBeforeReadyError):
        async with simulated.lifecycle(free_port=False).running():
            pytest.fail("it has no port")

    assert 1 == simulated.spawned
