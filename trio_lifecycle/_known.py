"""A daemon that was given before: whether it may be given again."""

from collections.abc import Awaitable, Callable

import trio

from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._entry import Entry, has_lost_its_owner
from trio_lifecycle._errors import DaemonStateUnknownError
from trio_lifecycle._handle import DaemonHandle
from trio_lifecycle._ladder import KILL_PATIENCE_S
from trio_lifecycle._search import NOTHING_STARTED, await_answer
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import ArmedReady, Process


class Known:
    """What one program remembers of a daemon that it left running, or found so."""

    def __init__(
        self,
        config: LifecycleConfig,
        entry: Entry,
        answers: Callable[[], Awaitable[bool]],
        process: Process,
        stopper: Stopper,
        armed: ArmedReady | None,
        handle: DaemonHandle,
    ) -> None:
        self.config = config
        self.entry = entry
        self._answers = answers
        self.process = process
        self.stopper = stopper
        self.armed = armed
        self.handle = handle

    async def find_at_once(self) -> DaemonHandle | None:
        """Give the handle, if one question shows that it may be given.

        None where that takes more than a question: ``find_again`` goes on then.

        Raises:
            DaemonStateUnknownError: It can't be seen any more.
        """
        record = self.entry.record
        if record is None or self._is_going():
            await trio.lowlevel.checkpoint_if_cancelled()
            return None
        await self._look()
        if self.armed is not None and await self.armed.ask(self.process) is None:
            return None
        # Last: it may have been asked to go while it was asked whether it is up.
        is_given = self.entry.registry.confirms(record) and not self._is_going()
        return self.handle if is_given else None

    async def find_again(self) -> DaemonHandle | None:
        """Give the handle, if its daemon still is up.

        None if it is not the one to be given any more: the registry says more then.

        Raises:
            DaemonStateUnknownError: It is alive, but has not answered for the ready timeout; or it
                can't be seen any more.
        """
        await self._look()
        record = self.entry.record
        if self.process.pid is None:
            # Its end can't be seen, so another may be in its place.
            return self.handle if await self._answers() else None
        if record is None or self._is_going():
            await self._see_off()
        elif not await self.entry.verify(record, self.config):
            return None
        if self.armed is not None and not self._is_going():
            await await_answer(self.config, self.process, self.armed)
            # It may have been asked to go while it was asked whether it is up.
            if record is not None and not await self.entry.verify(record, self.config):
                return None
        return None if self._is_going() else self.handle

    def let_go(self) -> None:
        """Let go of a process that is no longer given, if it has ended.

        Leaves no zombie and no descriptor, also when the run in which it was spawned is over.
        """
        # "gone" is asked for what it does besides: it reaps a child.
        if self.process.gone or self.process.ended:
            self.process.close()

    async def _look(self) -> None:
        """See whether it is there still, where that takes a question to its machine."""
        try:
            await self.process.look()
        except DaemonStateUnknownError as error:
            problem = f"{error.problem}; {NOTHING_STARTED}"
            raise DaemonStateUnknownError(self.config.name, problem) from error

    def _is_going(self) -> bool:
        record = self.entry.record
        is_left = record is not None and has_lost_its_owner(record)
        return is_left or self.stopper.asked or self.process.ended

    async def _see_off(self) -> None:
        """Wait for the end of a process that was asked to go, if nobody else can know of it."""
        if self.stopper.asked and not await self._is_recorded():
            with trio.move_on_after(self.stopper.seconds + KILL_PATIENCE_S):
                await self.process.wait_gone()
            if not self.process.gone:
                problem = f"process {self.process.pid} was asked to go, and is still there"
                raise DaemonStateUnknownError(self.config.name, f"{problem}; {NOTHING_STARTED}")

    async def _is_recorded(self) -> bool:
        record = self.entry.record
        now = None if record is None else await self.entry.registry.get(record.name)
        return record is not None and now is not None and now.instance_id == record.instance_id
