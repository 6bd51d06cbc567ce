"""The simulated world keeps the contracts of the real one, and the checks find who does not."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import evolve, field, frozen
from hypothesis import given

from tests.simulated import in_simulated_time
from tests.support import request
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    AnyOf,
    Callback,
    DaemonDiedError,
    DaemonLifecycle,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    HealthCheck,
    LogLine,
    Manual,
    NewlineOnFD,
    Notify,
    ReadyTimeoutError,
    SpawnError,
)
from trio_lifecycle.abc import (
    ArmedReady,
    DaemonRecord,
    Identity,
    Process,
    Question,
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
from trio_lifecycle.testing._spawner import SimulatedPort, SimulatedProcess

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


# --- gates and records ---


async def behind_a_gate(daemon: SimulatedDaemon) -> SimulatedProcess:
    process = await spawned(SimulatedSpawner(daemon), gated=True)
    assert (1, 0) == (daemon.spawned, daemon.opened)
    return process


async def spawned(spawner: SimulatedSpawner, name: str = "it", **changes: Any) -> SimulatedProcess:
    wanted = request(f"/simulated/{name}", **changes)
    async with trio.open_nursery() as nursery:
        process = await spawner.spawn(wanted, nursery)
    assert isinstance(process, SimulatedProcess)
    return process


def remembered(process: SimulatedProcess, **changes: Any) -> DaemonRecord:
    facts = {"name": "simulated", "instance_id": "instance", "started_at": 0, "heartbeat_at": 0}
    return DaemonRecord(**{**facts, **process.identity._asdict(), **changes})


@in_simulated_time
async def test_nothing_of_a_simulated_daemon_runs_before_its_gate_is_open() -> None:
    daemon = SimulatedDaemon(ready_after=2.0, dies_after=5.0, writes=b"up")
    process = await behind_a_gate(daemon)
    prober = SimulatedSpawner(daemon).open_prober()
    await trio.sleep(10.0)
    assert not process.ended
    assert b"" == process.output_tail()
    assert (await prober.ask(Question("http://127.0.0.1:8080/"))).absent
    opened_at = trio.current_time()
    await process.open_gate()
    await process.open_gate()
    assert b"up" == process.output_tail()
    assert 1 == daemon.opened
    await trio.sleep(2.0)
    assert 200 == (await prober.ask(Question("http://127.0.0.1:8080/"))).status
    assert 1 == await process.wait()
    assert opened_at + 5.0 == trio.current_time()
    await process.open_gate()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
@in_simulated_time
async def test_at_its_gate_a_simulated_daemon_obeys_every_signal(signum: signal.Signals) -> None:
    daemon = SimulatedDaemon(ignores_sigterm=True, unkillable=True, stops_after=9.0, lingers=9.0)
    process = await behind_a_gate(daemon)
    await process.send_signal(signal.SIGCONT)
    assert not process.ended
    await process.signal_tree(signum)
    assert process.gone
    assert -signum == await process.wait()
    with pytest.raises(SpawnError, match="at its gate"):
        await process.open_gate()
    assert (0, 0) == (daemon.opened, daemon.alive)


@in_simulated_time
async def test_who_waits_for_one_at_its_gate_is_woken_at_its_end() -> None:
    daemon = SimulatedDaemon(dies_after=5.0)
    process = await behind_a_gate(daemon)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(process.wait_gone)
        await trio.sleep(1.0)
        await process.open_gate()
    assert process.gone


@in_simulated_time
async def test_no_two_simulated_processes_are_the_same() -> None:
    registry = [SimulatedDaemon(), SimulatedDaemon()]
    several = SimulatedSpawner({"a": registry[0], "b": registry[1]})
    processes = [await spawned(several, name) for name in "abab"]
    processes.append(SimulatedProcess(registry[0].start()))
    assert 5 == len({process.pid for process in processes})
    assert 5 == len({process.identity for process in processes})
    for process in processes:
        found = await several.find_process(remembered(process))
        assert found is not None
        assert process.identity == found.identity


@in_simulated_time
async def test_a_simulated_process_is_found_by_its_record_until_it_has_ended() -> None:
    daemon = SimulatedDaemon()
    spawner = SimulatedSpawner(daemon)
    process = await spawned(spawner)
    record = remembered(process)
    assert await spawner.find_process(remembered(process, start_time=0)) is None
    assert await spawner.find_process(remembered(process, boot_id="older")) is None
    with pytest.raises(DaemonStateUnknownError, match="elsewhere"):
        await spawner.find_process(remembered(process, boot_id="another", host="elsewhere"))
    daemon.unseen = True
    with pytest.raises(DaemonStateUnknownError, match="unseen"):
        await spawner.find_process(record)
    daemon.unseen = False
    await process.send_signal(signal.SIGKILL)
    assert await spawner.find_process(record) is None


def test_a_simulated_process_is_found_in_another_run_too() -> None:
    daemon = SimulatedDaemon()
    first = run_simulated(spawned, SimulatedSpawner(daemon))
    second = run_simulated(spawned, SimulatedSpawner(daemon))
    assert first.pid != second.pid
    record = remembered(first)
    assert run_simulated(SimulatedSpawner(daemon).find_process, record) is not None


@pytest.mark.parametrize("is_foreign", [True, False])
@in_simulated_time
async def test_a_simulated_process_runs_its_program_unless_it_is_another(is_foreign: bool) -> None:
    process = SimulatedProcess(SimulatedDaemon(is_foreign=is_foreign).start())
    assert (not is_foreign) is process.runs("/simulated/it")


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


class SaysNothingToALook(Handed):
    """Is unseen, although it was just looked at."""

    was_looked_at = False

    @property
    def unseen(self) -> str | None:
        return "nobody is there" if self.was_looked_at else None

    async def look(self) -> None:
        await trio.lowlevel.checkpoint()
        self.was_looked_at = True


def hand_out(kind: type[Handed]) -> type[SimulatedSpawner]:
    class Flawed(SimulatedSpawner):
        async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
            process = await super().spawn(request, nursery)
            assert isinstance(process, SimulatedProcess)
            return kind(process._it)

    return Flawed


class HasNoGate(SimulatedSpawner):
    """Starts everything at once."""

    async def spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> Process:
        return await super().spawn(evolve(request, gated=False), nursery)


class OpensForTheDead(Handed):
    """Says nothing of a process that has ended at its gate."""

    async def open_gate(self) -> None:
        self._it.open_gate()


class HasOneIdentityForAll(Handed):
    """Can't be told from others."""

    @property
    def identity(self) -> Identity:
        return super().identity._replace(pid=1000, start_time=1)


