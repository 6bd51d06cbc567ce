"""Another mode, unless a line says that it has failed: at once, whatever the mode waits for."""

import pytest
import trio

from tests.simulated import in_simulated_time
from tests.support import shell_daemon
from trio_lifecycle import (
    FREE_PORT,
    ConfigError,
    DaemonLifecycle,
    HealthCheck,
    Manual,
    ReadyError,
    TCPPort,
    UnlessLine,
)
from trio_lifecycle.testing import SimulatedDaemon, check_ready_mode

HEALTH = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/")


@in_simulated_time
async def test_a_fatal_line_ends_the_wait_at_that_moment() -> None:
    simulated = SimulatedDaemon(ready_after=20.0, says=[(1.0, "up soon"), (2.0, "FATAL: no disk")])
    lifecycle = simulated.lifecycle(ready_mode=UnlessLine(HEALTH, "^FATAL"))
    began = trio.current_time()
    with pytest.raises(ReadyError, match="it wrote 'FATAL: no disk'"):
        async with lifecycle.running():
            pass
    assert (2.0, 0) == (trio.current_time() - began, simulated.alive)


@in_simulated_time
async def test_without_such_a_line_it_is_the_mode_itself() -> None:
    simulated = SimulatedDaemon(ready_after=2.0, says=[(1.0, "all is well")])
    async with simulated.lifecycle(ready_mode=UnlessLine(HEALTH, "^FATAL")).running() as daemon:
        assert 2.0 <= daemon.ready_after_s <= 2.1
        assert "running" == await daemon.check()


@in_simulated_time
async def test_a_line_at_the_very_moment_of_success_is_a_failure() -> None:
    simulated = SimulatedDaemon(ready_after=0.0, says=[(0.0, "FATAL")])
    with pytest.raises(ReadyError):
        async with simulated.lifecycle(ready_mode=UnlessLine(HEALTH, "FATAL")).running():
            pass


@in_simulated_time
async def test_it_counts_while_the_mode_must_hold() -> None:
    simulated = SimulatedDaemon(says=[(3.0, "FATAL")])
    mode = UnlessLine(HEALTH.stable_for(5.0), "FATAL")
    with pytest.raises(ReadyError):
        async with simulated.lifecycle(ready_mode=mode).running():
            pass


@in_simulated_time
async def test_it_keeps_the_contract() -> None:
    await check_ready_mode(UnlessLine(HealthCheck("http://127.0.0.1:8080/"), f"port {FREE_PORT}"))
    await check_ready_mode(UnlessLine(Manual(), "FATAL"), waits=False)


async def test_output_that_ends_early_is_no_failure() -> None:
    script = "exec >/dev/null 2>&1; sleep 0.1; exec sleep 1000"
    mode = UnlessLine(Manual().stable_for(0.3), "FATAL")
    async with DaemonLifecycle(shell_daemon(script, ready_mode=mode)).running() as daemon:
        assert "running" == await daemon.check()


async def test_the_port_stands_in_for_its_marker() -> None:
    script = f"echo port {FREE_PORT} is taken; exec sleep 1000"
    mode = UnlessLine(TCPPort(FREE_PORT), f"port {FREE_PORT} is taken")
    with pytest.raises(ReadyError, match=r"it wrote 'port \d+ is taken'"):
        async with DaemonLifecycle(shell_daemon(script, ready_mode=mode)).running():
            pass


def test_what_is_no_mode_or_no_pattern_is_refused() -> None:
    with pytest.raises(ConfigError, match="mode: must be a ready mode"):
        UnlessLine("up", "FATAL")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"fatal: .* is no regular expression"):
        UnlessLine(Manual(), "(")
