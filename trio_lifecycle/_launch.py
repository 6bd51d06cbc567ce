"""The launch: from a configuration to a daemon that is up, or to an error and nothing left."""

import logging
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, NamedTuple

import trio
from attrs import evolve

from trio_lifecycle._checks import check_all
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._destination import Output
from trio_lifecycle._diary import Diary
from trio_lifecycle._errors import (
    ConfigError,
    DaemonStateUnknownError,
    DiedBeforeReadyError,
    LifecycleError,
    ReadyTimeoutError,
    ReaperLostError,
    SpawnError,
)
from trio_lifecycle._events import Adopted, Failed, Found, Ready, Spawned, Starting, Stray
from trio_lifecycle._handle import DaemonHandle, Origin, show_tail
from trio_lifecycle._markers import FREE_PORT, Marker, fill, markers_in
from trio_lifecycle._polling import next_interval
from trio_lifecycle._requests import CALLBACK_VARIABLE, INSTANCE_VARIABLE
from trio_lifecycle._state_dir import log_path, make_private
from trio_lifecycle._states import State
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import (
    ArmedReady,
    Observer,
    Preflight,
    Prober,
    Process,
    Report,
    Sighting,
    Spawner,
    SpawnRequest,
    Start,
)

_log: Final = logging.getLogger("trio_lifecycle")

# How long letting go of a callback socket and the like may take; it never needs the network.
_DISARM_PATIENCE_S: Final = 1.0


class Collaborators(NamedTuple):
    """Who works for a lifecycle: everything that is not a property of the daemon."""

    spawner: Spawner
    prober: Prober
    preflight: tuple[Preflight, ...]
    observer: Observer | None


