"""The wait for readiness: signs of life, more time on request, silence, and what comes after it."""

import math
from collections.abc import Sequence

import pytest
import trio
from attrs import field, frozen
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import in_simulated_time
from trio_lifecycle import (
    FREE_PORT,
    AllOf,
    DaemonHandle,
    DiedBeforeReadyError,
    Event,
    HealthCheck,
    LogLine,
    Manual,
    ReadyTimeoutError,
    Said,
    StallTimeoutError,
    UnlessLine,
)
from trio_lifecycle.abc import ArmedReady, Process, Progress, ReadyMode, Report, Start
from trio_lifecycle.testing import SimulatedDaemon, run_simulated

pytestmark = pytest.mark.fault(16)


@frozen
class Told(ReadyMode):
    """Ready after some time; before and after it, the daemon says what is planned here."""

    ready_after: float
    says: tuple[tuple[float, Progress], ...] = ()
    later: tuple[Progress, ...] = ()
    let_go: list[str] = field(factory=list, eq=False)

    async def arm(self, start: Start) -> "ArmedTold":
        """Remember who listens."""
        return ArmedTold(self, start)


class ArmedTold(ArmedReady):
    """Such a daemon's word."""

    def __init__(self, mode: Told, start: Start) -> None:
        self._mode = mode
        self._start = start
        self._is_ready = False

    @property
    def last_seen(self) -> str:
        """Nothing of interest."""
        return "it told nothing"

    @property
    def follows(self) -> bool:
        """Where something is planned for later."""
        return bool(self._mode.later)

    async def wait(self, process: Process) -> Report:
        """Say what is planned, then that it is ready."""
        began = trio.current_time()
        for moment, progress in self._mode.says:
            await trio.sleep_until(began + moment)
            self._start.hear(progress)
        await trio.sleep_until(began + self._mode.ready_after)
        self._is_ready = True
        return Report()

    async def ask(self, process: Process) -> Report | None:
        """What it said."""
        return Report() if self._is_ready else None

    async def follow(self, process: Process) -> None:
        """Say what is planned for later, one a second."""
        for progress in self._mode.later:
            await trio.sleep(1.0)
            self._start.hear(progress)
        await trio.sleep_forever()

    async def disarm(self) -> None:
        """Take it down."""
        self._mode.let_go.append("disarmed")


def status(text: str, extend_s: float | None = None) -> Progress:
    """A word on its progress."""
    return Progress("status", text, extend_s)


async def enter(
    mode: ReadyMode, simulated: SimulatedDaemon | None = None, **options: float
) -> tuple[float, list[Event]]:
    """Have a daemon up for a moment; how long it took, and what was heard."""
    events: list[Event] = []
    daemon = simulated or SimulatedDaemon()
    lifecycle = daemon.lifecycle(ready_mode=mode, observer=events.append, **options)  # type: ignore[arg-type]
    async with lifecycle.running() as handle:
        pass
    assert 0 == daemon.alive
    return handle.ready_after_s, events


def said(events: Sequence[Event]) -> list[str]:
    """What it said."""
    return [event.text for event in events if isinstance(event, Said)]


@in_simulated_time
async def test_the_observer_is_told_what_the_daemon_says_once() -> None:
    words = tuple((moment, status(text)) for moment, text in [(1, "a"), (2, "a"), (3, "b")])
    took, events = await enter(Told(5.0, words))
    assert (5.0, ["a", "b"]) == (took, said(events))


@in_simulated_time
async def test_a_daemon_that_asks_for_more_time_gets_it() -> None:
    took, _ = await enter(Told(50.0, ((25.0, status("migrating", 40.0)),)), ready_timeout=30.0)
    assert 50.0 == took


@in_simulated_time
async def test_more_time_than_the_limit_is_not_given_and_the_error_says_which() -> None:
    mode = Told(500.0, ((25.0, status("migrating", math.inf)),))
    with pytest.raises(ReadyTimeoutError, match="raise max_ready_timeout") as caught:
        await enter(mode, ready_timeout=30.0, max_ready_timeout=60.0)
    assert (60.0, True) == (caught.value.waited_s, caught.value.extended)


@in_simulated_time
async def test_without_a_limit_of_its_own_the_time_grows_tenfold_at_most() -> None:
    mode = Told(500.0, ((25.0, status("migrating", math.inf)),))
    with pytest.raises(ReadyTimeoutError) as caught:
        await enter(mode, ready_timeout=30.0)
    assert 300.0 == caught.value.waited_s