class ForgetsItsIdentity(Handed):
    """Is another one when it has ended."""

    @property
    def identity(self) -> Identity:
        return super().identity._replace(host=str(self.ended))


class FindsWhatIsGone(SimulatedSpawner):
    """Finds a process after its end."""

    async def find_process(self, record: DaemonRecord) -> Process | None:
        return next(
            process
            for process in map(SimulatedProcess, self._incarnations())
            if process.identity == record.identity
        )


class FindsNothing(SimulatedSpawner):
    """Remembers nobody."""

    async def find_process(self, record: DaemonRecord) -> Process | None:
        return None


class FindsEverything(SimulatedSpawner):
    """Says that any program is there."""

    async def find_binary(self, name: str, search_path: tuple[Path, ...]) -> str:
        return f"/simulated/{name}"


class GivesOnePort(SimulatedSpawner):
    """Gives the same port to everybody."""

    async def reserve_port(self) -> ReservedPort:
        await trio.lowlevel.checkpoint()
        return SimulatedPort(1)


class InventsAnAddress(SimulatedSpawner):
    """Reaches what has no address."""

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        return evolve(report, url="http://127.0.0.1:1/", port=1)


class ForgetsThePort(SimulatedSpawner):
    """Reaches a daemon at a port that its url does not have."""

    async def reach(self, report: Report, nursery: trio.Nursery | None, process: Process) -> Report:
        return report if report.url is None else evolve(report, port=1)


