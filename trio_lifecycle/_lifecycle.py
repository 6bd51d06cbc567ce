"""The lifecycle of a daemon: started on demand, ready, watched, gone with its owner."""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from typing import Final, Unpack

import trio

from trio_lifecycle._config import DEFAULT_READY_TIMEOUT_S, ConfigOptions, LifecycleConfig
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._keeper import Keeper
from trio_lifecycle._ladder import StopReport
from trio_lifecycle._launch import Collaborators, Launch
from trio_lifecycle.abc import Observer, Preflight, Spawner
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
            something is wrong. They run at once, and all failures are reported together.
        observer: A callable that is given each event; see ``trio_lifecycle.abc.Observer``.
    """

    def __init__(
        self,
        config: LifecycleConfig,
        *,
        spawner: Spawner | None = None,
        preflight: Iterable[Preflight] = (),
        observer: Observer | None = None,
    ) -> None:
        self.config: LifecycleConfig = _check(config, spawner, observer)
        place = spawner or LocalSpawner()
        checks = _checks(preflight)
        self._by = Collaborators(place, place.open_prober(), checks, observer)
        self._turn = trio.Lock()
        self._run: trio.lowlevel.TrioToken | None = None
        self._left_running: Launch | None = None

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
        return cls(config, spawner=spawner, preflight=preflight, observer=observer)

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
        return cls(config, spawner=spawner, preflight=preflight, observer=observer)

    def __repr__(self) -> str:
        return f"DaemonLifecycle({self.config!r})"

    @asynccontextmanager
    @trio.lowlevel.enable_ki_protection
    async def running(self) -> AsyncIterator[DaemonHandle]:
        """Have the daemon up for the length of a block.

        When the block begins, the daemon is alive and ready. When it has been left, for whatever
        reason, the daemon is gone with all that it has started (with its process group where its
        ``guarantee`` is "scoped"); the block's own clean-up comes before. A daemon that ran already
        is used as it is, and left running: whatever answers at a health URL with a fixed port
        before anything is spawned is taken for it.

        If the daemon dies meanwhile, the block is cancelled and DaemonDiedError raised. What the
        block itself raises leaves as it entered, with a note when the daemon had died.

        Raises:
            BinaryNotFoundError: There is no such program.
            PreflightError: A check failed, so it was not started.
            SpawnError: The system would not start it.
            DiedBeforeReadyError: It ended before it was ready.
            ReadyTimeoutError: It was not ready in time, and is gone.
            ReadyError: It could not become ready, and is gone.
            ForeignDaemonError: Another program answered in its place; ours is gone.
            DaemonDiedError: It died while the block ran.
            DaemonStateUnknownError: Something is where the daemon should be, but can't be told to
                be up.
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
            raise _only(group) from None
        keeper.conclude(outcome)

    async def run(  # noqa: ASYNC114  # a checker can't know the name by itself
        self, *, task_status: trio.TaskStatus[DaemonHandle] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Give the daemon to a nursery: ``daemon = await nursery.start(lifecycle.run)``.

        It runs until the nursery is cancelled, or the daemon is stopped through its handle. What
        goes wrong before it is ready is raised by
        ``nursery.start``; DaemonDiedError comes out of the nursery. See ``running()``.
        """
        async with self.running() as handle:
            task_status.started(handle)
            await handle.wait_exit()

    async def ensure_running(self) -> DaemonHandle:
        """Have the daemon up and leave it so: nobody owns it, and it outlives this program.

        If it runs already it is used as it is. Asked again, by any task of this program, the same
        daemon is given; of tasks that ask at once one starts it, and the others wait for that. When
        the one that starts it is cancelled before the daemon is ready, the start is given up, and
        the next begins anew. Needs ``detach=True``.

        Raises:
            ConfigError: The daemon is not detached.
            DaemonStateUnknownError: It is alive but has not answered for ``ready_timeout``; nothing
                was started.
            LifecycleError: As for ``running()``.
        """
        if not self.config.detach:
            raise ConfigError(
                "detach",
                f"{self.config.name} is not detached, so it needs an owner: "
                "use 'async with lifecycle.running()', "
                "'nursery.start(lifecycle.run)'; or say detach=True to leave it running",
            )
        async with self._turn_in_this_run():
            if self._left_running is not None:
                handle = await self._left_running.find_again()
                if handle is not None:
                    return handle
                self._left_running = None
            launch = self._launch(detached=True)
            return await launch.find() or await self._leave_running(launch)

    def _turn_in_this_run(self) -> trio.Lock:
        run = trio.lowlevel.current_trio_token()
        if self._run is not run:
            if self._turn.locked():
                raise ConfigError(
                    "lifecycle", "another thread's trio.run() uses it at this moment; make one each"
                )
            self._run, self._turn = run, trio.Lock()
        return self._turn

    @trio.lowlevel.enable_ki_protection
    async def _leave_running(self, launch: Launch) -> DaemonHandle:
        keeper = Keeper(launch)
        outcome: BaseException | None = None
        handle: DaemonHandle | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(keeper.begin)
                try:
                    handle = await keeper.started()
                except BaseException as error:  # noqa: ASYNC103  # raised below
                    outcome = error
        except BaseExceptionGroup as group:
            raise _only(group) from None
        if keeper.handle is not None:
            # Also when the caller was cancelled at the moment of readiness: it runs, and whoever
            # asks next gets it.
            self._left_running = launch
        if outcome is not None:
            raise outcome
        assert handle is not None
        return handle

    async def stop(self, handle: DaemonHandle) -> StopReport:
        """Stop a daemon; the same as ``handle.stop()``."""
        return await handle.stop()

    async def force_kill(self, handle: DaemonHandle) -> StopReport:
        """Kill a daemon; the same as ``handle.kill()``."""
        return await handle.kill()

    def _launch(self, *, detached: bool) -> Launch:
        return Launch(self.config, self._by, detached=detached)


def _check(config: object, spawner: object, observer: object) -> LifecycleConfig:
    if not isinstance(config, LifecycleConfig):
        raise ConfigError("config", f"must be a LifecycleConfig, not {config!r}")
    if spawner is not None and not isinstance(spawner, Spawner):
        raise ConfigError("spawner", f"must be a Spawner such as LocalSpawner(), not {spawner!r}")
    if observer is not None and not callable(observer):
        raise ConfigError("observer", f"must be a callable that takes an event, not {observer!r}")
    return config


def _checks(preflight: Iterable[Preflight]) -> tuple[Preflight, ...]:
    try:
        checks = tuple(preflight)
    except TypeError:
        raise ConfigError("preflight", f"must be a list, not {preflight!r}") from None
    for check in checks:
        if not callable(check):
            raise ConfigError("preflight", f"must be a list of async callables, not of {check!r}")
    return checks


def _only(error: BaseException) -> BaseException:
    """Take a single error out of the groups that our nurseries made of it.

    It is Ctrl-C while the keeper was at work, or what a plug-in's own task raised.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
