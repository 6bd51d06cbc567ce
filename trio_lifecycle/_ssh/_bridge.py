"""An asyncio loop inside Trio: what speaks SSH runs there."""

import contextlib
import logging
import sys
import warnings
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

import trio
from attrs import define, field

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ssh._session import LostError

_log: Final = logging.getLogger("trio_lifecycle")

_T = TypeVar("_T")

# What is closed at the end says goodbye to another machine, which may not listen any more.
_GOODBYE_S: Final = 2.0

# How long it takes at most until something that did not hear of its cancellation hears of it.
_DEAF_S: Final = 0.1

_LOOP_ENDED: Final = "the asyncio loop that spoke SSH has ended"


def _trio_asyncio() -> Any:
    """Import trio-asyncio, which changes asyncio for the whole process, only when it is needed.

    Raises:
        ConfigError: It can't be had.
    """
    if sys.version_info >= (3, 14):
        raise ConfigError(
            "host",
            "SSH can't be spoken on Python 3.14 and later, for trio-asyncio can't be imported "
            "there; use Python 3.11 to 3.13",
        )
    try:
        with warnings.catch_warnings():
            # It names this class when it is imported on Python 3.12 and later.
            warnings.filterwarnings("ignore", ".*AbstractChildWatcher.*", DeprecationWarning)
            import trio_asyncio
    except ImportError as error:
        raise ConfigError(
            "host", "SSH needs more packages: pip install 'trio-lifecycle[ssh]'"
        ) from error
    return trio_asyncio


