"""Whatever is composed, and whatever the daemon does: what comes of the wait is what must come."""

from copy import deepcopy
from itertools import product
from math import inf

import pytest
from attrs import evolve
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests import ready_model as model
from tests.ready_model import FATAL_EXIT, FATAL_STATUS, Leaf, Node, Outcome, Plan
from tests.trace import Trace
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    AnyOf,
    DaemonHandle,
    DiedBeforeReadyError,
    Exec,
    FileAppears,
    HealthCheck,
    LogLine,
    Manual,
    ReadyError,
    ReadyTimeoutError,
    StallTimeoutError,
    TCPPort,
)
from trio_lifecycle.abc import ReadyMode
from trio_lifecycle.testing import HANGS, REFUSES, SimulatedDaemon, run_simulated, schedules

pytestmark = pytest.mark.fault(15, 16, 17, 18, 25)

ROUNDING = 1e-6

# The moments of a plan are far from each other, so that no poll can make two of them one. A mode
# must hold for times whose sums come near to none of them, and the clocks and the end of the daemon
# have moments of their own: which of two things is first is never a matter of a poll.
UNIT = 20.0
UNITS = 5
HOLDS = (3.0, 5.0, 25.0)
LATEST_HOLD = 10.0
CLOCKS = UNIT - 2.0
ENDS = UNIT - 1.0

# As long as the news may come late: most of what these tests take are polls.
INTERVAL = 1.0
PROBE_TIMEOUT = 0.1
URL = f"http://127.0.0.1:{FREE_PORT}/"

HEALTH = HealthCheck(URL, interval=INTERVAL, probe_timeout=PROBE_TIMEOUT)
EXEC = Exec(["look", FREE_PORT], interval=INTERVAL, probe_timeout=PROBE_TIMEOUT)
LEAVES: dict[str, ReadyMode] = {
    "manual": Manual(),
    "tcp": TCPPort(FREE_PORT, interval=INTERVAL),
    "health": HEALTH,
    "fatal health": evolve(HEALTH, fatal_statuses={FATAL_STATUS}),
    "exec": EXEC,
    "fatal exec": evolve(EXEC, fatal_statuses={FATAL_EXIT}),
    "file": FileAppears("/run/daemon.ready", interval=INTERVAL),
    "line": LogLine("(?P<said>ready)"),
    "fatal line": LogLine("(?P<said>ready)", fatal="fatal"),
}


def build(tree: Node) -> ReadyMode:
    """The ready mode that a model speaks of."""
    match tree:
        case Leaf(kind):
            return LEAVES[kind]
        case model.Stable(inner, seconds):
            return build(inner).stable_for(seconds)
        case model.All(members):
            return AllOf(*map(build, members))
        case model.Any(members):
            return AnyOf(*map(build, members))
    raise AssertionError(tree)


def lateness(tree: Node) -> float:
    """How late the news may be, at most, by the pauses between two looks and by their limits."""
    question = PROBE_TIMEOUT
    match tree:
        case model.Stable(inner):
            return lateness(inner) + INTERVAL + question
        case model.All(members) | model.Any(members):
            return max(map(lateness, members)) + INTERVAL + question
        case _:
            return INTERVAL + 2 * question


def can_report(tree: Node) -> set[bool]:
    """Whether its report has the line that made it ready: what may be."""
    match tree:
        case Leaf(kind):
            return {kind in ("line", "fatal line")}
        case model.Stable(inner):
            return can_report(inner)
        case model.All(members):
            return {any(choice) for choice in product(*map(can_report, members))}
        case model.Any(members):
            return set().union(*map(can_report, members))
    raise AssertionError(tree)


def composed(trees: st.SearchStrategy[Node], least: int = 1) -> st.SearchStrategy[Node]:
    """Trees of one more level."""
    members = st.lists(trees, min_size=least, max_size=3)
    return st.builds(model.All, members) | st.builds(model.Any, members)


