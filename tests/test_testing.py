"""The simulated world keeps the contracts of the real one, and the checks find who does not."""

import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen
from hypothesis import given

from tests.simulated import in_simulated_time
from trio_lifecycle import (
    Callback,
    DaemonDiedError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    HealthCheck,
    Manual,
    ReadyTimeoutError,
)
from trio_lifecycle.abc import (
    ArmedReady,
    Process,
    ReadyMode,
    Report,
    ReservedPort,
    SpawnRequest,
    Start,
)
from trio_lifecycle.testing import (
    SimulatedDaemon,
    SimulatedSpawner,
    check_ready_mode,
    check_spawner,
    run_simulated,
    schedules,
    seconds,
)
from trio_lifecycle.testing._spawner import SimulatedProcess

# --- the example of the documentation ---


async def use(lifecycle: DaemonLifecycle) -> None:
    async with lifecycle.running() as daemon:
        await daemon.wait_exit()


@given(ready_after=seconds(), ready_timeout=seconds(), dies_after=seconds(), seed=schedules())
def test_no_daemon_is_left_behind_whatever_the_timing(
    ready_after: float, ready_timeout: float, dies_after: float, seed: int
) -> None:
    simulated = SimulatedDaemon(ready_after=ready_after, dies_after=dies_after)
    with suppress(ReadyTimeoutError, DiedBeforeReadyError, DaemonDiedError):
        run_simulated(use, simulated.lifecycle(ready_timeout=ready_timeout), seed=seed)
    assert 0 == simulated.alive


def test_run_simulated_gives_what_the_function_returns_and_takes_no_time() -> None:
    async def sleep(span: float) -> float:
        await trio.sleep(span)
        return trio.current_time()

    assert 1e6 == run_simulated(sleep, 1e6)


def test_how_many_live_is_still_known_after_the_run() -> None:
    simulated = SimulatedDaemon()

    async def start() -> None:
        simulated.start()
        simulated.start()
        simulated.incarnations[0].signal(signal.SIGKILL)

    run_simulated(start)

    assert 2 == simulated.spawned
    assert 1 == simulated.alive


# --- spawners ---


def world(spawner: type[SimulatedSpawner] = SimulatedSpawner, **stays: Any) -> SimulatedSpawner:
    """A spawner with the two programs that the check wants."""
    return spawner({"sleep": SimulatedDaemon(**stays), "false": SimulatedDaemon(dies_after=0.0)})


@in_simulated_time
async def test_the_simulated_spawner_keeps_the_contract() -> None:
    await check_spawner(world())
    await check_spawner(world(spawn_after=0.5, stops_after=2.0, lingers=3.0))


class Handed(SimulatedProcess):
    """A process of the spawners below, each with one flaw."""


class ForgetsItsStatus(Handed):
    """Ends with 0 whatever ended it."""

    async def wait(self) -> int | None:
        await super().wait()
        return 0


class EndsWhenWatched(Handed):
    """Cancelling a wait ends it."""

    async def wait(self) -> int | None:
        try:
            return await super().wait()
        except trio.Cancelled:
            self._it.signal(signal.SIGKILL)
            raise


class IsNeverGone(Handed):
    """Says that something is left for ever."""

    @property
    def gone(self) -> bool:
        return False


class KnowsNotItself(Handed):
    """Is not in its own tree."""

    async def contains(self, pid: int) -> bool | None:
        return False


class HangsAfterTheEnd(Handed):
    """Waits for a pipe that nobody closes."""

    async def wait_gone(self) -> None:
        await trio.sleep_forever()


def hand_out(kind: type[Handed]) -> type[SimulatedSpawner]:
    class Flawed(SimulatedSpawner):
        async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
            process = await super().spawn(request, nursery)
            assert isinstance(process, SimulatedProcess)
            return kind(process._it)

    return Flawed


class FindsEverything(SimulatedSpawner):
    """Says that any program is there."""

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        return f"/simulated/{name}"


class GivesOnePort(SimulatedSpawner):
    """Gives the same port to everybody."""

    async def reserve_port(self) -> ReservedPort:
        self._ports = iter([1])  # type: ignore[assignment]  # the flaw
        return await super().reserve_port()


@pytest.mark.parametrize(
    ("spawner", "complaint"),
    [
        (hand_out(ForgetsItsStatus), "status 0 after SIGTERM"),
        (hand_out(EndsWhenWatched), "cancelling wait"),
        (hand_out(IsNeverGone), "gone is false"),
        (hand_out(KnowsNotItself), "not in its own tree"),
        (hand_out(HangsAfterTheEnd), None),
        (FindsEverything, "found a program that is not there"),
        (GivesOnePort, "a port was given twice"),
    ],
)
@in_simulated_time
async def test_the_check_finds_a_spawner_that_breaks_the_contract(
    spawner: type[SimulatedSpawner], complaint: str | None
) -> None:
    with pytest.RaisesGroup(pytest.RaisesExc((AssertionError, trio.TooSlowError), match=complaint)):
        await check_spawner(world(spawner))


# --- ready modes ---


@pytest.mark.parametrize(
    ("mode", "waits"),
    [
        (HealthCheck("http://127.0.0.1:8080/health"), True),
        (HealthCheck("http://localhost:8080/", 0.5, probe_timeout=2.0), True),
        (Manual(), False),
    ],
)
@in_simulated_time
async def test_the_ready_modes_that_ask_keep_the_contract(mode: ReadyMode, waits: bool) -> None:
    await check_ready_mode(mode, waits=waits)


async def test_the_ready_mode_that_listens_keeps_the_contract() -> None:
    await check_ready_mode(Callback())


@frozen
class Flawed(ReadyMode):
    """A ready mode with one flaw."""

    flaw: str

    async def arm(self, start: Start) -> "FlawedArmed":
        return FlawedArmed(self.flaw)


class FlawedArmed(ArmedReady):
    def __init__(self, flaw: str) -> None:
        self._flaw = flaw

    @property
    def env(self) -> dict[str, str]:
        return {"A": "\0"} if self._flaw == "NUL" else {"A": "s3cret"}

    @property
    def secrets(self) -> tuple[str, ...]:
        return ("s3cret",)

    @property
    def last_seen(self) -> str:
        return {"silent": "", "leaky": "s3cret"}.get(self._flaw, "nothing")

    async def wait(self, process: Process) -> Report:
        if self._flaw != "hasty":
            await trio.sleep_forever()
        return Report()

    async def ask(self, process: Process) -> Report | None:
        if self._flaw == "stuck":
            await trio.sleep_forever()
        return None


@pytest.mark.parametrize(
    ("flaw", "complaint", "error"),
    [
        ("NUL", "a NUL", AssertionError),
        ("silent", "last_seen is empty", AssertionError),
        ("leaky", "a secret shows", AssertionError),
        ("hasty", "wait", AssertionError),
        ("stuck", None, trio.TooSlowError),
    ],
)
@in_simulated_time
async def test_the_check_finds_a_ready_mode_that_breaks_the_contract(
    flaw: str, complaint: str | None, error: type[Exception]
) -> None:
    with pytest.raises(error, match=complaint):
        await check_ready_mode(Flawed(flaw))


def test_a_simulated_lifecycle_takes_another_ready_mode() -> None:
    assert Manual() == SimulatedDaemon().lifecycle(ready_mode=Manual()).config.ready_mode
