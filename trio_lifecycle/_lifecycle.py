"""The lifecycle of a daemon: started on demand, ready, watched, gone with its owner."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from typing import Final, Unpack

import trio

from trio_lifecycle._attempt import Attempt
from trio_lifecycle._checks import limit_of
from trio_lifecycle._config import DEFAULT_READY_TIMEOUT_S, ConfigOptions, LifecycleConfig
from trio_lifecycle._entry import Entry
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._groups import only
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._keeper import Keeper
from trio_lifecycle._known import Known
from trio_lifecycle._ladder import StopReport
from trio_lifecycle._launch import Launch
from trio_lifecycle._passed_sockets import PassedSockets
from trio_lifecycle._preparation import insist_on_plain_output
from trio_lifecycle._search import Collaborators
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle.abc import Observer, Preflight, Recovering, Registry, Spawner
from trio_lifecycle.ready._callback import Callback
from trio_lifecycle.ready._health import HealthCheck
from trio_lifecycle.spawner._local import LocalSpawner

# A model of 40 GB comes from a cold disk in minutes.
DEFAULT_CALLBACK_TIMEOUT_S: Final = 300.0


class DaemonLifecycle:
    """Starts a daemon, knows when it is ready, and sees to its end.

    A description that can be used any number of times.

    Args:
        config: What the daemon is.
        spawner: Where it runs. Defaults to this machine.
        preflight: Checks that must pass before it is spawned: async callables that raise when
            something is wrong, such as ``FreePort(8080)``. They run at once, each within its own
            limit, and all failures are reported together.
        observer: A callable that is given each event; see ``trio_lifecycle.abc.Observer``.
        registry: Where the daemon is remembered, so that other programs that use the same registry
            find it, and start no second. Without one, the owned forms keep it to themselves, and
            ``ensure_running()`` uses this user's: ``SQLiteRegistry()``.
    """

    def __init__(
        self,
        config: LifecycleConfig,
        *,
        spawner: Spawner | None = None,
        preflight: Iterable[Preflight] = (),
        observer: Observer | None = None,
        registry: Registry | None = None,
    ) -> None:
        self.config: LifecycleConfig = _check(config, spawner, observer, registry)
        place = spawner or LocalSpawner()
        checks = _checks(preflight)
        self._by = Collaborators(place, place.open_prober(), checks, observer, registry)
        self._run: trio.lowlevel.TrioToken | None = None
        self._attempt: Attempt | None = None
        self._known: Known | None = None

    @classmethod
    def with_health_check(
        cls,
        binary_name: str,
        url: str,
        args: Sequence[str | PathLike[str]] = (),
        ready_timeout: float = DEFAULT_READY_TIMEOUT_S,
        *,
        spawner: Spawner | None = None,
        preflight: Iterable[Preflight] = (),
        observer: Observer | None = None,
        registry: Registry | None = None,
        **options: Unpack[ConfigOptions],
    ) -> "DaemonLifecycle":
        """Describe a service that is ready when ``url`` answers, within ``ready_timeout`` seconds.

        It may outlive its starter: ``ensure_running()`` may be used alone. The owned forms own it
        all the same. ``options`` are further fields of ``LifecycleConfig``, such as ``name=``.
        """
        options.setdefault("detach", True)
        config = LifecycleConfig(
            binary_name,
            args=args,
            ready_mode=HealthCheck(url),
            ready_timeout=ready_timeout,
            **options,
        )
        return cls(
            config, spawner=spawner, preflight=preflight, observer=observer, registry=registry
        )

    @classmethod
    def with_callback(
        cls,
        binary_name: str,
        args: Sequence[str | PathLike[str]] = (),
        ready_timeout: float = DEFAULT_CALLBACK_TIMEOUT_S,
        *,
        spawner: Spawner | None = None,
        preflight: Iterable[Preflight] = (),
        observer: Observer | None = None,
        registry: Registry | None = None,
        **options: Unpack[ConfigOptions],
    ) -> "DaemonLifecycle":
        """Describe a worker that calls back when it is ready, within ``ready_timeout`` seconds.

        It finds the URL to post to in ``TRIO_LIFECYCLE_CALLBACK_URL``, and wherever CALLBACK_URL
        stands. ``options`` are further fields of ``LifecycleConfig``, such as ``name=``.
        """
        config = LifecycleConfig(
            binary_name,
            args=args,
            ready_mode=Callback(),
            ready_timeout=ready_timeout,
            **options,
        )
        return cls(
            config, spawner=spawner, preflight=preflight, observer=observer, registry=registry
        )

    def __repr__(self) -> str:
        return f"DaemonLifecycle({self.config!r})"

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def running(self) -> AsyncIterator[DaemonHandle]:
        """Have the daemon up for the length of a block.

        When the block begins, the daemon is alive and ready. When it has been left, for whatever
        reason, the daemon is gone with all that it has started (with its process group where its
        ``guarantee`` is "scoped"); the block's own clean-up comes before. A daemon that ran already
        is used as it is, and left running: the one that the registry remembers, if one is given;
        else the one that answers at a health URL with a fixed port, if its program is ours or the
        ready mode accepts it.

        If the daemon dies meanwhile, the block is cancelled and DaemonDiedError raised. What the
        block itself raises leaves as it entered, with a note when the daemon had died. So it is
        with one that can't be seen any more, as when the connection to its machine is lost, but the
        error is DaemonStateUnknownError. It is looked for as long as a stop takes, and stopped if
        it comes into sight.

        Raises:
            BinaryNotFoundError: There is no such program.
            PreflightError: A check failed, so it was not started.
            ConfigError: Something that it was given can't be used as it is, such as a relative path
                where the current directory is gone.
            GuaranteeError: What was asked for its end can't be promised here.
            SpawnError: The system would not start it.
            DiedBeforeReadyError: It ended before it was ready.
            ReadyTimeoutError: It was not ready in time, and is gone.
            ReadyError: It could not become ready, and is gone.
            ForeignDaemonError: Another program answers in its place; ours is gone.
            DaemonDiedError: It died while the block ran.
            ClaimTimeoutError: Another program was starting it for longer than ``claim_timeout``.
            ConfigChangedError: It runs, started from another configuration.
            RegistryError: The registry can't be used.
            DaemonNotRunningError: Another program stopped it while it was being started.
            DaemonStateUnknownError: Something is where the daemon should be, but can't be told to
                be up; or it can't be seen any more, and may live.
            StopError: A process of it outlived SIGKILL.
        """
        keeper = Keeper(self._launch(detached=False))
        outcome: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.keep)
                try:
                    handle = await keeper.started()
                    with keeper.body:
                        yield handle
                except BaseException as error:  # noqa: ASYNC103  # raised by conclude()
                    # Outside of the nursery, which would wrap it into a group.
                    outcome = error
                finally:
                    keeper.leave()
        except BaseExceptionGroup as group:
            raise only(group) from None
        await keeper.conclude(outcome)

    async def run(  # noqa: ASYNC114  # a checker can't know the name by itself
        self, *, task_status: trio.TaskStatus[DaemonHandle] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Give the daemon to a nursery: ``daemon = await nursery.start(lifecycle.run)``.

        It runs until the nursery is cancelled, or the daemon is stopped through its handle. What
        goes wrong before it is ready is raised by ``nursery.start``; what becomes of it later,
        DaemonDiedError or DaemonStateUnknownError, comes out of the nursery. See ``running()``.
        """
        async with self.running() as handle:
            task_status.started(handle)
            await handle.wait_exit()

    async def ensure_running(self) -> DaemonHandle:
        """Have the daemon up and leave it so: nobody owns it, and it outlives this program.

        However many programs and tasks ask at once, one of them starts it, and all get the same
        daemon; one that runs already is used as it is. It is remembered in the registry, with its
        process, before anything of it runs; if this program is killed meanwhile, the next finishes
        the start, or begins anew.

        Tasks of this program that ask at once share one attempt. It is given up when all of them
        are cancelled. Needs ``detach=True``.

        Raises:
            ConfigError: The daemon is not detached; its output is to have timestamps, a prefix or a
                rotation, which nobody could give it; its start asks for itself; or the lifecycle is
                used by another ``trio.run()`` that goes on, in a thread.
            DaemonStateUnknownError: It is alive but has not answered for ``ready_timeout``, or it
                can't be told whether it lives; nothing was started.
            LifecycleError: As for ``running()``.
        """
        if not self.config.detach:
            raise ConfigError(
                "detach",
                f"{self.config.name} is not detached, so it needs an owner: "
                "use 'async with lifecycle.running()', "
                "'nursery.start(lifecycle.run)', a daemon nursery (open_daemon_nursery()); "
                "or say detach=True to leave it running",
            )
        insist_on_plain_output(self.config)
        self._insist_on_this_run()
        if self._attempt is None and self._known is not None:
            handle = await self._known.find_at_once()
            if handle is not None:
                return handle
        while (attempt := self._attempt) is not None and not attempt.is_open:
            # It is being given up; what comes after it waits for that.
            await attempt.over()
            if self._attempt is attempt:
                self._attempt = None
        if attempt is None:
            attempt = self._attempt = Attempt(self.config.name, self._ensure)
        try:
            return await attempt.join()
        finally:
            if self._attempt is attempt and not attempt.is_open:
                self._attempt = None

    def _insist_on_this_run(self) -> None:
        run = trio.lowlevel.current_trio_token()
        if self._run is not run:
            if self._run is not None and _goes_on(self._run):
                raise ConfigError("lifecycle", "another thread's trio.run() uses it; make one each")
            self._run, self._attempt = run, None
            self._forget_forwards()

    def _forget_forwards(self) -> None:
        # What was given in an earlier run has the address of a forward that has ended with it; the
        # registry gives the daemon again, and this run its own forward.
        if self._known is not None and not self._by.spawner.is_here:
            self._known.let_go()
            self._known = None

    async def _ensure(self) -> DaemonHandle:
        if self._known is not None:
            handle = await self._known.find_again()
            if handle is not None:
                return handle
            self._known.let_go()
            self._known = None
        launch = self._launch(detached=True)
        handle = await _alone(launch)
        # Also when the caller is cancelled at this moment: it runs, and whoever asks next gets it.
        self._known = launch.as_known()
        return handle

    async def stop(self, handle: DaemonHandle) -> StopReport:
        """Stop a daemon; the same as ``handle.stop()``."""
        return await handle.stop()

    async def force_kill(self, handle: DaemonHandle) -> StopReport:
        """Kill a daemon; the same as ``handle.kill()``."""
        return await handle.kill()

    def _launch(self, *, detached: bool, sockets: PassedSockets | None = None) -> Launch:
        registry = self._by.registry
        if registry is None and detached:
            # Loads SQLite, which owners without a registry never need.
            from trio_lifecycle.registry._default import default_registry

            registry = default_registry()
        entry = None if registry is None else Entry(registry)
        return Launch(self.config, self._by, detached=detached, entry=entry, sockets=sockets)


