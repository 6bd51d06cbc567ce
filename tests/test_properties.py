"""What holds whatever the timing, drawn by Hypothesis and run in simulated time."""

from collections.abc import Sequence
from math import inf

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trace import Trace
from trio_lifecycle import (
    DaemonDiedError,
    DaemonLifecycle,
    DiedBeforeReadyError,
    ForeignDaemonError,
    LifecycleError,
    ReadyTimeoutError,
    StopLadder,
)
from trio_lifecycle.testing import (
    HANGS,
    REFUSES,
    SimulatedDaemon,
    run_simulated,
    schedules,
    seconds,
)

# Two sums of the same floats in another order differ by less than this.
ROUNDING = 1e-6

maybe_seconds = st.none() | seconds()


def run_use(lifecycle: DaemonLifecycle, trace: Trace, seed: int) -> str:
    """Own the daemon for a moment, and say how that went."""

    async def use() -> str:
        try:
            async with lifecycle.running():
                trace.note("entered")
        except DiedBeforeReadyError:
            return "died"
        except ReadyTimeoutError:
            return "timed out"
        return "ready"

    return run_simulated(use, seed=seed)


@given(
    ready_after=seconds(),
    dies_after=maybe_seconds,
    ready_timeout=seconds(),
    interval=seconds(1.0),
    answer_after=st.sampled_from([0.0, 0.001, 0.3, 2.0]),
    probe_timeout=st.sampled_from([0.1, 1.0, 5.0]),
    seed=schedules(),
)
@pytest.mark.fault(15, 16, 17, 25, 26)
def test_it_is_returned_if_and_only_if_it_is_ready_in_time_and_alive(
    ready_after: float,
    dies_after: float | None,
    ready_timeout: float,
    interval: float,
    answer_after: float,
    probe_timeout: float,
    seed: int,
) -> None:
    # At most a thousand probes: a hundred seconds of one each millisecond take half a minute.
    interval = min(max(interval, ready_timeout / 1000), ready_timeout)
    trace = Trace()
    simulated = SimulatedDaemon(
        ready_after=ready_after, dies_after=dies_after, answer_after=answer_after
    )
    lifecycle = simulated.lifecycle(
        ready_timeout=ready_timeout,
        interval=interval,
        probe_timeout=probe_timeout,
        observer=trace.observe,
    )
    dies = inf if dies_after is None else dies_after
    in_time = ready_after <= ready_timeout and answer_after < probe_timeout

    outcome = run_use(lifecycle, trace, seed)

    match outcome:
        case "ready":
            seen = trace.after_spawn("ready")
            assert in_time
            assert ready_after - ROUNDING <= seen < dies
            # One probe may be under way when it becomes ready, and one more has to see it.
            assert seen <= ready_after + interval + 2 * answer_after + ROUNDING
            assert seen <= ready_timeout + probe_timeout + ROUNDING
        case "timed out":
            seen = trace.after_spawn("stopping")
            assert not in_time
            assert ready_timeout - ROUNDING <= seen <= ready_timeout + probe_timeout + ROUNDING
            assert seen <= dies
        case "died":
            seen = trace.after_spawn("died")
            assert dies == pytest.approx(seen, abs=ROUNDING)
            assert seen <= ready_timeout + probe_timeout + ROUNDING
    assert 0 == simulated.alive
    assert trace.follows_the_table


health_plans = st.lists(
    st.tuples(seconds(20.0), st.sampled_from([REFUSES, HANGS, 200, 204, 301, 404, 503])),
    max_size=6,
).map(sorted)


@given(plan=health_plans, dies_after=maybe_seconds, ready_timeout=seconds(30.0), seed=schedules())
@pytest.mark.fault(18, 21, 25)
def test_a_flapping_daemon_is_ready_only_at_a_moment_at_which_it_answers_with_success(
    plan: Sequence[tuple[float, int]], dies_after: float | None, ready_timeout: float, seed: int
) -> None:
    trace = Trace()
    simulated = SimulatedDaemon(health=plan, dies_after=dies_after)
    lifecycle = simulated.lifecycle(ready_timeout=ready_timeout, observer=trace.observe)

    outcome = run_use(lifecycle, trace, seed)

    if outcome == "ready":
        seen = trace.after_spawn("ready")
        latest = [status for since, status in plan if since <= seen + ROUNDING][-2:]
        assert {200, 204} & set(latest)
    assert 0 == simulated.alive
    assert trace.follows_the_table


@given(
    cancelled_after=seconds(20.0),
    spawn_after=st.sampled_from([0.0, 0.5, 5.0]),
    ready_after=seconds(10.0),
    dies_after=maybe_seconds,
    ignores_sigterm=st.booleans(),
    stops_after=st.sampled_from([0.0, 0.2, 30.0]),
    lingers=st.sampled_from([0.0, 3.0, 100.0]),
    seed=schedules(),
)
@pytest.mark.fault(9, 37, 38, 39, 43)
def test_cancelled_at_any_instant_it_leaves_nothing_and_takes_no_longer_than_the_ladder(
    cancelled_after: float,
    spawn_after: float,
    ready_after: float,
    dies_after: float | None,
    ignores_sigterm: bool,
    stops_after: float,
    lingers: float,
    seed: int,
) -> None:
    trace = Trace()
    simulated = SimulatedDaemon(
        ready_after=ready_after,
        dies_after=dies_after,
        spawn_after=spawn_after,
        ignores_sigterm=ignores_sigterm,
        stops_after=stops_after,
        lingers=lingers,
    )
    ladder = StopLadder((2, 1.0), (15, 4.0))
    lifecycle = simulated.lifecycle(stop_ladder=ladder, observer=trace.observe)

    async def use() -> float:
        began = trio.current_time()
        with trio.move_on_after(cancelled_after):
            try:
                async with lifecycle.running():
                    await trio.sleep_forever()
            except (DiedBeforeReadyError, DaemonDiedError):
                pass
        assert 0 == simulated.alive
        return trio.current_time() - began

    took = run_simulated(use, seed=seed)

    assert took <= cancelled_after + ladder.seconds + ROUNDING
    assert trace.follows_the_table


