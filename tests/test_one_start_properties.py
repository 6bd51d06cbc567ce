"""One start, whatever several programs and the world do at which moment; in simulated time."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import evolve
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.one_start import LONGEST_LADDER_S, World
from tests.simulated import in_simulated_time
from trio_lifecycle import (
    ClaimTimeoutError,
    DaemonHandle,
    DaemonRecord,
    DaemonStateUnknownError,
    MemoryRegistry,
    attach,
)
from trio_lifecycle._attempt import Attempt
from trio_lifecycle._entry import Entry, Recorded
from trio_lifecycle._launch import Launch
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner, schedules, seconds

moments = st.sampled_from([0.5, 0.1, 1.0, 0.3, 2.0, 5.0]) | seconds(3.0)
programs = st.fixed_dictionaries(
    {
        "changed": st.booleans(),
        "on_change": st.sampled_from(["keep", "restart", "error"]),
        "ladder_s": st.sampled_from([0.5, 2.0, LONGEST_LADDER_S]),
        "ready_timeout": st.sampled_from([5.0, 1.0, 12.0]),
        "claim_timeout": st.sampled_from([None, 0.2, 3.0]),
        "free_port": st.booleans(),
    }
)
behaviours = st.fixed_dictionaries(
    {
        "ready_after": st.sampled_from([0.0, 0.5, 2.0, 9.0]),
        "dies_after": st.none() | st.none() | st.sampled_from([1.0, 5.0, 20.0]),
        "spawn_after": st.sampled_from([0.0, 0.5]),
        "answer_after": st.sampled_from([0.0, 0.3]),
        "stops_after": st.sampled_from([0.0, 3.0, 0.4, 30.0]),
        "lingers": st.sampled_from([0.0, 1.0, 100.0]),
        "ignores_sigterm": st.booleans(),
    }
)
some = st.integers(0, 7)


class OneStart(RuleBasedStateMachine):
    """Several programs want one daemon."""

    world: World

    @initialize(seed=schedules(), behaviour=behaviours, first=programs)
    def begin(self, seed: int, behaviour: dict[str, Any], first: dict[str, Any]) -> None:
        self.world = World(seed, **behaviour)
        self.world.begin_program(**first)

    @precondition(lambda self: len(self.world.programs) < 4)
    @rule(options=programs)
    def a_program_begins(self, options: dict[str, Any]) -> None:
        self.world.begin_program(**options)

    @rule(which=some, patience=st.none() | moments)
    def somebody_asks(self, which: int, patience: float | None) -> None:
        programs = self.world.programs
        self.world.ask(programs[which % len(programs)], patience)

    @rule(which=some)
    def somebody_asks_and_gets_an_answer(self, which: int) -> None:
        programs = self.world.programs
        self.world.ask(programs[which % len(programs)], None)
        self.world.wait_for_answer()

    @precondition(lambda self: self.world.handles)
    @rule(which=some, verb=st.sampled_from(["stop", "kill", "terminate"]))
    def somebody_who_has_it_ends_it(self, which: int, verb: str) -> None:
        handles = self.world.handles
        self.world.use_handle(verb, handles[-1 - which % len(handles)])

    @rule()
    def somebody_attaches(self) -> None:
        self.world.attach()

    @rule(seconds=moments)
    def it_is_unwell(self, seconds: float) -> None:
        self.world.be_unwell(seconds)

    @rule(seconds=moments)
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(ticks=st.integers(1, 12))
    def a_little_happens(self, ticks: int) -> None:
        self.world.pass_ticks(ticks)

    @rule()
    def all_are_cancelled(self) -> None:
        self.world.cancel_all()

    def teardown(self) -> None:
        try:
            if not self.world.complaints:
                self.world.settle()
        finally:
            self.world.leave()


class OneStartInAWildWorld(OneStart):
    """And other programs are killed on the way, people remove records, and nothing is certain."""

    @rule(signum=st.sampled_from([signal.SIGKILL, signal.SIGTERM]))
    def it_is_killed(self, signum: int) -> None:
        self.world.crash(signum)

    @rule(
        record_first=st.booleans(),
        opens=st.booleans(),
        says_ready=st.booleans(),
        killed_after=moments,
    )
    def a_starter_is_killed(
        self, record_first: bool, opens: bool, says_ready: bool, killed_after: float
    ) -> None:
        self.world.start_elsewhere(
            record_first=record_first,
            opens=opens,
            says_ready=says_ready,
            killed_after=killed_after,
        )

    @rule(signals=st.booleans())
    def a_stopper_is_killed(self, signals: bool) -> None:
        self.world.stop_elsewhere(signals=signals)

    @rule(seconds=moments | st.just(300.0))
    def somebody_has_the_claim(self, seconds: float) -> None:
        self.world.hold_claim(seconds)

    @rule()
    def the_record_is_lost(self) -> None:
        self.world.lose_record()

    @rule(seconds=moments)
    def it_is_unseen(self, seconds: float) -> None:
        self.world.be_unseen(seconds)


@pytest.mark.parametrize("machine", [OneStart, OneStartInAWildWorld])
def test_whatever_happens_whenever_there_is_one_start_and_everybody_is_answered(
    machine: type[OneStart],
) -> None:
    run_state_machine_as_test(machine, settings=settings(max_examples=60, stateful_step_count=25))


# --- the machine finds what is wrong ---


@asynccontextmanager
async def _no_claim(*_: object) -> AsyncIterator[None]:
    yield


async def _takes_one_that_goes_for_ready(
    entry: Entry, *args: Any, claimed: bool
) -> Recorded | None:
    found = await _look(entry, *args, claimed=claimed)
    return None if found is None else found._replace(record=evolve(found.record, state="ready"))


async def _takes_one_that_starts_for_gone(
    entry: Entry, *args: Any, claimed: bool
) -> Recorded | None:
    found = await _look(entry, *args, claimed=claimed)
    return None if found is None or found.record.state == "starting" else found


async def _takes_unknown_for_gone(spawner: SimulatedSpawner, record: DaemonRecord) -> Any:
    try:
        return await _find_process(spawner, record)
    except DaemonStateUnknownError:
        return None


async def _leaves_what_it_started(launch: Launch) -> None:
    await launch.held.aclose()


async def _never_answers(attempt: Attempt) -> DaemonHandle:
    await attempt.over()
    await trio.sleep_forever()
    raise AssertionError


_look = Entry.look
_find_process = SimulatedSpawner.find_process


@pytest.mark.parametrize(
    ("place", "method", "wrong", "complaint"),
    [
        (Entry, "claimed", _no_claim, "was started while|different ones"),
        (
            Entry,
            "look",
            _takes_one_that_goes_for_ready,
            "had been asked|is recorded|nobody answers",
        ),
        (SimulatedSpawner, "find_process", _takes_unknown_for_gone, "was started|is not recorded"),
        (Launch, "_clean_up", _leaves_what_it_started, "is not recorded|half started|was started"),
        (Attempt, "join", _never_answers, "nobody answers|who asks gets None"),
    ],
)
def test_a_library_that_does_it_wrong_is_found_out(
    place: type, method: str, wrong: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, method, wrong)

    with pytest.raises(AssertionError, match=complaint):
        run_state_machine_as_test(
            OneStartInAWildWorld,
            settings=settings(
                max_examples=1000,
                stateful_step_count=25,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )


def test_a_library_that_takes_one_that_starts_for_gone_is_found_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # By hand: in a search it depends on luck whether all that it takes comes together.
    monkeypatch.setattr(Entry, "look", _takes_one_that_starts_for_gone)
    world = World(0, ready_after=9.0)
    try:
        program = world.begin_program(changed=False, ladder_s=0.5, free_port=True)
        world.start_elsewhere(record_first=True, opens=True, says_ready=False, killed_after=0.5)
        world.pass_time(1.0)
        world.ask(program, None)
        with pytest.raises(AssertionError, match="was started while"):
            world.wait_for_answer()
    finally:
        world.leave()


# --- what was found, each by a plain test ---


@pytest.mark.fault(60)
@pytest.mark.parametrize("asks_again", [True, False])
@in_simulated_time
async def test_one_that_another_program_stops_while_it_is_asked_is_not_given(
    asks_again: bool,
) -> None:
    simulated = SimulatedDaemon(stops_after=9.0)
    first = simulated.lifecycle(detach=True)
    before = await first.ensure_running()
    simulated.health = [(0.0, 503)]

    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def stop() -> None:
            await trio.sleep(1.0)
            spawner = SimulatedSpawner(simulated)
            daemon = await attach("simulated", simulated.registry, spawner=spawner)
            await daemon.stop()

        @nursery.start_soon
        async def recover() -> None:
            await trio.sleep(2.0)
            simulated.health = None

        lifecycle = first if asks_again else simulated.lifecycle(detach=True)
        daemon = await lifecycle.ensure_running()

    assert before.instance_id != daemon.instance_id
    assert (2, 1) == (simulated.spawned, simulated.alive)


@pytest.mark.fault(60)
@in_simulated_time
async def test_one_that_was_attached_to_while_it_was_starting_is_not_given_once_it_is_stopped() -> (
    None
):
    simulated = SimulatedDaemon(ready_after=2.0, stops_after=9.0)
    spawner = SimulatedSpawner(simulated)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(simulated.lifecycle(detach=True).ensure_running)
        await trio.sleep(1.0)
        attached = await attach("simulated", simulated.registry, spawner=spawner)
        await trio.sleep(2.0)
        nursery.start_soon(attached.stop)
        await trio.sleep(1.0)
        (record,) = await simulated.registry.daemons()
        daemon = await simulated.lifecycle(detach=True).ensure_running()

    assert "stopping" == record.state
    assert record.instance_id != daemon.instance_id
    assert (2, 1) == (simulated.spawned, simulated.alive)


@in_simulated_time
async def test_who_looks_for_its_record_again_waits_no_longer_than_for_a_claim() -> None:
    simulated = SimulatedDaemon()
    lifecycle = simulated.lifecycle(detach=True, claim_timeout=2.0)
    await lifecycle.ensure_running()
    (record,) = await simulated.registry.daemons()
    await simulated.registry.remove(record)

    async with simulated.registry.claim("simulated"):
        with trio.fail_after(100.0), pytest.raises(ClaimTimeoutError):
            await lifecycle.ensure_running()

    assert 1 == simulated.spawned


@in_simulated_time
async def test_terminating_one_that_is_being_killed_is_fine_however_slow_the_registry_is() -> None:
    class Slow(MemoryRegistry):
        async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
            if new.state == "stopping":
                await trio.sleep(0.5)
            return await super().replace(old, new)

    simulated = SimulatedDaemon(registry=Slow())
    daemon = await simulated.lifecycle(detach=True).ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.kill)
        await trio.sleep(0.2)
        nursery.start_soon(daemon.terminate)

    assert 0 == simulated.alive
    assert [] == await simulated.registry.daemons()


@pytest.mark.fault(60)
@in_simulated_time
async def test_who_stops_it_waits_for_its_end_also_when_its_record_is_lost() -> None:
    simulated = SimulatedDaemon(stops_after=9.0)
    lifecycle = simulated.lifecycle(detach=True)
    daemon = await lifecycle.ensure_running()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(daemon.stop)
        await trio.sleep(1.0)
        (record,) = await simulated.registry.daemons()
        await simulated.registry.remove(record)
        await lifecycle.ensure_running()
        assert (2, 1) == (simulated.spawned, simulated.alive)
