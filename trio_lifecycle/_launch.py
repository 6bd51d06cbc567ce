"""The launch: from a configuration to a daemon that is up, or to an error and nothing left."""

import os
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from typing import Final

import trio
from attrs import evolve

from trio_lifecycle import _preparation as prepare
from trio_lifecycle._checks import awaited_after, check_all
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._diary import Diary
from trio_lifecycle._entry import Entry
from trio_lifecycle._errors import (
    DiedBeforeReadyError,
    ForeignDaemonError,
    LifecycleError,
    ReadyTimeoutError,
)
from trio_lifecycle._events import Adopted, Checked, Failed, Found, Ready, Spawned, Starting, Stray
from trio_lifecycle._following import Following
from trio_lifecycle._groups import type_of
from trio_lifecycle._handle import DaemonHandle, Origin
from trio_lifecycle._known import Known
from trio_lifecycle._liveness import Asker
from trio_lifecycle._markers import FREE_PORT
from trio_lifecycle._passed_sockets import PassedSockets
from trio_lifecycle._ready_wait import ReadyWait
from trio_lifecycle._record_errors import DaemonNotRunningError
from trio_lifecycle._recovery import Recovery
from trio_lifecycle._run_away import end_strays
from trio_lifecycle._search import Adoptee, Collaborators, Search
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._states import State
from trio_lifecycle._status import first_sentence
from trio_lifecycle._stop import Stopper
from trio_lifecycle._taken_port import tells_of_taken_port
from trio_lifecycle.abc import ArmedReady, Process, Report, SpawnRequest

# A reserved port is lost only to a program that asks for this very number in the milliseconds until
# the daemon has it. Three times in a row is no chance any more, but a mistake.
MOST_PORTS: Final = 3