class Launch:
    """One attempt to have a daemon up."""

    def __init__(
        self, config: LifecycleConfig, collaborators: Collaborators, *, detached: bool
    ) -> None:
        self.config = config
        self.instance_id = os.urandom(16).hex()
        self.diary = Diary(config.name, self.instance_id, collaborators.observer)
        self.process: Process | None = None
        self.stopper: Stopper | None = None
        self._by = collaborators
        self._detached = detached
        self._armed: ArmedReady | None = None
        self._handle: DaemonHandle | None = None
        # Cancelled when the process ends: nothing is to be waited for then.
        self._readiness = trio.CancelScope()
        # Set when the process has ended or its owner has left: there is something to be done.
        self.over = trio.Event()
        # What is held until the daemon is gone, or, if it is detached, until it holds it itself:
        # its port.
        self.held = AsyncExitStack()

    async def run(self, nursery: trio.Nursery) -> DaemonHandle:
        """Look whether it runs; if not, start it.

        Args:
            nursery: Where the tasks that serve the process run.
        """
        return await self.find() or await self.start(nursery)

    async def find(self) -> DaemonHandle | None:
        """Look whether it runs already, and adopt it if it does."""
        self.diary.note(Starting)
        try:
            sighting = await self._look()
            return None if sighting is None else await self._adopt(sighting)
        except BaseException as error:
            self._note_failure(error)
            raise

    async def start(self, nursery: trio.Nursery) -> DaemonHandle:
        """Prepare, spawn, and wait until it is ready.

        Whatever is raised, cancellation included: no process is left of the attempt, and the diary
        says so.
        """
        try:
            async with AsyncExitStack() as wait:
                request = await self._prepare(wait)
                return await self._spawn(request, nursery)
        except BaseException as error:
            await self._clean_up()  # noqa: ASYNC102  # a stop shields itself
            self._note_failure(error)
            raise

    async def _clean_up(self) -> None:
        """Leave nothing: nobody has the handle yet, so nobody else can."""
        try:
            if self.stopper is not None and self.process is not None:
                await self.stopper.stop()  # shields itself, and is bounded by its ladder
                self.process.close()
        finally:
            await self.held.aclose()

    def _note_failure(self, error: BaseException) -> None:
        # A StopError leaves the state at "stopping": the process is still there.
        if self.diary.state in (State.LOOKING, State.PREPARING, State.STOPPED):
            expected = isinstance(error, LifecycleError)
            reason = str(error).partition("\n")[0] if expected else "the start was given up"
            self.diary.note(Failed, error=type(error).__name__, reason=reason)

    async def find_again(self) -> DaemonHandle | None:
        """Give the handle of the daemon that this launch left running, if it still is up.

        None if it has ended.

        Raises:
            DaemonStateUnknownError: It is alive, but has not answered for the ready timeout.
        """
        assert self.stopper is not None
        assert self.process is not None
        if self.stopper.asked:
            with trio.move_on_after(self.config.ready_timeout):
                await self.process.wait_gone()
        if self.process.gone or self._has_ended():
            # Leaves no zombie, also when the run in which it was spawned is over.
            self.process.close()
            return None
        if self.stopper.asked:
            problem = f"process {self.process.pid} was asked to go, and is still there"
            raise DaemonStateUnknownError(self.config.name, f"{problem}; {_NOTHING_STARTED}")
        assert self._armed is not None
        began = trio.current_time()
        with trio.move_on_after(self.config.ready_timeout):
            while await self._armed.ask(self.process) is None:
                if self._has_ended():
                    return None
                waited = trio.current_time() - began
                await trio.sleep(next_interval(waited, _LOOK_INTERVAL_S))
            return self._handle
        problem = f"process {self.process.pid} is alive, but {self._armed.last_seen}"
        raise DaemonStateUnknownError(self.config.name, f"{problem}; {_NOTHING_STARTED}")

    def _has_ended(self) -> bool:
        return self.process is None or self.process.ended

    # --- look ---

    async def _look(self) -> Sighting | None:
        """Find a daemon that runs already.

        One that is there but not up gets the time that a spawn would get.
        """
        began = trio.current_time()
        look = self.config.ready_mode.find_running
        sighting = await look(self._by.prober)
        if sighting is None or sighting.report is not None:
            return sighting
        with trio.move_on_at(began + self.config.ready_timeout):
            while sighting is not None and sighting.report is None:
                waited = trio.current_time() - began
                await trio.sleep(next_interval(waited, _LOOK_INTERVAL_S))
                sighting = await look(self._by.prober)
        if sighting is None or sighting.report is not None:
            return sighting
        where = sighting.address
        owner = self._by.prober.describe_owner(*where) if where else "somebody"
        raise DaemonStateUnknownError(
            self.config.name,
            f"{owner} is there, but {sighting.detail}, for {self.config.ready_timeout} s; "
            f"{_NOTHING_STARTED}",
        )

    async def _adopt(self, sighting: Sighting) -> DaemonHandle:
        assert sighting.report is not None
        host, port = sighting.address or ("", 0)
        self.process = await self._by.prober.owner_of(host, port)
        self.stopper = Stopper(self.process, self.config.stop_ladder, self.diary)
        self.diary.note(Adopted, pid=self.process.pid, url=sighting.report.url)
        return self._hand_out("adopted", sighting.report, 0.0)

    # --- prepare ---

    async def _prepare(self, wait: AsyncExitStack) -> SpawnRequest:
        """Do everything that can fail before there is a process."""
        config = self.config
        program = await self._by.spawner.find_binary(config.binary_name, config.search_path)
        self.diary.note(Found, path=program)
        await check_all(config.name, self._by.preflight)
        output = self._detached_output() if self._detached else config.output
        values = await self._choose_port()
        port = int(values[FREE_PORT]) if values else None
        in_arguments = markers_in(config.args)
        start = Start(
            name=config.name,
            instance_id=self.instance_id,
            port=port,
            prober=self._by.prober,
            in_arguments=in_arguments,
        )
        armed = self._armed = await config.ready_mode.arm(start)
        wait.push_async_callback(_disarm, armed)
        return self._request(program, output, {**values, **armed.values}, armed)

    async def _choose_port(self) -> dict[Marker, str]:
        if FREE_PORT not in self.config.markers:
            return {}
        try:
            port = await self._by.spawner.reserve_port()
        except OSError as error:
            problem = f"no port is free ({error})"
            raise SpawnError(self.config.name, problem, error.errno, retryable=True) from error
        self.held.callback(port.release)
        return {FREE_PORT: str(port.number)}

    def _request(
        self, program: str, output: Output, values: dict[Marker, str], armed: ArmedReady
    ) -> SpawnRequest:
        env = {
            key: None if value is None else fill(value, values)
            for key, value in self.config.env.items()
        }
        return SpawnRequest(
            name=self.config.name,
            instance_id=self.instance_id,
            program=program,
            args=tuple(fill(arg, values) for arg in self.config.args),
            # The callback of our own starter is not for our daemons.
            env={CALLBACK_VARIABLE: None, **env, **armed.env, INSTANCE_VARIABLE: self.instance_id},
            working_dir=self.config.working_dir,
            output=output,
            detached=self._detached,
            limits=self.config.limits,
            umask=self.config.umask,
            user=self.config.user,
            group=self.config.group,
            ladder=self.config.stop_ladder,
        )

    def _detached_output(self) -> Output:
        output = self.config.output
        if output.to is not None and not isinstance(output.to, Path):
            raise ConfigError(
                "output.to",
                f"{self.config.name} is to outlive this program, so its output can only go to a "
                "file: give a path, or nothing for a file in the state directory",
            )
        if output.to is None:
            path = log_path(os.environ, self.config.name)
            try:
                make_private(path.parent)
            except OSError as error:
                raise SpawnError(
                    self.config.name, f"its log file can't be made: {error}", error.errno
                ) from error
            output = evolve(output, to=path)
        return output

    # --- spawn and wait ---

    async def _spawn(self, request: SpawnRequest, nursery: trio.Nursery) -> DaemonHandle:
        began = trio.current_time()
        with trio.move_on_at(began + self.config.ready_timeout):
            self.process = await self._by.spawner.spawn(request, nursery)
        if self.process is None:
            waited_s = trio.current_time() - began
            raise ReadyTimeoutError(self.config.name, waited_s, "its spawn had not come to an end")
        # No checkpoint from the spawn to here: a cancellation in between would lose the process.
        process = self.process
        self.stopper = Stopper(process, self.config.stop_ladder, self.diary)
        self.diary.note(Spawned, pid=process.pid)
        process.report_strays(lambda pid, command: self.diary.note(Stray, pid=pid, command=command))
        nursery.start_soon(self.watch)
        report = await self._wait_until_ready(process, self.stopper, began)
        ready_after_s = trio.current_time() - began
        handle = self._hand_out("spawned", report, ready_after_s)
        self.diary.note(
            Ready,
            pid=process.pid,
            url=report.url,
            port=report.port,
            ready_after_s=ready_after_s,
        )
        if self._detached:
            await self.held.aclose()
        return handle

    @trio.lowlevel.enable_ki_protection
    async def watch(self) -> None:
        """Wait until the process has ended, and say so to whoever waits for it or for its owner."""
        assert self.process is not None
        await self.process.wait_over()
        self._readiness.cancel()
        self.over.set()

    async def _wait_until_ready(self, process: Process, stopper: Stopper, began: float) -> Report:
        """Race the ready mode with the end of the process and with the deadline.

        The end of the process wins.
        """
        armed = self._armed
        assert armed is not None
        report: Report | None = None
        failure: Exception | None = None
        with self._readiness:
            try:
                with trio.move_on_at(began + self.config.ready_timeout):
                    report = await armed.wait(process)
                if report is None:
                    report = await armed.ask(process)
            except Exception as error:
                failure = error
        waited_s = trio.current_time() - began
        if process.lost is not None:
            stopper.note_death()
            raise ReaperLostError(self.config.name, None, 0.0, self._tail(process), process.lost)
        if process.ended:
            stopper.note_death()
            raise DiedBeforeReadyError(
                self.config.name, process.status, waited_s, self._tail(process)
            )
        if failure is not None:
            raise failure
        if report is None:
            raise ReadyTimeoutError(
                self.config.name, waited_s, armed.last_seen, self._tail(process)
            )
        return report

    def _tail(self, process: Process) -> str:
        return show_tail(process, self._armed.secrets if self._armed else ())

    def _hand_out(self, origin: Origin, report: Report, ready_after_s: float) -> DaemonHandle:
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
            self._armed.secrets if self._armed else (),
        )
        return self._handle


_NOTHING_STARTED: Final = "nothing was started, so that there are never two"

# Between two looks at a daemon that somebody else is starting.
_LOOK_INTERVAL_S: Final = 0.1


async def _disarm(armed: ArmedReady) -> None:
    # Shielded: a socket that stays open after a cancelled start is a leak. Bounded, because it is
    # somebody's plug-in.
    with trio.move_on_after(_DISARM_PATIENCE_S, shield=True):
        try:
            await armed.disarm()
        except Exception:
            _log.exception("a ready mode could not let go of what it had taken")
