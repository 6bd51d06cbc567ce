"""What holds in a daemon nursery whatever is asked at whichever moment, in simulated time."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

import pytest
import trio
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from tests.trace import Trace
from trio_lifecycle import (
    DaemonLifecycle,
    DaemonNotRunningError,
    DiedBeforeReadyError,
    Event,
    ReadyTimeoutError,
    StopLadder,
)
from trio_lifecycle._nursery import DaemonNursery, open_daemon_nursery
from trio_lifecycle._nursery._standing import Standing, Step, decide
from trio_lifecycle.testing import (
    SimulatedDaemon,
    SimulatedSpawner,
    run_simulated,
    schedules,
    seconds,
)

# Two sums of the same floats in another order differ by less than this.
ROUNDING = 1e-6

# Longer than anything here can take; who is not answered by then never is.
NEVER = 100_000.0

LADDER = StopLadder((15, 4.0))
NAMES = ["queen", "hive", "worker"]


class Call(NamedTuple):
    """One thing that is done to a daemon."""

    verb: str
    name: str
    begins: float
    patience: float | None


moments = seconds(12.0)
calls = st.lists(
    st.builds(
        Call,
        st.sampled_from(["ensure", "ensure", "ensure", "change", "stop", "kill"]),
        st.sampled_from(NAMES),
        moments,
        st.none() | moments,
    ),
    min_size=1,
    max_size=14,
)
programs = st.builds(
    SimulatedDaemon,
    ready_after=st.sampled_from([0.0, 0.5, 2.0, 9.0, inf]),
    dies_after=st.none() | moments,
    spawn_after=st.sampled_from([0.0, 0.3, 2.0]),
    stops_after=st.sampled_from([0.0, 0.4, 2.0, 30.0]),
    lingers=st.sampled_from([0.0, 1.0, 100.0]),
    ignores_sigterm=st.booleans(),
)


class Household:
    """Three simulated daemons in a nursery, and what those who asked for them were told."""

    def __init__(self, programs: Sequence[SimulatedDaemon]) -> None:
        self.programs = dict(zip(NAMES, programs, strict=True))
        self.trace = Trace()
        self.most_alive = 0
        self.answers: list[str] = []
        self.left = False

    def lifecycle(self, name: str, *, changed: bool = False) -> DaemonLifecycle:
        """One of them; its failure to start takes five seconds at most."""
        simulated = self.programs[name]
        config = simulated.lifecycle(ready_timeout=5.0, stop_ladder=LADDER).config
        config = evolve(
            config, name=name, on_change="restart", env={"CHANGED": "1"} if changed else {}
        )
        return DaemonLifecycle(config, spawner=SimulatedSpawner(simulated), observer=self.observe)

    def observe(self, event: Event) -> None:
        """Note an event, and how many are alive now."""
        if event.kind != "config_changed":
            self.trace.observe(event)
        self.most_alive = max(self.most_alive, self.programs[event.name].alive)

    async def answer(self, daemons: DaemonNursery, call: Call) -> None:
        """Do one thing, and note how that ended."""
        await trio.sleep(call.begins)
        with trio.move_on_after(NEVER if call.patience is None else call.patience) as scope:
            self.answers.append(await self._do(daemons, call))
        if scope.cancelled_caught:
            assert call.patience is not None
            self.answers.append("cancelled")

    async def _do(self, daemons: DaemonNursery, call: Call) -> str:
        simulated = self.programs[call.name]
        if call.verb == "stop":
            await daemons.stop(call.name)
            return "stopped"
        if call.verb == "kill":
            for incarnation in simulated.incarnations:
                incarnation.signal(9)
            return "killed"
        try:
            lifecycle = self.lifecycle(call.name, changed=call.verb == "change")
            daemon = await daemons.ensure_running(lifecycle)
        except (DiedBeforeReadyError, ReadyTimeoutError):
            return "failed"
        except DaemonNotRunningError:
            return "stopped meanwhile"
        # Never one that is dying, and nothing is given any more once the block has left.
        assert not self.left
        assert [it.pid for it in simulated.incarnations if not it.ended] == [daemon.pid]
        assert daemon in list(daemons)
        return "given"


@given(
    calls=calls,
    programs=st.tuples(programs, programs, programs),
    block_s=st.sampled_from([3.0, 14.0, 40.0]),
    cancelled=st.booleans(),
    seed=schedules(),
)
@pytest.mark.fault(57, 60)
def test_whatever_is_asked_whenever_there_are_never_two_and_everybody_is_answered(
    calls: list[Call],
    programs: tuple[SimulatedDaemon, ...],
    block_s: float,
    cancelled: bool,
    seed: int,
) -> None:
    household = Household(programs)

    async def use() -> float:
        with trio.fail_after(NEVER / 2):
            async with trio.open_nursery() as nursery:
                with trio.move_on_after(block_s if cancelled else inf):
                    async with open_daemon_nursery() as daemons:
                        for call in calls:
                            nursery.start_soon(household.answer, daemons, call)  # noqa: ASYNC111
                        await trio.sleep(inf if cancelled else block_s)
                        household.left = True
                assert 0 == sum(program.alive for program in programs)
                took = trio.current_time() - block_s - began[0]
        return took

    began = [0.0]

    async def timed() -> float:
        began[0] = trio.current_time()
        return await use()

    took = run_simulated(timed, seed=seed)

    assert len(calls) == len(household.answers)
    assert took <= 2 * LADDER.seconds + 1.0
    assert household.most_alive <= 1
    assert 0 == sum(program.alive for program in programs)
    assert household.trace.follows_the_table


@given(
    programs=st.lists(programs, min_size=1, max_size=8),
    ladders=st.lists(st.sampled_from([0.0, 0.5, 3.0, 10.0]), min_size=8, max_size=8),
    seed=schedules(),
)
@pytest.mark.fault(45)
def test_the_last_is_stopped_first_until_the_longest_ladder_has_passed_and_then_all_at_once(
    programs: list[SimulatedDaemon], ladders: list[float], seed: int
) -> None:
    asked: list[tuple[float, str]] = []
    ended: dict[str, float] = {}

    def observe(event: Event) -> None:
        now = trio.current_time() - began[0]
        if event.kind == "stopping" and event.name not in {name for _, name in asked}:
            asked.append((now, event.name))
        if event.kind == "stopped":
            ended[event.name] = now

    longest = max(ladders[: len(programs)])
    names = [f"daemon-{number}" for number in range(len(programs))]
    began = [0.0]

    async def use() -> float:
        async with open_daemon_nursery() as daemons:
            for name, simulated, ladder in zip(names, programs, ladders, strict=False):
                simulated.ready_after, simulated.dies_after = 0.0, None
                await daemons.ensure_running(_named(name, simulated, ladder, observe))
            assert names == [daemon.name for daemon in daemons]
            began[0] = trio.current_time()
        assert 0 == sum(simulated.alive for simulated in programs)
        return trio.current_time() - began[0]

    took = run_simulated(use, seed=seed)

    assert took <= 2 * longest + 1.0
    one_by_one = [name for when, name in asked if when < max(longest, 0.5) - ROUNDING]
    assert names[::-1][: len(one_by_one)] == one_by_one
    for earlier, later in pairwise(one_by_one):
        assert ended[earlier] <= {name: when for when, name in asked}[later] + ROUNDING
    assert set(names) == set(ended)


def _named(
    name: str, simulated: SimulatedDaemon, ladder: float, observe: Callable[[Event], object]
) -> DaemonLifecycle:
    stop_ladder = StopLadder((15, ladder)) if ladder else StopLadder()
    config = evolve(simulated.lifecycle(stop_ladder=stop_ladder).config, name=name)
    return DaemonLifecycle(config, spawner=SimulatedSpawner(simulated), observer=observe)


@given(
    callers=st.lists(st.tuples(seconds(5.0), st.none() | seconds()), min_size=2, max_size=8),
    ready_after=seconds(5.0),
    spawn_after=st.sampled_from([0.0, 0.5]),
    stops_after=st.sampled_from([0.0, 3.0]),
    seed=schedules(),
)
@pytest.mark.fault(57)
def test_who_does_not_give_up_gets_it_whoever_else_does(
    callers: list[tuple[float, float | None]],
    ready_after: float,
    spawn_after: float,
    stops_after: float,
    seed: int,
) -> None:
    simulated = SimulatedDaemon(
        ready_after=ready_after, spawn_after=spawn_after, stops_after=stops_after
    )
    got: list[str] = []

    async def call(daemons: DaemonNursery, begins: float, patience: float | None) -> None:
        await trio.sleep(begins)
        with trio.move_on_after(inf if patience is None else patience):
            got.append((await daemons.ensure_running(simulated.lifecycle())).instance_id)

    async def use() -> None:
        async with open_daemon_nursery() as daemons:
            async with trio.open_nursery() as nursery:
                for begins, patience in callers:
                    nursery.start_soon(call, daemons, begins, patience)
            assert simulated.alive <= 1

    run_simulated(use, seed=seed)

    patient = [patience for _, patience in callers if patience is None]
    assert len(set(got)) <= 1
    assert len(patient) <= len(got)
    assert 0 == simulated.alive


@given(
    standing=st.sampled_from(Standing),
    on_change=st.sampled_from(["keep", "restart", "error"]),
    changed=st.booleans(),
)
def test_only_where_nothing_is_left_a_daemon_is_started_and_only_one_that_is_up_is_given(
    standing: Standing, on_change: str, changed: bool
) -> None:
    step = decide(standing, on_change, changed=changed)  # type: ignore[arg-type]

    assert (step is Step.START) == (standing is Standing.GONE)
    assert step is not Step.TAKE or standing is Standing.UP
    assert step is not Step.JOIN or (standing is Standing.STARTING and not changed)
    assert step not in (Step.REPLACE, Step.REFUSE) or changed