@pytest.mark.fault(16)
@in_simulated_time
async def test_a_silent_daemon_is_stopped_long_before_its_time() -> None:
    with pytest.raises(StallTimeoutError, match=r"no sign of life for 2\.00 s") as caught:
        await enter(Told(20.0), ready_timeout=30.0, stall_timeout=2.0)
    assert (2.0, 2.0) == (caught.value.waited_s, caught.value.silent_s)


@in_simulated_time
async def test_output_is_a_sign_of_life() -> None:
    chatty = SimulatedDaemon(says=[(float(second), f"step {second}") for second in range(1, 8)])
    with pytest.raises(StallTimeoutError) as caught:
        await enter(Told(20.0), chatty, ready_timeout=30.0, stall_timeout=2.0)
    assert 7.0 + 2.0 == caught.value.waited_s
    assert "step 7" in caught.value.output_tail


@pytest.mark.parametrize("gap", [0.05, 0.9, 1.8, 1.9, 1.99])
@in_simulated_time
async def test_one_that_is_never_silent_for_that_long_is_waited_for(gap: float) -> None:
    chatty = SimulatedDaemon(says=[(step * gap, "x") for step in range(1, int(20 / gap) + 1)])
    took, _ = await enter(Told(20.0), chatty, ready_timeout=30.0, stall_timeout=2.0)
    assert 20.0 == took


@in_simulated_time
async def test_output_at_the_last_moment_is_a_sign_of_life() -> None:
    chatty = SimulatedDaemon(says=[(step * 1.95, f"step {step}") for step in range(1, 10)])
    took, _ = await enter(Told(19.0), chatty, ready_timeout=30.0, stall_timeout=2.0)
    assert 19.0 == took


@in_simulated_time
async def test_a_word_on_its_progress_is_a_sign_of_life_also_when_it_is_no_news() -> None:
    words = tuple((float(second), status("loading")) for second in range(1, 20))
    took, events = await enter(Told(20.0, words), ready_timeout=30.0, stall_timeout=2.0)
    assert (20.0, ["loading"]) == (took, said(events))


@pytest.mark.fault(15)
@in_simulated_time
async def test_a_daemon_that_dies_while_it_is_silent_has_died() -> None:
    dying = SimulatedDaemon(dies_after=1.0)
    with pytest.raises(DiedBeforeReadyError):
        await enter(Told(20.0), dying, stall_timeout=2.0)


@in_simulated_time
async def test_a_daemon_is_heard_on_while_it_runs_and_the_mode_is_disarmed_at_its_end() -> None:
    mode = Told(1.0, later=(Progress("reloading"), status("serving")))
    events: list[Event] = []
    lifecycle = SimulatedDaemon().lifecycle(ready_mode=mode, observer=events.append)
    async with lifecycle.running():
        await trio.sleep(10.0)
        assert [] == mode.let_go
    assert ["", "serving"] == said(events)
    assert ["disarmed"] == mode.let_go


@in_simulated_time
async def test_a_mode_that_fails_while_it_follows_leaves_the_daemon_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Told):
        async def arm(self, start: Start) -> ArmedTold:
            return BrokenArmed(self, start)

    class BrokenArmed(ArmedTold):
        async def follow(self, process: Process) -> None:
            raise RuntimeError("no more")

    mode = Broken(1.0, later=(status("never"),))
    async with SimulatedDaemon().lifecycle(ready_mode=mode).running() as daemon:
        await trio.sleep(10.0)
        assert "running" == await daemon.check()
    assert "is heard no longer" in caplog.text
    assert ["disarmed"] == mode.let_go


@in_simulated_time
async def test_a_detached_daemon_is_not_followed() -> None:
    mode = Told(1.0, later=(status("serving"),))
    daemon = SimulatedDaemon()
    lifecycle = daemon.lifecycle(ready_mode=mode, detach=True)
    handle = await lifecycle.ensure_running()
    assert ["disarmed"] == mode.let_go
    await handle.stop()