class BodyError(Exception):
    """What a user's block raises."""


@given(
    raises_after=seconds(10.0), dies_after=maybe_seconds, in_nursery=st.booleans(), seed=schedules()
)
def test_what_the_block_raises_leaves_as_it_entered(
    raises_after: float, dies_after: float | None, in_nursery: bool, seed: int
) -> None:
    simulated = SimulatedDaemon(dies_after=dies_after)
    lifecycle = simulated.lifecycle()
    error = ExceptionGroup("the body's own", [BodyError()]) if in_nursery else BodyError()

    async def use() -> BaseException | None:
        try:
            async with lifecycle.running():
                await trio.sleep(raises_after)
                raise error
        except (BodyError, ExceptionGroup, LifecycleError) as seen:
            return seen

    seen = run_simulated(use, seed=seed)

    if isinstance(seen, LifecycleError):
        assert dies_after is not None
        assert dies_after <= raises_after + ROUNDING
    else:
        assert error is seen
    assert 0 == simulated.alive


@given(
    callers=st.lists(st.tuples(seconds(5.0), maybe_seconds), min_size=2, max_size=6),
    ready_after=seconds(5.0),
    spawn_after=st.sampled_from([0.0, 0.5]),
    seed=schedules(),
)
def test_callers_that_race_get_one_daemon_however_many_give_up(
    callers: list[tuple[float, float | None]], ready_after: float, spawn_after: float, seed: int
) -> None:
    simulated = SimulatedDaemon(ready_after=ready_after, spawn_after=spawn_after)
    lifecycle = simulated.lifecycle(detach=True)
    got: list[str] = []
    most_alive = 0

    async def call(begins: float, patience: float | None) -> None:
        nonlocal most_alive
        await trio.sleep(begins)
        with trio.move_on_after(inf if patience is None else patience):
            handle = await lifecycle.ensure_running()
            got.append(handle.instance_id)
            most_alive = max(most_alive, simulated.alive)

    async def use() -> None:
        async with trio.open_nursery() as nursery:
            for begins, patience in callers:
                nursery.start_soon(call, begins, patience)

    run_simulated(use, seed=seed)

    patient = [patience for _, patience in callers if patience is None]
    assert len(set(got)) <= 1
    assert len(patient) <= len(got)
    assert most_alive <= 1
    assert (1 if got else 0) == simulated.alive


@given(
    stoppers=st.lists(st.tuples(seconds(12.0), st.booleans()), min_size=1, max_size=5),
    ignores_sigterm=st.booleans(),
    stops_after=st.sampled_from([0.0, 0.5, 9.0]),
    seed=schedules(),
)
@pytest.mark.fault(42)
def test_however_many_stop_it_they_get_the_same_report_and_each_rung_is_taken_once(
    stoppers: list[tuple[float, bool]], ignores_sigterm: bool, stops_after: float, seed: int
) -> None:
    trace = Trace()
    simulated = SimulatedDaemon(ignores_sigterm=ignores_sigterm, stops_after=stops_after)
    lifecycle = simulated.lifecycle(observer=trace.observe)
    reports = []

    async def use() -> None:
        async with lifecycle.running() as daemon:

            async def stop(begins: float, kills: bool) -> None:
                await trio.sleep(begins)
                reports.append(await (daemon.kill() if kills else daemon.stop()))

            async with trio.open_nursery() as nursery:
                for begins, kills in stoppers:
                    nursery.start_soon(stop, begins, kills)
            assert 0 == simulated.alive

    run_simulated(use, seed=seed)

    assert 1 == len(set(reports))
    rungs = [event.rung for event in trace.events if event.kind == "stopping"]
    assert len(set(rungs)) == len(rungs)
    assert reports[0].rung == rungs[-1]
    assert trace.follows_the_table


@given(ready_after=seconds(3.0), seed=schedules())
@pytest.mark.fault(19)
def test_a_stranger_that_answers_never_makes_it_ready(ready_after: float, seed: int) -> None:
    trace = Trace()
    simulated = SimulatedDaemon(ready_after=ready_after, is_foreign=True)
    lifecycle = simulated.lifecycle(observer=trace.observe)

    async def use() -> None:
        with pytest.raises(ForeignDaemonError):
            async with lifecycle.running():
                raise AssertionError("entered")

    run_simulated(use, seed=seed)

    assert 0 == simulated.alive
    assert "ready" not in trace.kinds
    assert trace.follows_the_table


def test_the_schedules_that_are_drawn_give_many_different_orders() -> None:
    orders = set()

    async def record() -> tuple[int, ...]:
        order: list[int] = []

        async def take_turns(number: int) -> None:
            for _ in range(3):
                order.append(number)
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            for number in range(4):
                nursery.start_soon(take_turns, number)
        return tuple(order)

    @settings(max_examples=100)
    @given(seed=schedules())
    def explore(seed: int) -> None:
        orders.add(run_simulated(record, seed=seed))

    explore()

    assert len(orders) > 20


def test_the_same_seed_gives_the_same_order() -> None:
    async def draw() -> list[float]:
        return [trio._core._run._r.random() for _ in range(3)]

    assert run_simulated(draw, seed=7) == run_simulated(draw, seed=7)
    assert run_simulated(draw, seed=7) != run_simulated(draw, seed=8)
