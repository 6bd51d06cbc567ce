"""A simulated world in which several programs want one daemon, and what must hold in it.

Trio runs as a guest: between two steps the world stands still, its clock and all its tasks, so that
a Hypothesis state machine, whose rules are plain functions, decides what happens next.
"""

import signal
from collections import deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any, Final

import trio
import trio.testing
from attrs import define, evolve, field
from outcome import Outcome

from trio_lifecycle import (
    DaemonHandle,
    DaemonLifecycle,
    DaemonRecord,
    LifecycleError,
    MemoryRegistry,
    StopLadder,
    attach,
)
from trio_lifecycle._fingerprint import differences
from trio_lifecycle._ladder import KILL_PATIENCE_S
from trio_lifecycle.testing import SimulatedDaemon, SimulatedSpawner
from trio_lifecycle.testing._incarnation import Incarnation
from trio_lifecycle.testing._spawner import SimulatedProcess

NAME: Final = "simulated"

# Two sums of the same floats in another order differ by less than this.
ROUNDING: Final = 1e-6

# Of each of the world's ladders, at most.
LONGEST_LADDER_S: Final = 6.0

# Beyond what a ladder needs: the patience after SIGKILL, twice a registry's, some looks.
_STOP_MARGIN_S: Final = KILL_PATIENCE_S + 3.0

# Nothing in the world takes longer; what goes on then, goes on for ever.
_SETTLED_AFTER_S: Final = 20_000.0

# A step of a world that hangs without any time passing.
_MOST_TICKS: Final = 1_000_000


class SteppedRun:
    """A Trio run that goes on only during a step."""

    def __init__(self, seed: int) -> None:
        self._due: deque[Callable[[], object]] = deque()
        self._step: Callable[[], Awaitable[object]] | None = None
        self._error: BaseException | None = None
        self._leaving = False
        self._outcome: Outcome[None] | None = None
        self.nursery: trio.Nursery
        trio.lowlevel.start_guest_run(
            self._main,
            seed,
            run_sync_soon_threadsafe=self._due.append,
            done_callback=self._end,
            # With this threshold Trio never waits in a thread: a tick is due at any time.
            clock=trio.testing.MockClock(autojump_threshold=0),
        )

    async def _main(self, seed: int) -> None:
        # Private, but the only way; see run_simulated().
        trio._core._run._r.seed(seed)
        async with trio.open_nursery() as self.nursery:
            while not self._leaving:
                if self._step is not None:
                    try:
                        await self._step()
                    except BaseException as error:  # noqa: ASYNC103  # raised by who waits
                        self._error = error
                    self._step = None
                # This task can run always, so the clock never jumps between two steps.
                await trio.lowlevel.checkpoint()
            self.nursery.cancel_scope.cancel()

    def _end(self, outcome: Outcome[None]) -> None:
        self._outcome = outcome

    def do(self, step: Callable[[], Awaitable[object]]) -> None:
        """Let the world go on until an async function, which runs in it, has returned."""
        self._step = step
        self._pump(lambda: self._step is None)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def leave(self) -> None:
        """Cancel all that goes on, and end the run."""
        self._leaving = True
        self._pump(lambda: False)
        assert self._outcome is not None
        self._outcome.unwrap()

    def _pump(self, is_done: Callable[[], bool]) -> None:
        for _ in range(_MOST_TICKS):
            if self._outcome is not None or is_done():
                return
            self._due.popleft()()
        raise AssertionError("the world goes on without any time passing")


class WatchedDaemon(SimulatedDaemon):
    """Says when a process of it is started."""

    on_start: Callable[[Incarnation], None]

    def start(self, port: int | None = None, *, gated: bool = False) -> Incarnation:
        """Start one, and say so."""
        incarnation = super().start(port, gated=gated)
        self.on_start(incarnation)
        return incarnation