def _goes_on(run: trio.lowlevel.TrioToken) -> bool:
    try:
        run.run_sync_soon(int)  # does nothing
    except trio.RunFinishedError:
        return False
    return True


async def _alone(launch: Launch) -> DaemonHandle:
    """Start a daemon that nobody here will own; what serves it ends with its start."""
    handle: DaemonHandle | None = None
    failure: Exception | None = None
    try:
        async with trio.open_nursery() as services:
            try:
                handle = await launch.run(services)
            except Exception as error:
                # Outside of the nursery, which would wrap it into a group.
                failure = error
            services.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        raise only(group) from None
    if failure is not None:
        raise failure
    assert handle is not None
    return handle


def _check(config: object, spawner: object, observer: object, registry: object) -> LifecycleConfig:
    if not isinstance(config, LifecycleConfig):
        raise ConfigError("config", f"must be a LifecycleConfig, not {config!r}")
    if spawner is not None and not isinstance(spawner, Spawner):
        raise ConfigError("spawner", f"must be a Spawner such as LocalSpawner(), not {spawner!r}")
    if config.listen and spawner is not None and not spawner.is_here:
        problem = f"{spawner!r} can pass no socket to another machine; the daemon must bind its own"
        raise ConfigError("listen", problem)
    if observer is not None and not callable(observer):
        raise ConfigError("observer", f"must be a callable that takes an event, not {observer!r}")
    if registry is not None and not isinstance(registry, Registry):
        raise ConfigError(
            "registry", f"must be a Registry such as SQLiteRegistry(path), not {registry!r}"
        )
    return config


def _checks(preflight: Iterable[Preflight]) -> tuple[Preflight, ...]:
    try:
        checks = tuple(preflight)
    except TypeError:
        raise ConfigError("preflight", f"must be a list, not {preflight!r}") from None
    for check in checks:
        if not callable(check):
            raise ConfigError("preflight", f"must be a list of async callables, not of {check!r}")
        if isinstance(check, type):
            problem = f"must be a list of checks, not of a class: write {check.__name__}(...)"
            raise ConfigError("preflight", problem)
        check_seconds("check_timeout", limit_of(check))
        if isinstance(check, Recovering) and check.wait_for_recovery:
            check_seconds("wait_for_recovery", check.wait_for_recovery)
    return checks
