"""What every registry must do, as a check."""

import uuid
from collections.abc import AsyncIterator, Callable

import trio
from attrs import evolve

from trio_lifecycle import ConfigError
from trio_lifecycle.abc import DaemonRecord, RecordChange, Registry

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long a wait is watched that must not end.
_WATCHED_S = 0.1

# So many tasks ask for one claim, through so many views.
_TASKS = 20
_VIEWS = 4

_NO_NAMES = ("", ".", "..", "a/b", "a\0b", "a\nb", "x" * 201)


async def check_registry(make: Callable[[], Registry]) -> None:
    """Hold a registry to its contract.

    What else is in it is left alone, and nothing of the check stays in it.

    Args:
        make: Gives a view of the registry: another one of the same registry each time it is called,
            as two programs would have, or always the same object.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    check = _Check(make)
    await check.what_is_put_is_found()
    await check.another_instance_is_left_alone()
    await check.only_the_expected_state_is_replaced()
    await check.daemons_are_in_order()
    await check.wrong_names_are_refused()
    await check.one_at_a_time_has_the_claim()
    await check.a_waiter_can_leave()
    await check.the_claim_is_free_after_its_block()
    await check.the_holder_is_found()
    await check.a_watch_sees_each_change()


class _Check:
    """One check of one registry."""

    def __init__(self, make: Callable[[], Registry]) -> None:
        self._views = [make() for _ in range(_VIEWS)]
        self._registry, self._other, *_ = self._views
        self._prefix = f"checked-{uuid.uuid4().hex}-"

    async def what_is_put_is_found(self) -> None:
        full = self._record(
            pid_namespace=2**32,
            url="http://[::1]:8080/é?a=%00",
            port=8080,
            state="starting",
            log_file="/tmp/\udcff.log",
            fingerprint="args=1 env=2",
            stop_ladder=((15, 10.0), (9, 0.5)),
            report={"url": "x", "nested": [1, 2.5, None, {"é": True}]},
        )
        assert await self._registry.get(full.name) is None, "get() found what was never put"
        assert not await self._registry.remove(full), "remove() removed what was never put"
        assert not await self._registry.replace(full, full), "replace() replaced nothing"
        assert await self._registry.get(full.name) is None, "replace() stored beside nothing"
        for record in (full, self._record(), evolve(full, heartbeat_at=1e9)):
            await self._registry.put(record)
            found = await self._other.get(record.name)
            assert found == record, f"put() stored {record}, get() found {found}"
        await self._clear(full)

    async def another_instance_is_left_alone(self) -> None:
        ours, other = self._record(), self._record(instance_id="other")
        await self._registry.put(other)
        assert not await self._registry.remove(ours), "remove() says it removed another instance's"
        assert not await self._registry.replace(ours, ours), "replace() replaced another instance's"
        found = await self._other.get(other.name)
        assert found == other, f"another instance's record was touched: {found}"
        stopping = evolve(other, state="stopping")
        await self._registry.put(stopping)
        assert await self._other.remove(other), "remove() minds the state"
        assert await self._registry.get(other.name) is None, "remove() has left it"
        assert not await self._registry.remove(other), "remove() removed it twice"

    async def only_the_expected_state_is_replaced(self) -> None:
        starting = self._record(state="starting")
        ready, stopping = evolve(starting, state="ready"), evolve(starting, state="stopping")
        await self._registry.put(starting)
        assert await self._other.replace(starting, ready), "replace() refused what it found"
        assert not await self._other.replace(starting, stopping), "replace() forgets the state"
        found = await self._registry.get(ready.name)
        assert found == ready, f"replace() that was refused has left {found}"
        seen = evolve(ready, heartbeat_at=5.0)
        assert await self._registry.replace(ready, seen), "replace() minds more than the state"
        for wrong in (stopping, evolve(seen, instance_id="new"), self._record("nobody")):
            confirmed = self._registry.confirms(wrong)
            assert not confirmed, f"confirms() says yes to {wrong}, and what is stored is {seen}"
        new = evolve(seen, instance_id="new", state="starting")
        assert await self._registry.replace(ready, new), "replace() minds the heartbeat"
        found = await self._other.get(new.name)
        assert found == new, f"replace() stored {new}, get() found {found}"
        await self._clear(new)

    async def daemons_are_in_order(self) -> None:
        records = [self._record(end) for end in ("b", "a", "é", "Z", "a b", "\U0001f41d", "\uff21")]
        for record in records:
            await self._registry.put(record)
        found = [r for r in await self._other.daemons() if r.name.startswith(self._prefix)]
        expected = sorted(records, key=lambda record: record.name)
        assert found == expected, f"daemons() gave {[record.name for record in found]}"
        await self._clear(*records)

    async def wrong_names_are_refused(self) -> None:
        for name in _NO_NAMES:
            calls = (self._registry.get, self._registry.find_claim, self._enter)
            for call in calls:
                try:
                    await call(name)
                except ConfigError:
                    continue
                raise AssertionError(f"{name!r} was taken for a name")

    async def one_at_a_time_has_the_claim(self) -> None:
        inside = most = entries = 0

        async def enter(view: Registry) -> None:
            nonlocal inside, most, entries
            async with view.claim(self._name("claimed")):
                inside += 1
                entries += 1
                most = max(most, inside)
                await trio.lowlevel.checkpoint()
                inside -= 1

        with trio.move_on_after(_PATIENCE_S):
            async with trio.open_nursery() as nursery:
                for number in range(_TASKS):
                    nursery.start_soon(enter, self._views[number % _VIEWS])
        assert most == 1, f"{most} tasks had the claim at once"
        assert entries == _TASKS, f"only {entries} of {_TASKS} tasks got the claim"

    async def a_waiter_can_leave(self) -> None:
        name = self._name("claimed")
        async with self._registry.claim(name):
            for view in self._views:
                got = await self._gets(view, name, within_s=_WATCHED_S)
                assert not got, "a claim was given twice"
            other = await self._gets(self._other, self._name("other"), within_s=_PATIENCE_S)
            assert other, "one claim keeps another name's from others"
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "waiters that were cancelled keep the claim"

    async def the_claim_is_free_after_its_block(self) -> None:
        name = self._name("claimed")
        left = None
        try:
            async with self._registry.claim(name):
                raise _LeavingError
        except _LeavingError as error:
            left = error
        assert left is not None, "claim() ate the exception of its block"
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "the claim is not free after an exception"
        with trio.CancelScope() as scope:
            async with self._registry.claim(name):
                scope.cancel()
                await trio.lowlevel.checkpoint()
        got = await self._gets(self._other, name, within_s=_PATIENCE_S)
        assert got, "the claim is not free after a cancellation"

    async def the_holder_is_found(self) -> None:
        name = self._name("claimed")
        assert await self._registry.find_claim(name) is None, "find_claim() found nobody's claim"
        async with self._registry.claim(name):
            holder = await self._other.find_claim(name)
            assert holder is not None, "find_claim() did not find the holder"
            other = await self._other.find_claim(self._name("other"))
            assert other is None, "find_claim() found another name's claim"
            again = await self._other.find_claim(name)
            assert again == holder, "find_claim() disturbs the claim"
        assert await self._registry.find_claim(name) is None, "find_claim() found who has left"

    async def a_watch_sees_each_change(self) -> None:
        first, second = self._record("first"), self._record("second")
        await self._registry.put(first)
        watch = self._other.watch()
        await self._expect(watch, first)
        ready = evolve(second, heartbeat_at=5.0)
        await self._registry.put(second)
        await self._expect(watch, second)
        await self._registry.replace(second, ready)
        await self._expect(watch, ready)
        await self._registry.remove(first)
        await self._expect(watch, first, removed=True)
        # In the order in which they happened, whatever the names are.
        await self._registry.remove(ready)
        await self._registry.put(first)
        await self._expect(watch, ready, removed=True)
        await self._expect(watch, first)
        # A wait for news can be left.
        with trio.move_on_after(_WATCHED_S):
            await self._next(watch)
        await self._clear(first)

    async def _expect(
        self, watch: AsyncIterator[RecordChange], record: DaemonRecord, *, removed: bool = False
    ) -> None:
        expected = RecordChange(record, removed)
        change = None
        with trio.move_on_after(_PATIENCE_S):
            change = await self._next(watch)
        assert change == expected, f"watch() gave {change} in the place of {expected}"

    async def _next(self, watch: AsyncIterator[RecordChange]) -> RecordChange:
        while True:
            change = await anext(watch)
            if change.record.name.startswith(self._prefix):
                return change

    async def _gets(self, view: Registry, name: str, *, within_s: float) -> bool:
        """Whether a claim is given in time."""
        got = False
        with trio.move_on_after(within_s):
            async with view.claim(name):
                got = True
        return got

    async def _enter(self, name: str) -> None:
        async with self._registry.claim(name):
            pass

    async def _clear(self, *records: DaemonRecord) -> None:
        for record in records:
            assert await self._registry.remove(record), f"remove() did not find {record.name}"

    def _name(self, end: str) -> str:
        return self._prefix + end

    def _record(self, end: str = "daemon", **changes: object) -> DaemonRecord:
        usual: dict[str, object] = {
            "name": self._name(end),
            "instance_id": "instance",
            "host": "machine",
            "boot_id": "boot",
            "pid": 4242,
            "start_time": 1000,
            "started_at": 1.5,
            "heartbeat_at": 2.5,
        }
        return DaemonRecord(**(usual | changes))  # type: ignore[arg-type]


class _LeavingError(Exception):
    """Leaves a block."""