@pytest.mark.parametrize(
    ("spawner", "complaint"),
    [
        (hand_out(ForgetsItsStatus), "status 0 after SIGTERM"),
        (hand_out(EndsWhenWatched), "cancelling wait"),
        (hand_out(IsNeverGone), "gone is false"),
        (hand_out(KnowsNotItself), "not in its own tree"),
        (hand_out(HangsAfterTheEnd), None),
        (HasNoGate, "its gate was not opened"),
        (hand_out(OpensForTheDead), "said nothing"),
        (hand_out(HasOneIdentityForAll), "two processes are one"),
        (hand_out(ForgetsItsIdentity), "does not find it|has changed"),
        (FindsWhatIsGone, "after its end"),
        (FindsNothing, "does not find it"),
        (FindsEverything, "found a program that is not there"),
        (GivesOnePort, "a port was given twice"),
        (hand_out(SaysNothingToALook), "left it unseen"),
        (InventsAnAddress, "has invented an address"),
        (ForgetsThePort, "a url of another port"),
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
        (LogLine(f"port {FREE_PORT}", fatal="failed"), True),
        (AllOf(Manual(), HealthCheck("http://127.0.0.1:8080/")), True),
        (AllOf(Manual(), AnyOf(Manual(), HealthCheck("http://127.0.0.1:8080/"))), False),
        (AnyOf(HealthCheck("http://127.0.0.1:8080/"), HealthCheck("http://127.0.0.1:8081/")), True),
    ],
)
@in_simulated_time
async def test_the_ready_modes_that_ask_keep_the_contract(mode: ReadyMode, waits: bool) -> None:
    await check_ready_mode(mode, waits=waits)


@pytest.mark.parametrize(
    "mode",
    [
        *(Callback(), Notify(), Notify(watchdog=2), NewlineOnFD(3)),
        AllOf(Manual(), AnyOf(Callback()), Notify(), NewlineOnFD(3)),
    ],
    ids=repr,
)
async def test_the_ready_modes_that_listen_keep_the_contract(mode: ReadyMode) -> None:
    await check_ready_mode(mode)


@frozen
class Flawed(ReadyMode):
    """A ready mode with one flaw."""

    flaw: str
    text: str = f"--port {FREE_PORT}"
    pipes: list[tuple[int, int]] = field(factory=list, eq=False)

    @property
    def texts(self) -> tuple[str, ...]:
        return () if self.flaw == "untold" else (self.text,)

    @property
    def kind(self) -> str:
        return "" if self.flaw == "kindless" else "Flawed"

    @property
    def channels(self) -> frozenset[str]:
        channels = frozenset({"A", "fd 3"})
        if self.flaw == "unset":
            return set(channels)  # type: ignore[return-value]
        return frozenset() if self.flaw == "open to all" else channels

    @property
    def shortest_wait_s(self) -> float:
        return {"endless": inf, "early": 5.0}.get(self.flaw, 0.0)

    async def arm(self, start: Start) -> "FlawedArmed":
        return FlawedArmed(self, start)