def held(trees: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    """Trees that must hold."""
    return st.builds(model.Stable, trees, st.sampled_from(HOLDS))


def phases(*statuses: int) -> st.SearchStrategy[list[tuple[float, int]]]:
    """What somebody answers over time; what is named twice comes more often."""
    drawn = st.lists(st.sampled_from(statuses), min_size=1, max_size=UNITS)
    return drawn.map(lambda plan: [(n * UNIT, status) for n, status in enumerate(plan)])


leaves: st.SearchStrategy[Node] = st.sampled_from(sorted(LEAVES)).map(Leaf)
twigs = leaves | held(leaves) | composed(leaves)
trees = twigs | held(twigs) | composed(twigs)

moments = st.integers(0, UNITS - 1).map(lambda number: number * UNIT)
lines = st.tuples(moments, st.sampled_from(["ready", "ready", "a line", "fatal"]))
plans = st.builds(
    Plan,
    health=phases(200, 200, 204, 503, 301, REFUSES, HANGS, FATAL_STATUS),
    probes=phases(0, 0, 1, HANGS, FATAL_EXIT),
    says=st.lists(lines, max_size=4).map(sorted),
    file_after=st.none() | moments,
    dies_after=st.none() | moments.map(lambda moment: moment + ENDS),
    ready_timeout=moments.map(lambda moment: moment + CLOCKS),
    stall_timeout=st.none() | st.integers(0, 2).map(lambda number: number * UNIT + CLOCKS),
)

# Daemons that flap, and are waited for as long as it takes, by several modes.
flapping = st.builds(
    Plan,
    health=st.lists(st.sampled_from([200, 503]), min_size=UNITS, max_size=UNITS).map(
        lambda plan: [(n * UNIT, status) for n, status in enumerate(plan)]
    ),
    probes=st.lists(st.sampled_from([0, 1, 1, FATAL_EXIT]), min_size=UNITS, max_size=UNITS).map(
        lambda plan: [(n * UNIT, status) for n, status in enumerate(plan)]
    ),
    says=st.lists(lines, max_size=2).map(sorted),
    file_after=moments,
    dies_after=st.none(),
    ready_timeout=st.just(UNITS * UNIT + CLOCKS),
    stall_timeout=st.none(),
)
fickle_leaves: st.SearchStrategy[Node] = st.sampled_from(
    ["health", "health", "exec", "fatal exec", "fatal line", "file", "line"]
).map(Leaf)
fickle_twigs = fickle_leaves | held(fickle_leaves) | composed(fickle_leaves, 2)
fickle_trees = composed(fickle_twigs, 2)


def run_plan(tree: Node, plan: Plan, seed: int, answer_after: float) -> Outcome:
    """What comes of it."""
    trace = Trace()
    simulated = SimulatedDaemon(
        health=plan.health,
        probes=plan.probes,
        says=plan.says,
        file_after=inf if plan.file_after is None else plan.file_after,
        dies_after=plan.dies_after,
        answer_after=answer_after,
    )
    lifecycle = simulated.lifecycle(
        ready_mode=build(tree),
        ready_timeout=plan.ready_timeout,
        stall_timeout=plan.stall_timeout,
        max_ready_timeout=plan.ready_timeout * 2,
        observer=trace.observe,
    )

    async def use() -> str:
        try:
            async with lifecycle.running() as daemon:
                trace.note("entered")
                check_report(daemon, tree)
        except DiedBeforeReadyError:
            return "died"
        except ReadyTimeoutError:
            return "late"
        except StallTimeoutError:
            return "silent"
        except ReadyError:
            return "failed"
        return "ready"

    what = run_simulated(use, seed=seed)
    assert 0 == simulated.alive
    assert 1 == simulated.spawned
    assert trace.follows_the_table
    seen = {"ready": "ready", "died": "died"}.get(what, "stopping")
    return Outcome(what, trace.after_spawn(seen))


def check_report(daemon: DaemonHandle, tree: Node) -> None:
    """It has the port that it was given, its address, and what it said of itself."""
    assert daemon.port is not None
    place = f"http://127.0.0.1:{daemon.port}"
    assert daemon.url in (None, place, f"{place}/")
    assert daemon.report in [{"said": "ready"} if said else {} for said in can_report(tree)]


def is_early_failure(tree: Node, plan: Plan, seen: Outcome) -> bool:
    """Say whether AllOf has heard of a failure while it waited for others.

    The model asks those that were ready only when the last one is.
    """
    fatal_at = [moment for moment, line in plan.says if line == "fatal"]
    is_heard = "All(" in repr(tree) and "fatal line" in repr(tree)
    return is_heard and seen.what == "failed" and any(at <= seen.when for at in fatal_at)


def check(tree: Node, plan: Plan, seed: int, answer_after: float = 0.0) -> None:
    """What comes of it is what must come, and not before it may, nor later than it must."""
    late = lateness(tree)
    assert late < CLOCKS - LATEST_HOLD
    expected = model.expect(deepcopy(tree), plan)

    seen = run_plan(tree, plan, seed, answer_after)

    if is_early_failure(tree, plan, seen):
        assert seen.when <= expected.when + late + ROUNDING
        return
    assert expected.what == seen.what
    assert expected.when - ROUNDING <= seen.when <= expected.when + late + ROUNDING


@given(
    tree=trees,
    plan=plans,
    answer_after=st.sampled_from([0.0, PROBE_TIMEOUT / 2]),
    seed=schedules(),
)
def test_what_comes_of_a_wait_is_what_the_daemon_did(
    tree: Node, plan: Plan, answer_after: float, seed: int
) -> None:
    assume(build(tree).shortest_wait_s < plan.ready_timeout)
    check(tree, plan, seed, answer_after)


# Found by 2,000 examples: a line that is waited for again, because what had won against it does
# not hold any more.
WAITED_FOR_AGAIN = model.All([Leaf("health"), model.Any([Leaf("exec"), Leaf("fatal line")])])
MEANWHILE = Plan(
    health=[(0.0, 200), (60.0, 503), (80.0, 200)],
    probes=[(0.0, 1), (60.0, 0), (80.0, 1)],
    says=[],
    file_after=None,
    dies_after=None,
    ready_timeout=UNITS * UNIT + CLOCKS,
    stall_timeout=None,
)


@example(tree=WAITED_FOR_AGAIN, plan=MEANWHILE, seed=0)
@given(tree=fickle_trees, plan=flapping, seed=schedules())
def test_several_modes_of_a_daemon_that_flaps_are_ready_when_they_must_be(
    tree: Node, plan: Plan, seed: int
) -> None:
    check(tree, plan, seed)