class WatchedRegistry(MemoryRegistry):
    """Knows since when each instance has been asked to go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked_to_go: dict[str, float] = {}

    async def replace(self, old: DaemonRecord, new: DaemonRecord) -> bool:
        """Note it."""
        if not await super().replace(old, new):
            return False
        if new.state == "stopping":
            self.asked_to_go.setdefault(new.instance_id, trio.current_time())
        return True


@define(eq=False)
class Program:
    """One that wants the daemon: a lifecycle of its own."""

    number: int
    lifecycle: DaemonLifecycle

    @property
    def bound_s(self) -> float:
        """How long it may take until who asks is answered, when all goes wrong in turn.

        Found again, found, found with the claim, waited for at its address, started: each has the
        ready timeout; one start is given up and two daemons are stopped before it.
        """
        config = self.lifecycle.config
        stops = 4 * (LONGEST_LADDER_S + _STOP_MARGIN_S)
        return 5 * (config.ready_timeout + 1.0) + config.longest_claim_s + stops


@define(eq=False)
class Ask:
    """One task that asks for the daemon."""

    program: Program
    began: float
    patience_s: float
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    cancelled_at: float = inf
    ended: float | None = None
    over: trio.Event = field(factory=trio.Event)
    outcome: DaemonHandle | BaseException | None = None

    @property
    def latest(self) -> float:
        """When it must have been answered."""
        given_up = min(self.cancelled_at, self.began + self.patience_s)
        given_up += LONGEST_LADDER_S + _STOP_MARGIN_S
        return min(given_up, self.began + self.program.bound_s) + ROUNDING


class World:
    """One daemon, those who want it, and all that may happen to them."""

    def __init__(self, seed: int, **behaviour: Any) -> None:
        self.registry = WatchedRegistry()
        self.daemon = WatchedDaemon(registry=self.registry, **behaviour)
        self.daemon.on_start = self._check_start
        self.spawner = SimulatedSpawner(self.daemon)
        self.programs: list[Program] = []
        self.asks: list[Ask] = []
        self.handles: list[DaemonHandle] = []
        self.complaints: list[str] = []
        # Live, but nobody can know: somebody has removed their record.
        self._forgotten: set[Incarnation] = set()
        # Of programs that are not ours.
        self._strangers: set[Incarnation] = set()
        self._unwell_since = 0.0
        self._unwell = self._unseen = 0
        self._health_changed = -inf
        self._run = SteppedRun(seed)

    # --- what happens ---

    def begin_program(self, *, changed: bool, ladder_s: float, **options: Any) -> Program:
        """A program begins, with a configuration of its own."""
        ladder = StopLadder((signal.SIGTERM, ladder_s))
        config = self.daemon.lifecycle(detach=True, stop_ladder=ladder, **options).config
        config = evolve(config, env={"CHANGED": "1"} if changed else {})
        lifecycle = DaemonLifecycle(config, spawner=self.spawner, registry=self.registry)
        program = Program(len(self.programs), lifecycle)
        self.programs.append(program)
        return program

    def ask(self, program: Program, patience_s: float | None) -> None:
        """A task of a program asks for the daemon, and may be cancelled after a while."""

        async def begin() -> None:
            patience = inf if patience_s is None else patience_s
            ask = Ask(program, trio.current_time(), patience)
            ask.scope.deadline = ask.began + patience
            self.asks.append(ask)
            self._run.nursery.start_soon(self._ask, ask)

        self._do(begin)

    def wait_for_answer(self) -> None:
        """Who was the last to ask gets an answer."""

        async def wait() -> None:
            ask = self.asks[-1]
            with trio.move_on_at(ask.latest + 1.0):
                await ask.over.wait()
            if ask.ended is None:
                self.complaints.append(f"nobody answers {ask}")

        self._do(wait)

    async def _ask(self, ask: Ask) -> None:
        with ask.scope:
            try:
                ask.outcome = await ask.program.lifecycle.ensure_running()
            except LifecycleError as error:
                ask.outcome = error
            except Exception as error:
                ask.outcome = error
                self.complaints.append(f"who asked got {error!r}")
        ask.ended = trio.current_time()
        ask.over.set()
        if isinstance(ask.outcome, DaemonHandle):
            self.handles.append(ask.outcome)
            self._check_given(ask, ask.outcome)
        elif ask.outcome is None and not ask.scope.cancelled_caught:
            self.complaints.append("who asked got nothing")
        if ask.ended > ask.latest:
            self.complaints.append(f"an answer took {ask.ended - ask.began} s: {ask}")

    def use_handle(self, verb: str, handle: DaemonHandle) -> None:
        """Somebody who was given the daemon stops it, or the like."""

        async def use() -> None:
            try:
                await getattr(handle, verb)()
            except LifecycleError:
                pass
            except Exception as error:
                self.complaints.append(f"{verb} got {error!r}")

        self._begin(use)

    def attach(self) -> None:
        """Somebody takes it up by its name, to use the handle then or later."""

        async def take() -> None:
            try:
                self.handles.append(await attach(NAME, self.registry, spawner=self.spawner))
            except LifecycleError:
                pass

        self._do(take)

    def crash(self, signum: int) -> None:
        """Something kills it, or tries to; no program of ours has asked for that."""

        async def send() -> None:
            for incarnation in self.living:
                incarnation.signal(signum)

        self._do(send)

    def start_elsewhere(
        self, *, record_first: bool, opens: bool, says_ready: bool, killed_after: float
    ) -> None:
        """Another program starts it, and is killed on the way."""

        async def start() -> None:
            async with self.registry.claim(NAME):
                # Where a forgotten one has the port, the program would not come up.
                if all(it.ended for it in self.daemon.incarnations):
                    incarnation = self.daemon.start(gated=True)
                    self._strangers.add(incarnation)
                    record = self._describe(incarnation)
                    if record_first:
                        await self.registry.put(record)
                        if opens:
                            incarnation.open_gate()
                    if record_first and opens and says_ready:
                        ready = evolve(record, state="ready")
                        await trio.sleep(min(killed_after, self.daemon.ready_after))
                        await self.registry.replace(record, ready)
                    await trio.sleep(killed_after)
                    if incarnation.at_gate:
                        incarnation.signal(signal.SIGKILL)
                else:
                    await trio.sleep(killed_after)

        self._begin(start)

    def stop_elsewhere(self, *, signals: bool) -> None:
        """Another program asks it to go, and is killed before it can insist."""

        async def stop() -> None:
            record = await self.registry.get(NAME)
            if record is not None and record.state != "stopping":
                stopping = evolve(record, state="stopping")
                if await self.registry.replace(record, stopping) and signals:
                    for incarnation in self._of(record):
                        incarnation.signal(signal.SIGTERM)

        self._do(stop)

    def hold_claim(self, seconds: float) -> None:
        """Another program has the right to start it, and does nothing with it."""

        async def hold() -> None:
            async with self.registry.claim(NAME):
                await trio.sleep(seconds)

        self._begin(hold)

    def lose_record(self) -> None:
        """Somebody removes its record by hand."""

        async def remove() -> None:
            record = await self.registry.get(NAME)
            if record is not None:
                self._forgotten |= set(self._of(record))
                self.registry.asked_to_go.pop(record.instance_id, None)
                await self.registry.remove(record)

        self._do(remove)

    def be_unwell(self, seconds: float) -> None:
        """It answers 503 for a while."""

        async def be() -> None:
            self._unwell += 1
            self._set_health()
            await trio.sleep(seconds)
            self._unwell -= 1
            self._set_health()

        self._begin(be)

    def be_unseen(self, seconds: float) -> None:
        """Whether it lives can't be told for a while."""

        async def be() -> None:
            self._unseen += 1
            self.daemon.unseen = True
            await trio.sleep(seconds)
            self._unseen -= 1
            self.daemon.unseen = self._unseen > 0

        self._begin(be)

    def pass_time(self, seconds: float) -> None:
        """Nothing else happens for a while."""

        async def pass_it() -> None:
            await trio.sleep(seconds)

        self._do(pass_it)

    def pass_ticks(self, ticks: int) -> None:
        """Every task that can, does a few things; no time passes."""

        async def pass_them() -> None:
            for _ in range(ticks):
                await trio.lowlevel.checkpoint()

        self._do(pass_them)

    def cancel_all(self) -> None:
        """All who ask are cancelled; what they had begun is gone with them."""

        async def cancel() -> None:
            open_ones = [ask for ask in self.asks if ask.ended is None]
            for ask in open_ones:
                ask.cancelled_at = min(ask.cancelled_at, trio.current_time())
                ask.scope.cancel()
            with trio.move_on_after(LONGEST_LADDER_S + _STOP_MARGIN_S):
                for ask in open_ones:
                    await ask.over.wait()
            if any(ask.ended is None for ask in open_ones):
                self.complaints.append("who was cancelled does not leave")
            elif all(ask.ended is not None for ask in self.asks):
                await self._check_nothing_half_started()

        self._do(cancel)

    def settle(self) -> None:
        """All goes well from here on, and everybody gets an answer; then the records are true."""

        async def finish() -> None:
            await trio.sleep(_SETTLED_AFTER_S)
            self.complaints.extend(
                f"never answered: {ask}" for ask in self.asks if ask.ended is None
            )
            self.daemon.ready_after, self.daemon.dies_after = 0.0, None
            await self._check_nothing_half_started()

        self._do(finish)
        last = self.begin_program(changed=False, ladder_s=1.0, on_change="keep")
        self.ask(last, None)

        async def look() -> None:
            await trio.sleep(last.bound_s + 1.0)
            await self._check_records(self.asks[-1])

        self._do(look)

    def leave(self) -> None:
        """Nothing goes on any more."""
        self._run.leave()

    # --- what must hold ---

    @property
    def living(self) -> list[Incarnation]:
        """Its processes that somebody can know of."""
        return [it for it in self.daemon.incarnations if not it.ended and it not in self._forgotten]

    def _check_start(self, new: Incarnation) -> None:
        others = [it for it in self.living if it is not new]
        if others:
            self.complaints.append(f"{new.pid} was started while {others[0].pid} lives")

    def _check_given(self, ask: Ask, handle: DaemonHandle) -> None:
        # Nobody can help what happens at the very moment of the answer.
        now = trio.current_time()
        incarnation = self._incarnation(handle)
        if incarnation.at_gate or incarnation.ends < now:
            self.complaints.append(f"one was given that had ended: {handle}")
        if self.registry.asked_to_go.get(handle.instance_id, inf) < now:
            self.complaints.append(f"one was given that had been asked to go: {handle}")
        answered = now - self.daemon.answer_after
        if self._health_changed < answered and incarnation.answer() != 200:
            fingerprint = ask.program.lifecycle.config.fingerprint
            record = self.registry._records.get(NAME)
            then = "" if record is None else record.fingerprint
            if "ready_mode" not in differences(then, fingerprint):
                self.complaints.append(f"one was given that is not up: {handle}")
        for other in self.asks:
            if other.program is ask.program and other.ended == now:
                self._check_same(other.outcome, handle)

    def _check_same(self, other: object, handle: DaemonHandle) -> None:
        if isinstance(other, DaemonHandle) and other.instance_id != handle.instance_id:
            both = [self._incarnation(other), self._incarnation(handle)]
            # Somebody else starts a second one when the record of the first was lost.
            if not any(it.ended or it in self._forgotten for it in both):
                self.complaints.append(f"two got different ones: {other} and {handle}")

    async def _check_nothing_half_started(self) -> None:
        record = await self.registry.get(NAME)
        for incarnation in self.living:
            if incarnation in self._strangers:
                continue
            if record is None or incarnation.pid != record.pid:
                self.complaints.append(f"{incarnation.pid} lives, and is not recorded")
            elif record.state == "starting":
                self.complaints.append(f"{incarnation.pid} was left half started")

    async def _check_records(self, ask: Ask) -> None:
        if not isinstance(ask.outcome, DaemonHandle):
            self.complaints.append(f"when all is well, who asks gets {ask.outcome!r}")
            return
        (record,) = await self.registry.daemons()
        known = (record.pid, record.instance_id, record.state)
        if known != (ask.outcome.pid, ask.outcome.instance_id, "ready"):
            self.complaints.append(f"{ask.outcome} is recorded as {record}")
        # One that was forgotten may be the one that was found again at its address.
        if {it.pid for it in self.living} - {record.pid}:
            self.complaints.append(f"others than {record.pid} live")

    # --- parts ---

    def _do(self, step: Callable[[], Awaitable[object]]) -> None:
        self._run.do(step)
        assert not self.complaints, self.complaints[0]

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        async def begin() -> None:
            self._run.nursery.start_soon(work)

        self._do(begin)

    def _set_health(self) -> None:
        self.daemon.health = [(0.0, 503)] if self._unwell else None
        self._health_changed = trio.current_time()

    def _of(self, record: DaemonRecord) -> list[Incarnation]:
        return [
            it
            for it in self.daemon.incarnations
            if SimulatedProcess(it).identity == record.identity
        ]

    def _incarnation(self, handle: DaemonHandle) -> Incarnation:
        (incarnation,) = [it for it in self.daemon.incarnations if it.pid == handle.pid]
        return incarnation

    def _describe(self, incarnation: Incarnation) -> DaemonRecord:
        config = self.programs[0].lifecycle.config
        return DaemonRecord(
            name=NAME,
            instance_id=f"stranger-{incarnation.pid}",
            **SimulatedProcess(incarnation).identity._asdict(),
            url=f"http://127.0.0.1:{incarnation.port}/",
            port=incarnation.port,
            state="starting",
            fingerprint=config.fingerprint,
            stop_ladder=((signal.SIGTERM, 2.0),),
            started_at=0.0,
            heartbeat_at=0.0,
        )