@given(
    ready_after=st.integers(0, 40),
    stall=st.none() | st.integers(1, 20),
    words=st.lists(st.tuples(st.integers(0, 40), st.none() | st.integers(0, 60)), max_size=5),
    lines=st.lists(st.integers(0, 40), max_size=4, unique=True),
)
def test_whatever_is_heard_the_wait_ends_and_nothing_is_left(
    ready_after: int,
    stall: int | None,
    words: list[tuple[int, int | None]],
    lines: list[int],
) -> None:
    words = sorted(words, key=lambda word: word[0])
    plan = [(float(moment), status(f"{moment}", more)) for moment, more in words]
    # What is planned for after it is ready is never said.
    plan = [(moment, word) for moment, word in plan if moment <= ready_after]
    simulated = SimulatedDaemon(says=[(float(moment), "line") for moment in sorted(lines)])
    lifecycle = simulated.lifecycle(
        ready_mode=Told(float(ready_after), tuple(plan)),
        ready_timeout=10.0,
        max_ready_timeout=30.0,
        stall_timeout=stall,
    )

    async def use() -> float:
        began = trio.current_time()
        try:
            async with lifecycle.running():
                pass
        except (ReadyTimeoutError, StallTimeoutError) as error:
            return error.waited_s
        return trio.current_time() - began

    took = run_simulated(use)
    assert 0 == simulated.alive
    assert took <= min(ready_after, 30.0)


# --- asking again ---------------------------------------------------------------------------------


async def checked(daemon: DaemonHandle, *moments: float) -> list[str]:
    """What a daemon answers at some moments from now."""
    began = trio.current_time()
    answers: list[str] = []
    for moment in moments:
        await trio.sleep_until(began + moment)
        answers.append(await daemon.check())
    return answers


@in_simulated_time
async def test_a_check_says_running_unknown_or_gone() -> None:
    flapping = SimulatedDaemon(
        health=[(0.0, 200), (10.0, 503), (20.0, 200)], dies_after=30.0, exit_status=0
    )
    nursery_free = flapping.lifecycle(detach=True)
    daemon = await nursery_free.ensure_running()
    expected = ["running", "unknown", "running", "gone", "gone"]
    assert expected == await checked(daemon, 5.0, 15.0, 25.0, 30.0, 35.0)


@in_simulated_time
@pytest.mark.parametrize(
    "other", [UnlessLine(Manual(), "FATAL"), LogLine("up", fatal="FATAL").stable_for(0.2)], ids=repr
)
async def test_a_line_that_would_have_ended_the_wait_says_nothing_later(other: ReadyMode) -> None:
    simulated = SimulatedDaemon(says=[(0.5, "up"), (3.0, "FATAL: a typo in a query")])
    mode = AllOf(Told(1.0, later=(status("serving"),)), other)
    async with simulated.lifecycle(ready_mode=mode).running() as daemon:
        assert ["running"] == await checked(daemon, 5.0)


@in_simulated_time
async def test_a_daemon_that_gives_its_word_only_once_runs_as_long_as_it_lives() -> None:
    lifecycle = SimulatedDaemon(dies_after=10.0).lifecycle(ready_mode=Manual(), detach=True)
    daemon = await lifecycle.ensure_running()
    assert ["running", "gone"] == await checked(daemon, 5.0, 15.0)


@in_simulated_time
async def test_a_stranger_in_its_place_makes_it_unknown() -> None:
    simulated = SimulatedDaemon()
    daemon = await simulated.lifecycle(detach=True).ensure_running()
    simulated.is_foreign = True
    assert "unknown" == await daemon.check()
    await daemon.kill()
    assert "gone" == await daemon.check()


# --- one that must hold ---------------------------------------------------------------------------


@in_simulated_time
async def test_a_mode_that_must_hold_begins_anew_when_it_fails() -> None:
    flapping = SimulatedDaemon(health=[(0.0, 503), (1.0, 200), (3.0, 503), (4.0, 200)])
    mode = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/health").stable_for(5.0)
    took, _ = await enter(mode, flapping)
    assert 9.0 <= took <= 9.2


@in_simulated_time
async def test_a_mode_that_never_holds_says_so() -> None:
    plan = [(float(moment), 200 if moment % 2 else 503) for moment in range(31)]
    mode = HealthCheck(f"http://127.0.0.1:{FREE_PORT}/health").stable_for(2.0)
    with pytest.raises(ReadyTimeoutError, match=r"it was ready, but not for 2\.0 s on end"):
        await enter(mode, SimulatedDaemon(health=plan), ready_timeout=20.0)