@define(eq=False)
class Bridge:
    """Calls into one asyncio loop, ours or one that the application runs itself."""

    loop: Any
    _current: Any
    _before_end: list[Callable[[], Awaitable[None]]] = field(factory=list)
    _is_over: bool = False
    _calls: int = 0
    _all_over: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot)

    def before_end(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed before the loop ends; it is given 2 s."""
        self._before_end.append(close)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Let what is called in this block find the loop.

        What asyncio schedules copies the context of who called it, and would find no loop
        otherwise.
        """
        token = self._current.set(self.loop)
        try:
            yield
        finally:
            self._current.reset(token)

    async def call(self, function: Callable[..., Awaitable[_T]], *args: Any, **kwargs: Any) -> _T:
        """Run an asyncio function; it is cancelled when this is.

        Raises:
            LostError: The loop has ended.
        """
        task, done = self._begin(function, *args, **kwargs)
        self._calls += 1
        try:
            try:
                await done.wait()
            except trio.Cancelled:  # noqa: ASYNC103 - there may be a result
                await self._cut_off(task, done)  # noqa: ASYNC102 - it shields itself
                # What has come to its end all the same may be a connection, which somebody must
                # have.
                if not task.done() or task.cancelled():
                    raise
            result: _T = _result(task)
            return result
        finally:
            self._calls -= 1
            if not self._calls:
                self._all_over.unpark_all()

    def _begin(
        self, function: Callable[..., Awaitable[_T]], *args: Any, **kwargs: Any
    ) -> tuple[Any, trio.Event]:
        async def run() -> _T:
            return await function(*args, **kwargs)

        if self._is_over or self.loop.is_closed():
            raise LostError(_LOOP_ENDED)
        done = trio.Event()
        with self.entered():
            task = self.loop.create_task(run())
            task.add_done_callback(lambda _: done.set())
        return task, done

    async def _cut_off(self, task: Any, done: trio.Event) -> None:
        # Shielded, for what was cut off still closes what it has opened. It ends by itself, at the
        # latest with the loop.
        with trio.CancelScope(shield=True):
            while not done.is_set() and not self.loop.is_closed():
                # Again and again: who waits for a thread does not hear of it, and goes on.
                with self.entered():
                    task.cancel()
                with trio.move_on_after(_DEAF_S):
                    await done.wait()

    async def see_through(
        self,
        function: Callable[..., Awaitable[_T]],
        *args: Any,
        late: Callable[[_T | None], None],
        **kwargs: Any,
    ) -> _T:
        """Run an asyncio function that must not be cut off.

        Args:
            late: What is done with the result when this is cancelled before; None is a failure.

        Raises:
            LostError: The loop has ended.
        """
        task, done = self._begin(function, *args, **kwargs)
        try:
            await done.wait()
        except trio.Cancelled:
            with self.entered():
                task.add_done_callback(partial(_hand_over, late))
            raise
        result: _T = _result(task)
        return result

    async def end(self) -> None:
        """Close what is to be closed before the loop ends; bounded, and raises nothing."""
        # Nobody else would close it, and who needed it is gone.
        with trio.move_on_after(_GOODBYE_S, shield=True) as patience:
            async with trio.open_nursery() as nursery:
                for close in self._before_end:
                    nursery.start_soon(close)
        # Who begins now would wait for a loop that turns no more.
        self._is_over = True
        with trio.CancelScope(deadline=patience.deadline, shield=True):
            # A call that is cancelled ends when the loop has had its turn, and without the loop
            # never.
            while self._calls:
                await self._all_over.park()


def _result(task: Any) -> Any:
    import asyncio

    try:
        return task.result()
    except asyncio.CancelledError as error:
        raise LostError(_LOOP_ENDED) from error  # noqa: ASYNC104 - asyncio's, not Trio's


def _hand_over(late: Callable[[_T | None], None], task: Any) -> None:
    failed = task.cancelled() or task.exception() is not None
    late(None if failed else task.result())


@define(eq=False)
class _House:
    """The loops of one Trio run."""

    own: Bridge | None = None
    turn: trio.Lock = field(factory=trio.Lock)
    borrowed: dict[Any, Bridge] = field(factory=dict)


_house: Final = trio.lowlevel.RunVar[_House]("trio_lifecycle.bridge")


async def bridge() -> Bridge:
    """Give the bridge of this Trio run; where the application runs a loop itself, that one's.

    Raises:
        ConfigError: What is needed is not installed.
        LostError: No loop could be opened.
    """
    trio_asyncio = _trio_asyncio()
    house = _house_of_this_run()
    loop = trio_asyncio.current_loop.get()
    if (
        loop is not None
        and _is_of_this_run(loop)
        and (house.own is None or loop is not house.own.loop)
    ):
        return _borrow(house, loop, trio_asyncio)
    async with house.turn:
        if house.own is None:
            house.own = await _open(house, trio_asyncio)
    return house.own


def _house_of_this_run() -> _House:
    try:
        return _house.get()
    except LookupError:
        house = _House()
        _house.set(house)
        return house


def _is_of_this_run(loop: Any) -> bool:
    # A thread inherits the context of who started it, and may run Trio itself.
    token = getattr(loop, "_token", None)
    return token is trio.lowlevel.current_trio_token() and not loop.is_closed()


def _borrow(house: _House, loop: Any, trio_asyncio: Any) -> Bridge:
    if loop not in house.borrowed:
        borrowed = Bridge(loop, trio_asyncio.current_loop)
        house.borrowed[loop] = borrowed
        # The loop's end cancels its tasks and waits for them.
        with borrowed.entered():
            loop.trio_as_future(_return_in_time, house, borrowed)
    return house.borrowed[loop]


async def _return_in_time(house: _House, borrowed: Bridge) -> None:
    try:
        await trio.sleep_forever()
    finally:
        await borrowed.end()  # noqa: ASYNC102 - shielded and bounded by itself
        del house.borrowed[borrowed.loop]


async def _open(house: _House, trio_asyncio: Any) -> Bridge:
    opened = trio.Event()
    found: list[Bridge] = []

    async def serve() -> None:
        try:
            async with trio_asyncio.open_loop() as loop:
                loop.set_exception_handler(_log_it)
                loop.set_default_executor(_threads(trio_asyncio))
                found.append(Bridge(loop, trio_asyncio.current_loop))
                opened.set()
                try:
                    await trio.sleep_forever()
                finally:
                    await found[0].end()  # noqa: ASYNC102 - shielded and bounded by itself
        except* Exception as errors:
            # Raised here they would end the program.
            _log.exception("the asyncio loop that speaks SSH has failed", exc_info=errors)
        finally:
            house.own = None
            opened.set()

    trio.lowlevel.spawn_system_task(serve, name="the asyncio loop that speaks SSH")
    # Shielded, for others will use it, too; opening takes under a millisecond.
    with trio.CancelScope(shield=True):
        await opened.wait()
    if not found:
        raise LostError(_LOOP_ENDED)
    return found[0]


def _threads(trio_asyncio: Any) -> Any:
    """Give what runs the parts of asyncssh that block: a look-up of a name, `Match exec`."""

    class Threads(trio_asyncio.TrioExecutor):  # type: ignore[misc]
        async def submit(self, function: Callable[..., _T], *args: Any) -> _T:
            # Nobody's patience, and no end of the program, waits for a name server.
            return await trio.to_thread.run_sync(function, *args, abandon_on_cancel=True)

    return Threads()


def _log_it(_loop: object, context: dict[str, Any]) -> None:
    # Asyncio's own handling would raise it in the loop, and end it with all connections.
    _log.debug("asyncio says: %s", context.get("message"), exc_info=context.get("exception"))