class FlawedArmed(ArmedReady):
    def __init__(self, mode: Flawed, start: Start) -> None:
        self._flaw = mode.flaw
        self._text = mode.text if mode.flaw == "unfilled" else "port 8080"
        self._name = "same" if mode.flaw == "mixed up" else start.instance_id
        self._secret = "s3cret" if mode.flaw == "of all" else f"s3cret{start.port}"
        self._asked = 0
        self._scope = trio.CancelScope()
        self._pipes = mode.pipes if mode.flaw == "greedy" else []
        self._pipes.append(os.pipe())
        self._here = 2 if mode.flaw == "shared" else self._pipes[-1][1]

    @property
    def env(self) -> dict[str, str]:
        return {"A": "\0"} if self._flaw == "NUL" else {"A": self._name}

    @property
    def descriptors(self) -> dict[int, int]:
        here = -1 if self._flaw == "shut" else self._here
        return {1 if self._flaw == "loud" else 3: here}

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self._secret,)

    @property
    def last_seen(self) -> str:
        return {"silent": "", "leaky": self._secret}.get(self._flaw, f"nothing at {self._text}")

    @property
    def awaited(self) -> str:
        return self._secret if self._flaw == "chatty" else ""

    @property
    def follows(self) -> bool:
        return True

    async def wait(self, process: Process) -> Report:
        self._asked = 0
        if self._flaw == "late to leave":
            await self._leave_late()
        if self._flaw == "leaky pipe":
            os.pipe()
        if self._flaw == "once":
            with self._scope:
                await trio.sleep_forever()
        if self._flaw not in ("hasty", "early", "forgetful"):
            await trio.sleep_forever()
        return Report()

    async def _leave_late(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(30.0)

    async def ask(self, process: Process) -> Report | None:
        if self._flaw == "stuck":
            await trio.sleep_forever()
        self._asked += 1
        is_known = self._flaw == "early" or (self._flaw == "forgetful" and self._asked == 1)
        return Report() if is_known else None

    async def follow(self, process: Process) -> None:
        if self._flaw == "bound":
            await self._leave_late()
        await trio.sleep_forever()

    async def disarm(self) -> None:
        if self._flaw == "slow":
            await self._leave_late()
        if self._flaw == "holder":
            return
        while self._pipes:
            for descriptor in self._pipes.pop():
                os.close(descriptor)


@pytest.mark.parametrize(
    ("flaw", "complaint", "error"),
    [
        ("NUL", "a NUL", AssertionError),
        ("silent", "last_seen is empty", AssertionError),
        ("leaky", "a secret shows in last_seen", AssertionError),
        ("chatty", "a secret shows in awaited", AssertionError),
        ("hasty", "wait", AssertionError),
        ("stuck", None, trio.TooSlowError),
        ("untold", "FREE_PORT stands in a field, but not in texts", AssertionError),
        ("unfilled", "a marker has no value in what is shown", AssertionError),
        ("kindless", "kind is empty", AssertionError),
        ("unset", "channels is no frozenset", AssertionError),
        ("open to all", "but no channels", AssertionError),
        ("endless", "shortest_wait_s is no time that ends", AssertionError),
        ("mixed up", "two spawns get the same A", AssertionError),
        ("of all", "two spawns have the same secret", AssertionError),
        ("loud", "descriptor 1 is the daemon's standard", AssertionError),
        ("shut", "descriptor -1 is not open here", AssertionError),
        ("late to leave", "wait.. goes on when it is cancelled", AssertionError),
        ("bound", "follow.. goes on when it is cancelled", AssertionError),
        ("once", "only be used for a single", RuntimeError),
        ("slow", "disarm.. takes over", AssertionError),
        ("shared", "two spawns get the same descriptor", AssertionError),
        ("greedy", "is not open here", AssertionError),
        ("holder", "2 descriptors were left open after a spawn that failed", AssertionError),
        ("leaky pipe", "8 descriptors were left open after it was disarmed", AssertionError),
    ],
)
@in_simulated_time
async def test_the_check_finds_a_ready_mode_that_breaks_the_contract(
    flaw: str, complaint: str | None, error: type[Exception]
) -> None:
    with _closing_what_is_held(), pytest.raises(error, match=complaint):
        await check_ready_mode(Flawed(flaw))


@pytest.mark.parametrize(
    ("flaw", "complaint"),
    [("early", "ready before shortest_wait_s"), ("forgetful", r"ask\(\) gave None")],
)
@in_simulated_time
async def test_the_check_finds_a_mode_that_is_ready_at_once_and_breaks_the_contract(
    flaw: str, complaint: str
) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await check_ready_mode(Flawed(flaw), waits=False)


@in_simulated_time
async def test_the_check_is_content_with_a_mode_that_has_no_flaw() -> None:
    await check_ready_mode(Flawed("none"))


@contextmanager
def _closing_what_is_held() -> Iterator[None]:
    """Close what a flawed mode leaves open."""
    before = _open_descriptors()
    yield
    for descriptor in _open_descriptors() - before:
        with suppress(OSError):
            os.close(descriptor)


def _open_descriptors() -> set[int]:
    listed = [int(entry.name) for entry in Path("/dev/fd").iterdir()]
    # Without the one by which they were listed.
    return {descriptor for descriptor in listed if Path(f"/dev/fd/{descriptor}").exists()}


def test_a_simulated_lifecycle_takes_another_ready_mode() -> None:
    assert Manual() == SimulatedDaemon().lifecycle(ready_mode=Manual()).config.ready_mode
