"""Daemons on another machine, as far as the heart is concerned: addresses, paths, records."""

from pathlib import Path

import pytest
import trio
from attrs import evolve

from tests.simulated import in_simulated_time
from tests.trace import Trace
from trio_lifecycle import (
    ConfigError,
    DaemonLifecycle,
    LifecycleConfig,
    ListenSocket,
    Manual,
    MemoryRegistry,
    Output,
    SpawnError,
    attach,
)
from trio_lifecycle.abc import Process, Report, SpawnRequest
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner
from trio_lifecycle.testing._spawner import SimulatedProcess

TICKS = 4_711


class Far(SimulatedProcess):
    """A process of a machine that has other ticks than this one."""

    @property
    def seen_alive(self) -> int | None:
        return TICKS


class Elsewhere(SimulatedSpawner):
    """A machine whose ports are found at 20000 and more here, by tasks of the owner's."""

    def __init__(self, daemon: SimulatedDaemon) -> None:
        super().__init__(daemon)
        self.asked: list[SpawnRequest] = []
        self.forwards = 0

    @property
    def is_here(self) -> bool:
        return False

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        self.asked.append(request)
        process = await super().spawn(request, nursery)
        assert isinstance(process, SimulatedProcess)
        return Far(process._it)

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        if nursery is not None:
            nursery.start_soon(self._forward)
        port = 20_000 + (report.port or 0)
        return evolve(report, url=f"http://127.0.0.1:{port}/", port=port)

    async def _forward(self) -> None:
        self.forwards += 1
        try:
            await trio.sleep_forever()
        finally:
            self.forwards -= 1


def far_away(daemon: SimulatedDaemon, trace: Trace) -> DaemonLifecycle:
    near = daemon.lifecycle(detach=True)
    return DaemonLifecycle(
        near.config,
        spawner=Elsewhere(daemon),
        observer=trace.observe,
        registry=daemon.registry,
    )


@in_simulated_time
async def test_a_handle_has_the_address_here_and_the_record_that_of_the_daemons_machine() -> None:
    simulated, trace = SimulatedDaemon(ready_after=1.0), Trace()
    spawner = Elsewhere(simulated)
    config = simulated.lifecycle().config
    lifecycle = DaemonLifecycle(config, spawner=spawner, registry=simulated.registry)

    async with lifecycle.running() as daemon:
        record = await simulated.registry.get("simulated")
        assert record is not None
        assert record.port is not None
        assert f"http://127.0.0.1:{record.port}/" == record.url
        assert 20_000 + record.port == daemon.port
        assert f"http://127.0.0.1:{daemon.port}/" == daemon.url
        assert TICKS == record.seen_alive
        assert "running" == await daemon.check()
        await trio.testing.wait_all_tasks_blocked()
        assert 1 == spawner.forwards
        seen = DaemonLifecycle(
            config, spawner=spawner, registry=simulated.registry, observer=trace.observe
        )
        async with seen.running() as again:
            assert ("adopted", daemon.url) == (again.origin, again.url)
            assert ("running", daemon.url) == (await again.check(), trace.events[-1].url)
            await trio.testing.wait_all_tasks_blocked()
            assert 2 == spawner.forwards
        attached = await attach("simulated", simulated.registry, spawner=spawner)
        assert (daemon.url, 1) == (attached.url, spawner.forwards)

    assert 0 == spawner.forwards


@in_simulated_time
async def test_a_daemon_that_nobody_owns_is_reached_without_a_task_and_logs_where_it_runs() -> None:
    simulated, trace = SimulatedDaemon(), Trace()
    lifecycle = far_away(simulated, trace)
    spawner = lifecycle._by.spawner
    assert isinstance(spawner, Elsewhere)

    daemon = await lifecycle.ensure_running()

    assert (0, trace.events[-1].url) == (spawner.forwards, daemon.url)
    assert spawner.asked[0].output.to is None
    await daemon.stop()


@in_simulated_time
async def test_paths_of_another_machine_are_given_as_they_are() -> None:
    simulated, trace = SimulatedDaemon(), Trace()
    near = far_away(simulated, trace)
    spawner = near._by.spawner
    assert isinstance(spawner, Elsewhere)
    config = evolve(near.config, output=Output(to="logs/web.log"), working_dir="models")
    lifecycle = DaemonLifecycle(config, spawner=spawner, registry=MemoryRegistry())

    await (await lifecycle.ensure_running()).stop()

    assert Path("logs/web.log") == spawner.asked[0].output.to
    assert Path("models") == spawner.asked[0].working_dir


def test_no_socket_can_be_passed_to_another_machine() -> None:
    config = LifecycleConfig("a", ready_mode=Manual(), listen=[ListenSocket(port=8080)])
    with pytest.raises(ConfigError, match=r"^listen: .* another machine; the daemon must bind"):
        DaemonLifecycle(config, spawner=Elsewhere(SimulatedDaemon()))


class CutOff(Elsewhere):
    """A machine of which no port can be brought here."""

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        raise SpawnError("simulated", "no port can be brought here")


@in_simulated_time
async def test_a_daemon_that_can_not_be_reached_is_stopped_and_an_adopted_one_is_left() -> None:
    simulated = SimulatedDaemon()
    config = simulated.lifecycle().config
    with pytest.raises(SpawnError, match="brought here"):
        async with DaemonLifecycle(config, spawner=CutOff(simulated)).running():
            raise AssertionError("it can't be used")
    assert (1, 0) == (simulated.spawned, simulated.alive)

    simulated.start()
    config = simulated.lifecycle(free_port=False).config
    with pytest.raises(SpawnError, match="brought here"):
        async with DaemonLifecycle(config, spawner=CutOff(simulated)).running():
            raise AssertionError("it can't be used")
    assert 1 == simulated.alive
