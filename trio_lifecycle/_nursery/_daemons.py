"""The daemon nursery: many daemons with one owner, each there once, the first up the last down.

Every name has at most one place, and a place is one attempt to have the daemon up and what became
of it. Only this room decides about them: ``decide`` says what a caller has to do, from where the
daemon stands at that moment, and no checkpoint lies between that look and the deed. So there is
nothing to lock, and nothing that was read elsewhere counts: after every wait it is looked at anew.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Final

import trio

from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._errors import ConfigError, LifecycleError
from trio_lifecycle._groups import only
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._ladder import StopReport
from trio_lifecycle._lifecycle import DaemonLifecycle
from trio_lifecycle._nursery._place import Place
from trio_lifecycle._nursery._standing import Standing, Step, decide
from trio_lifecycle._passed_sockets import PassedSockets
from trio_lifecycle._record_errors import ConfigChangedError, DaemonNotRunningError

# For how long at least daemons are stopped one by one, so that also those that are killed at once
# go in their order.
_LEAST_PATIENCE_S: Final = 0.5

_LEFT: Final = "its daemon nursery was left while it was being started"


class DaemonNursery:
    """Owns daemons, one for each name, until its block is left; see ``open_daemon_nursery``.

    Iterating gives the handles of the daemons that are up at that moment, in order of their start;
    ``len()`` counts them, and ``name in daemons`` says whether one of that name is among them. It
    may be used by every task of the Trio run in which it was opened.
    """

    def __init__(self, keepers: trio.Nursery) -> None:
        self._keepers = keepers
        self._run = trio.lowlevel.current_trio_token()
        self._places: dict[str, Place] = {}
        # Of a name, not of a place: they stay open when its daemon has died.
        self._sockets: dict[str, PassedSockets] = {}
        # What daemons of these names had may not be free yet.
        self._recovering: dict[str, Place] = {}
        self._left = False
        self._stop_errors: list[LifecycleError] = []

    def __repr__(self) -> str:
        return f"<DaemonNursery of {', '.join(daemon.name for daemon in self) or 'no daemon'}>"

    def __iter__(self) -> Iterator[DaemonHandle]:
        return iter([place.handle for place in self._places.values() if place.handle and place.up])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __contains__(self, name: object) -> bool:
        return any(daemon.name == name for daemon in self)

    async def ensure_running(self, lifecycle: DaemonLifecycle) -> DaemonHandle:
        """Have the daemon up, owned by this nursery whatever its ``detach`` says.

        If the one of its name is up, it is given. If it is being started, its start is joined: all
        who wait get its outcome, and a failure is raised to them and to nobody else. It is given up
        only when the last of them is cancelled; that one waits until nothing is left of it. If it
        is being stopped, or has died, it is started anew when it is gone. Its place in the order of
        start is that of its last start.

        One that runs already without having been started here is used as it is, and left running.

        Sockets that are passed to it (``listen``) are the nursery's. They stay open when it has
        died, and connections wait in them for its next process, until ``stop`` or the end of the
        nursery.

        Args:
            lifecycle: What to start. If the daemon of its name was started from another
                configuration, ``on_change`` of this one says what is done about it.

        Returns:
            A handle, valid also when the daemon has ended.

        Raises:
            ConfigChangedError: It is up, from another configuration; it was left alone.
            DaemonNotRunningError: It was stopped while it was being started, or this nursery is
                left.
            DaemonStateUnknownError: It was asked to go and is still there, or can't be seen any
                more; nothing was started.
            ConfigError: The nursery is of another ``trio.run()``.
            LifecycleError: As for ``DaemonLifecycle.running()``.
        """
        await trio.lowlevel.checkpoint()
        if not isinstance(lifecycle, DaemonLifecycle):
            raise ConfigError("lifecycle", f"must be a DaemonLifecycle, not {lifecycle!r}")
        while True:
            handle = await self._step(lifecycle)
            if handle is not None:
                return handle

    async def _step(self, lifecycle: DaemonLifecycle) -> DaemonHandle | None:
        """Look where the daemon stands, and do what has to be done next; None: look again."""
        config = lifecycle.config
        self._insist_on_open(config.name)
        place = self._find(config.name)
        if place is None:
            return await self._start(lifecycle).join()
        changed = place.changed(config)
        step = decide(place.standing, config.on_change, changed=bool(changed))
        if changed and place.up:
            place.note_change(lifecycle, changed)
        match step:
            case Step.TAKE:
                return place.handle if await place.is_there_still() else None
            case Step.JOIN:
                return await place.join()
            case Step.WAIT:
                await place.await_change()
            case Step.REPLACE:
                await place.stop()
            case Step.REFUSE:
                raise ConfigChangedError(config.name, place.pid, changed)
            case _:
                await place.clear_up()
        return None

    async def stop(self, name: str) -> StopReport | None:
        """Stop the daemon of this name, and return when it is gone.

        A start that is under way is given up, and who waits for it gets DaemonNotRunningError.
        Several who stop it at once get the same report. Once begun it is finished also when the
        caller is cancelled. A daemon that was found running is stopped, too. What is to recover
        then is waited for as in ``DaemonHandle.stop``.

        Returns:
            How it was stopped; None when none of this name was there, or it was not spawned yet.

        Raises:
            StopError: A process of it outlived SIGKILL; it stays in the nursery.
            DaemonStateUnknownError: Its process can't be found from here, so nothing was sent; or
                it can't be seen any more, and stays in the nursery.
            ConfigError: The nursery is of another ``trio.run()``.
        """
        await trio.lowlevel.checkpoint()
        self._insist_on_run()
        place = self._find(name)
        report = None if place is None else await place.end()
        if self._find(name) is None and name in self._sockets:
            self._sockets.pop(name).close()
        return report

    # --- places ---

    def _start(self, lifecycle: DaemonLifecycle) -> Place:
        name = lifecycle.config.name
        sockets, before = self._sockets_for(lifecycle.config), self._recovering.get(name)
        place = self._places[name] = Place(lifecycle, sockets, before)
        self._keepers.start_soon(self._keep, place)
        return place

    def _sockets_for(self, config: LifecycleConfig) -> PassedSockets:
        sockets = self._sockets.get(config.name)
        if sockets is None or sockets.wanted != config.listen:
            if sockets is not None:
                sockets.close()
            sockets = self._sockets[config.name] = PassedSockets(config.listen)
        return sockets

    @trio.lowlevel.enable_ki_protection
    async def _keep(self, place: Place) -> None:
        try:
            await place.keep()
        finally:
            self._find(place.config.name)

    def _find(self, name: str) -> Place | None:
        """Give the place of this name; one whose daemon is gone is cleared."""
        place = self._places.get(name)
        if place is not None and place.standing is Standing.GONE:
            del self._places[name]
            if place.is_recovering:
                self._recovering[name] = place
            return None
        return place

    def _insist_on_open(self, name: str) -> None:
        self._insist_on_run()
        if self._left:
            raise DaemonNotRunningError(
                name, "its daemon nursery is left and starts nothing any more"
            )

    def _insist_on_run(self) -> None:
        if trio.lowlevel.current_trio_token() is not self._run:
            raise ConfigError(
                "daemons", "the daemon nursery is of another trio.run(); open one in each"
            )

    # --- the end ---

    def _leave(self) -> None:
        """Say that the block has left: nothing is started any more, and all are stopped."""
        self._left = True
        for place in self._places.values():
            if place.standing is Standing.STARTING:
                place.give_up(_LEFT)
        self._keepers.start_soon(self._stop_all)

    @trio.lowlevel.enable_ki_protection
    async def _stop_all(self) -> None:
        places = list(self._places.values())
        waiting = places.copy()
        longest = max((place.config.stop_ladder.seconds for place in places), default=0.0)
        # Shielded, because the block may have been left by a cancellation. Bounded by the ladders.
        with trio.CancelScope(shield=True):
            with trio.move_on_after(max(longest, _LEAST_PATIENCE_S)):
                while waiting:
                    place = waiting.pop()
                    place.leave()
                    await place.over.wait()
            for place in reversed(waiting):
                place.leave()
            for place in places:
                await place.over.wait()
        stuck = [place for place in reversed(places) if place.standing is Standing.STUCK]
        for sockets in self._sockets.values():
            sockets.close()
        self._stop_errors = [place.stop_error for place in stuck if place.stop_error is not None]

    async def _conclude(self, outcome: BaseException | None) -> None:
        """Raise what the block raised, or else why daemons could not be ended.

        Before that, what the daemons had is waited for, unless the owner is in a hurry.
        """
        try:
            if self._recovering and (outcome is None or isinstance(outcome, Exception)):
                await self._recovered()
        except trio.Cancelled:
            # What the block raised leaves as it entered, also when this wait is cut short.
            self._raise(outcome)
            raise
        self._raise(outcome)

    async def _recovered(self) -> None:
        try:
            async with trio.open_nursery() as nursery:
                for place in self._recovering.values():
                    nursery.start_soon(place.recovered)
        except BaseExceptionGroup as group:
            raise only(group) from None

    def _raise(self, outcome: BaseException | None) -> None:
        errors = self._stop_errors
        if outcome is not None:
            if isinstance(outcome, Exception):
                for error in errors:
                    outcome.add_note(str(error))
            raise outcome
        if len(errors) > 1:
            raise ExceptionGroup("several daemons could not be stopped", errors)
        if errors:
            raise errors[0] from None


@asynccontextmanager
@trio.lowlevel.enable_ki_protection
async def open_daemon_nursery() -> AsyncIterator[DaemonNursery]:
    """Own many daemons for the length of a block, started on demand.

    ``await daemons.ensure_running(lifecycle)`` starts one, or gives the one of its name. When the
    block has been left, for whatever reason, they are stopped one after another in reverse order of
    their start, each with all that it has started; the block's own clean-up comes before. When this
    has taken as long as the longest of their stop ladders, those not yet asked are asked together,
    so that it takes at most about twice that time, however many they are. Daemons that were found
    running are left running.

    If one dies meanwhile, its observer is told, and nothing else happens: whoever wants it next
    gets a new one. So it is with one that can't be seen any more, but a new one is started only
    when the old one was seen to be gone. What the block itself raises leaves as it entered, with a
    note for each daemon that could not be stopped.

    Raises:
        StopError: A process outlived SIGKILL. The others were stopped all the same.
        DaemonStateUnknownError: One can't be seen to be gone.
        ExceptionGroup: Of these errors, where that happened to several daemons.
    """
    outcome: BaseException | None = None
    try:
        async with trio.open_nursery() as keepers:
            daemons = DaemonNursery(keepers)
            try:
                yield daemons
            except BaseException as error:  # noqa: ASYNC103  # raised by _conclude()
                # Outside of the nursery, which would wrap it into a group.
                outcome = error
            finally:
                daemons._leave()
    except BaseExceptionGroup as group:
        raise only(group) from None
    await daemons._conclude(outcome)
