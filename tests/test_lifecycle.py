"""What a lifecycle and its handles promise besides, in simulated time."""

import logging

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    Callback,
    ConfigError,
    DaemonLifecycle,
    HealthCheck,
    LifecycleConfig,
    Manual,
    StopReport,
)
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner


@in_simulated_time
async def test_stop_and_force_kill_of_a_lifecycle_are_those_of_the_handle() -> None:
    lifecycle = SimulatedDaemon().lifecycle()
    async with lifecycle.running() as one, lifecycle.running() as two:
        assert "SIGTERM" == (await lifecycle.stop(one)).rung
        assert "SIGKILL" == (await lifecycle.force_kill(two)).rung


@in_simulated_time
async def test_kill_breaks_into_a_stop_that_waits() -> None:
    simulated = SimulatedDaemon(ignores_sigterm=True)
    async with simulated.lifecycle().running() as daemon, trio.open_nursery() as nursery:
        nursery.start_soon(daemon.stop)
        await trio.sleep(1.0)
        assert StopReport("SIGKILL", -9, 1.0) == await daemon.kill()


@in_simulated_time
async def test_an_observer_that_raises_is_logged_and_the_daemon_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(event: object) -> None:
        raise RuntimeError("the observer is broken")

    with caplog.at_level(logging.ERROR):
        async with SimulatedDaemon().lifecycle(observer=fail).running():
            pass

    assert 1 == len(caplog.records)


@in_simulated_time
async def test_a_handle_reads_well() -> None:
    async with SimulatedDaemon().lifecycle().running() as daemon:
        assert f"<DaemonHandle simulated spawned 1000 at {daemon.url}>" == repr(daemon)
        await daemon.stop()
        assert "was killed by SIGTERM" in repr(daemon)


@in_simulated_time
async def test_lines_end_with_the_daemon() -> None:
    async with SimulatedDaemon().lifecycle().running() as daemon:
        await daemon.terminate()
        assert [] == [line async for line in daemon.lines()]


def test_with_health_check_is_detached_and_has_the_defaults_of_the_design() -> None:
    lifecycle = DaemonLifecycle.with_health_check(
        "queen-rbee", "http://127.0.0.1:8080/health", ["--port", "8080"]
    )

    config = LifecycleConfig(
        "queen-rbee",
        args=["--port", "8080"],
        ready_mode=HealthCheck("http://127.0.0.1:8080/health", 0.1),
        ready_timeout=30.0,
        detach=True,
    )
    assert config == lifecycle.config


def test_with_callback_is_owned_and_waits_for_300_seconds() -> None:
    lifecycle = DaemonLifecycle.with_callback("llm-worker-rbee", ["--model", "m"])

    config = LifecycleConfig(
        "llm-worker-rbee", args=["--model", "m"], ready_mode=Callback(), ready_timeout=300.0
    )
    assert config == lifecycle.config


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("spawner", {"spawner": "gpu-2"}),
        ("observer", {"observer": 3}),
        ("preflight", {"preflight": 3}),
        ("preflight", {"preflight": [3]}),
    ],
)
def test_a_collaborator_that_is_none_is_refused_by_name(
    field: str, arguments: dict[str, object]
) -> None:
    config = LifecycleConfig("program", ready_mode=Manual())

    with pytest.raises(ConfigError, match=field):
        DaemonLifecycle(config, **arguments)  # type: ignore[arg-type]  # that is the point


def test_something_else_than_a_configuration_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be a LifecycleConfig"):
        DaemonLifecycle("queen-rbee")  # type: ignore[arg-type]  # that is the point


@in_simulated_time
async def test_a_program_that_is_missing_is_no_spawn() -> None:
    trace = Trace()
    spawner = SimulatedSpawner({"other": SimulatedDaemon()})
    config = LifecycleConfig("program", ready_mode=Manual())

    with pytest.raises(Exception, match="was not found"):
        async with DaemonLifecycle(config, spawner=spawner, observer=trace.observe).running():
            pytest.fail("it is not there")

    assert ["starting", "failed"] == trace.kinds
    assert trace.follows_the_table