class Launch:
    """One attempt to have a daemon up.

    Attributes:
        predecessor: Who stopped the one before, if what that had is to be waited for.
        over: Set when the process has ended or its owner has left: there is something to be done.
        held: What is held until the daemon is gone, or, if it is detached, until it holds it
            itself: its port.
        sockets: What is passed to it.
    """

    def __init__(
        self,
        config: LifecycleConfig,
        collaborators: Collaborators,
        *,
        detached: bool,
        entry: Entry | None = None,
        sockets: PassedSockets | None = None,
    ) -> None:
        self.config = config
        self.sockets = sockets or PassedSockets(config.listen)
        self._owns_sockets = sockets is None
        self.process: Process | None
        self.stopper: Stopper | None
        self.predecessor: Stopper | None = None
        self.held = AsyncExitStack()
        self._by = collaborators
        self._detached = detached
        self._entry = entry
        self._armed: ArmedReady | None = None
        self._handle: DaemonHandle | None = None
        self._begin()

    def _begin(self) -> None:
        """Begin one instance: nothing of an earlier one is left."""
        self.instance_id = os.urandom(16).hex()
        secrets, observer = Secrets(self.config.secrets), self._by.observer
        self.diary = Diary(self.config.name, self.instance_id, observer, secrets=secrets)
        self.process, self.stopper = None, None
        self._recovery = Recovery()
        self.over = trio.Event()
        self._wait = ReadyWait(self.config, self.diary)
        self._following = Following(self.config.name)

    async def run(self, nursery: trio.Nursery) -> DaemonHandle:
        """Look whether it runs; if not, start it.

        Whatever is raised, cancellation included: no process is left of the attempt, and the diary
        says so.

        Args:
            nursery: Where the tasks that serve the process run.
        """
        self.diary.note(Starting)
        try:
            if self._entry is None:
                return await self._adopt_answering(nursery) or await self._start(nursery)
            # Most callers find it up, and then nobody has to be kept from anything.
            found = await self._adopt_recorded(nursery, claimed=False)
            if found is not None:
                return found
            async with self._entry.claimed(self.config, self.diary):
                return (
                    await self._adopt_recorded(nursery, claimed=True)
                    or await self._adopt_answering(nursery)
                    or await self._start(nursery)
                )
        except BaseException as error:
            self._note_failure(error)
            self.close_sockets()
            raise

    def close_sockets(self) -> None:
        """Close what was passed to the daemon, unless that belongs to who has asked for it."""
        if self._owns_sockets:
            self.sockets.close()

    def _note_failure(self, error: BaseException) -> None:
        Secrets(self._secrets).blot_out_error(error)
        # A StopError leaves the state at "stopping": the process is still there.
        if self.diary.state in (State.LOOKING, State.PREPARING, State.STOPPED):
            ours = isinstance(error, LifecycleError)
            reason = first_sentence(str(error)) if ours else "the start was given up"
            self.diary.note(Failed, error=type_of(error), reason=reason)

    @property
    def fingerprint(self) -> str:
        """What the daemon was started with; empty where that is not known."""
        if self._handle is None or self._handle.origin == "spawned":
            return self.config.fingerprint
        record = None if self._entry is None else self._entry.record
        return "" if record is None else record.fingerprint

    # --- one that runs already ---

    @property
    def _search(self) -> Search:
        return Search(self.config, self._by, self._entry, self.diary)

    async def _adopt_recorded(self, nursery: trio.Nursery, *, claimed: bool) -> DaemonHandle | None:
        found = await self._search.find_recorded(claimed=claimed)
        return None if found is None else await self._adopt(found, nursery)

    async def _adopt_answering(self, nursery: trio.Nursery) -> DaemonHandle | None:
        if self.sockets.are_open:
            # The one before has died, and who asks there would wait in our own sockets.
            return None
        if (found := await self._search.find_answering()) is None:
            return None
        if self._entry is not None:
            await self._entry.note_found(self.config, found.process, self.instance_id, found.report)
        return await self._adopt(found, nursery)

    async def _adopt(self, found: Adoptee, nursery: trio.Nursery) -> DaemonHandle:
        reached = await self._reach(found.report, nursery, found.process)
        self.process, self._armed = found.process, found.armed
        if found.record is not None:
            assert self._entry is not None
            self._entry.record = found.record
            self.instance_id = self.diary.instance_id = found.record.instance_id
        recovery = Recovery(awaited_after(self._by.preflight, self._by.prober))
        ladder = self.config.stop_ladder
        self.stopper = Stopper(self.process, ladder, self.diary, self._entry, recovery)
        self.diary.note(Adopted, pid=self.process.pid, url=reached.url)
        return self._hand_out("adopted", reached, 0.0, found.report.port)

    async def answers(self) -> bool:
        """Say whether a daemon whose process can't be seen is there still."""
        found = await self._search.find_answering()
        return found is not None and found.process.pid is None

    def as_known(self) -> Known:
        """Give what is to be asked when the same daemon is wanted again."""
        assert self._entry is not None
        assert self.process is not None
        assert self.stopper is not None
        assert self._handle is not None
        by = (self.process, self.stopper, self._armed, self._handle)
        return Known(self.config, self._entry, self.answers, *by)

    # --- one to be started ---

    async def _start(self, nursery: trio.Nursery) -> DaemonHandle:
        """Prepare, spawn, wait until it is ready; with another port if it lost its own."""
        deadline = trio.current_time() + self.config.ready_timeout
        for attempt in count(1):
            try:
                return await self._start_once(nursery)
            except (DiedBeforeReadyError, ForeignDaemonError) as error:
                is_late = trio.current_time() >= deadline
                if attempt == MOST_PORTS or is_late or not self._has_lost_its_port(error):
                    raise
                await self.recovered()
                self._note_failure(error)
            self._begin()
            self.diary.note(Starting)
        raise AssertionError("count() has ended")

    async def recovered(self) -> None:
        """Wait, once it was stopped, until what it had is free again; see ``Recovering``."""
        if self.stopper is not None:
            await self.stopper.recovered()

    def _has_lost_its_port(self, error: LifecycleError) -> bool:
        is_chosen_here = FREE_PORT in self.config.markers and self.sockets.free_port is None
        return is_chosen_here and tells_of_taken_port(error)

    async def _start_once(self, nursery: trio.Nursery) -> DaemonHandle:
        try:
            async with AsyncExitStack() as wait:
                request, port = await self._prepare(wait)
                handle = await self._spawn(request, port, nursery)
                if self._goes_on_to_hear():
                    self._follow(nursery, wait.pop_all())
                return handle
        except BaseException:
            await self._clean_up()  # noqa: ASYNC102  # a stop shields itself
            raise

    async def _clean_up(self) -> None:
        """Leave nothing: nobody has the handle yet, so nobody else can."""
        try:
            if self.stopper is not None and self.process is not None:
                await self.stopper.stop()  # shields itself, and is bounded by its ladder
                self.process.close()
                if self._detached:
                    about = (self.config.name, self.instance_id, self._by.observer, State.READY)
                    diary = Diary(*about, Secrets(self._secrets))
                    await end_strays(self.process, self._by.spawner, diary, self.config.stop_ladder)
        finally:
            await self.held.aclose()

    async def _prepare(self, wait: AsyncExitStack) -> tuple[SpawnRequest, int | None]:
        """Do everything that can fail before there is a process."""
        config, by = self.config, self._by
        program = await by.spawner.find_binary(config.binary_name, config.search_path)
        self.diary.note(Found, path=program)
        if self.predecessor is not None:
            await self.predecessor.recovered()
        self._recovery = Recovery(await check_all(config.name, by.preflight, by.prober))
        if by.preflight:
            self.diary.note(Checked, checks=len(by.preflight))
        directory = None if self._entry is None else self._entry.registry.log_directory
        output = config.output
        if self._detached:
            output = prepare.detached_output(config, directory, is_here=by.spawner.is_here)
        await prepare.open_sockets(config, self.sockets, by.prober)
        values = await prepare.choose_port(config, by.spawner, self.held, self.sockets)
        port = int(values[FREE_PORT]) if values else None
        start = prepare.make_start(
            config, self.instance_id, port, by.prober, self._wait.hear, self.sockets.queue_at
        )
        armed = self._armed = await config.ready_mode.arm(start)
        wait.push_async_callback(prepare.disarm, armed)
        request = prepare.make_request(
            config,
            self.instance_id,
            program,
            output,
            {**values, **armed.values},
            armed,
            self.sockets,
            detached=self._detached,
            gated=self._entry is not None,
        )
        return request, port

    # --- spawn and wait ---

    async def _spawn(
        self, request: SpawnRequest, port: int | None, nursery: trio.Nursery
    ) -> DaemonHandle:
        began = trio.current_time()
        with trio.move_on_at(began + self.config.ready_timeout):
            self.process = await self._by.spawner.spawn(request, nursery)
        if self.process is None:
            waited_s = trio.current_time() - began
            raise ReadyTimeoutError(self.config.name, waited_s, "its spawn had not come to an end")
        # No checkpoint from the spawn to here: a cancellation in between would lose the process.
        process = self.process
        by = (self.config.stop_ladder, self.diary, self._entry, self._recovery)
        stopper = self.stopper = Stopper(process, *by)
        self.diary.note(Spawned, pid=process.pid)
        process.report_strays(lambda pid, command: self.diary.note(Stray, pid=pid, command=command))
        assert self._armed is not None
        self._armed.begin(process)
        self._wait.begin(process, began)
        nursery.start_soon(self.watch)
        nursery.start_soon(self._wait.listen)
        await self._let_it_run(process, port, began)
        report = await self._await_readiness(stopper, began)
        if report.port is None:
            report = evolve(report, port=port)
        await self._record(process, report)
        ready_after_s = trio.current_time() - began
        reached = await self._reach(report, nursery, process)
        handle = self._hand_out("spawned", reached, ready_after_s, report.port)
        news = {"url": reached.url, "port": reached.port, "ready_after_s": ready_after_s}
        self.diary.note(Ready, pid=process.pid, **news)
        # Not sooner: to close a watch over a log file takes the kernel some milliseconds.
        self._armed.note_ready()
        if self._detached:
            await self.held.aclose()
            self.sockets.close(remove=False)
        return handle

    async def _let_it_run(self, process: Process, port: int | None, began: float) -> None:
        """Record it, then open its gate."""
        if self._entry is not None:
            await self._entry.note_started(self.config, process, self.instance_id, port)
            with trio.move_on_at(began + self.config.ready_timeout) as patience:
                await process.open_gate()
            if patience.cancelled_caught:
                waited_s = trio.current_time() - began
                raise ReadyTimeoutError(self.config.name, waited_s, "nothing of it had run yet")

    async def _record(self, process: Process, report: Report) -> None:
        if self._entry is not None and not await self._entry.note_ready(process, report):
            raise self._stopped()

    def _stopped(self) -> DaemonNotRunningError:
        problem = "another program stopped it while it was being started"
        return DaemonNotRunningError(self.config.name, problem)

    @trio.lowlevel.enable_ki_protection
    async def watch(self) -> None:
        """Wait until the process has ended, or is out of sight, and say so to who waits or owns."""
        # Taken now: who stops it may be done with it before this has heard so.
        wait, following, over = self._wait, self._following, self.over
        process, stopper = self.process, self.stopper
        assert process is not None
        assert stopper is not None
        # More than once where it came into sight again before this was heard of.
        while not (process.ended or process.lost or process.unseen):
            await process.wait_over()
        stopper.unseen = process.unseen
        wait.give_up()
        following.end()
        over.set()

    async def _await_readiness(self, stopper: Stopper, began: float) -> Report:
        """Tell a stop by another program from a death."""
        try:
            assert self._armed is not None
            return await self._wait.run(self._armed, stopper, began)
        except DiedBeforeReadyError as error:
            death = error
        if self._entry is not None and await self._entry.was_stopped():
            raise self._stopped() from death
        raise death

    def _goes_on_to_hear(self) -> bool:
        return self._armed is not None and self._armed.follows and not self._detached

    def _follow(self, nursery: trio.Nursery, wait: AsyncExitStack) -> None:
        assert self._armed is not None
        assert self.process is not None
        nursery.start_soon(self._following.run, self._armed, self.process, wait)

    @property
    def _secrets(self) -> tuple[str, ...]:
        return self.config.secrets + (self._armed.secrets if self._armed else ())

    async def _reach(self, report: Report, nursery: trio.Nursery, process: Process) -> Report:
        owner = None if self._detached else nursery
        return await self._by.spawner.reach(report, owner, process)

    def _hand_out(
        self, origin: Origin, report: Report, ready_after_s: float, own_port: int | None
    ) -> DaemonHandle:
        assert self.process is not None
        assert self.stopper is not None
        self._handle = DaemonHandle(
            self.config.name,
            self.instance_id,
            origin,
            self.process,
            self.stopper,
            report,
            ready_after_s,
            self._secrets,
            self._asker(own_port).ask,
        )
        return self._handle

    def _asker(self, port: int | None) -> Asker:
        """Give what asks the daemon again."""
        assert self.process is not None
        heard = self._armed if self._goes_on_to_hear() else None
        about = (self.config, self.instance_id, port, self._by.prober)
        return Asker(self.process, partial(prepare.arm_again, *about), heard)
