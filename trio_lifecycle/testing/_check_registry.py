"""What every registry must do, as a check."""

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import trio
from attrs import evolve

from trio_lifecycle import ConfigError
from trio_lifecycle.abc import DaemonRecord, RecordChange, Registry
from trio_lifecycle.testing._check_claims import check_claims

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long a wait is watched that must not end.
_WATCHED_S = 0.1

# So many tasks change one record, through so many views.
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
    await check.what_others_changed_is_not_confirmed()
    await check.one_of_several_changes_it()
    await check.a_change_that_is_cancelled_is_whole_or_none()
    await check.daemons_are_in_order()
    await check.wrong_names_are_refused()
    await check.long_names_are_taken()
    await check.claims_are_exclusive()
    await check.a_watch_sees_each_change()


class _Check:
    """One check of one registry."""

    def __init__(self, make: Callable[[], Registry]) -> None:
        self._views = [make() for _ in range(_VIEWS)]
        self._registry, self._other, *_ = self._views
        self._prefix = f"checked-{uuid.uuid4().hex}-"

    async def what_is_put_is_found(self) -> None:
        full = self._record(
            start_time=2**62 + 1,
            pid_namespace=2**32,
            url="http://[::1]:8080/é?a=%00",
            port=8080,
            state="starting",
            log_file="/tmp/\udcff.log",
            fingerprint="args=1 env=2",
            stop_ladder=((15, 10.0), (9, 0.5)),
            report={"url": "x" * 10_000, "nested": [1, 2.5, None, {"é": True}]},
            seen_alive=2**62 + 3,
            owner_pid=4243,
            owner_start_time=2**62 + 5,
            started_at=1_795_439_026.468398,
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
        await self._registry.put(evolve(other, state="stopping"))
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
            self._is_not_confirmed(wrong, seen)
        named = self._record("other")
        try:
            await self._registry.replace(seen, named)
        except ConfigError:
            pass
        else:
            raise AssertionError(f"replace() put {named.name} in the place of {seen.name}")
        new = evolve(seen, instance_id="new", state="starting")
        assert await self._registry.replace(ready, new), "replace() minds the heartbeat"
        found = await self._other.get(new.name)
        assert found == new, f"replace() stored {new}, get() found {found}"
        await self._clear(new)

    async def what_others_changed_is_not_confirmed(self) -> None:
        ready = self._record()
        stopping, new = evolve(ready, state="stopping"), evolve(ready, instance_id="new")
        await self._registry.put(ready)
        await self._registry.get(ready.name)
        await self._other.replace(ready, stopping)
        self._is_not_confirmed(ready, stopping)
        await self._registry.get(ready.name)
        await self._other.put(new)
        self._is_not_confirmed(stopping, new)
        await self._registry.get(ready.name)
        await self._other.remove(new)
        self._is_not_confirmed(new, None)

    async def one_of_several_changes_it(self) -> None:
        old = self._record()
        await self._registry.put(old)
        new = [evolve(old, instance_id=f"new-{number}") for number in range(_TASKS)]
        done = await self._at_once(lambda view, number: view.replace(old, new[number]))
        assert len(done) == 1, f"replace() of one record was done {len(done)} times at once"
        found = await self._other.get(old.name)
        assert found == new[done[0]], f"replace() stored {new[done[0]]}, get() found {found}"
        done = await self._at_once(lambda view, number: view.remove(new[done[0]]))
        assert len(done) == 1, f"remove() of one record was done {len(done)} times at once"

    async def _at_once(self, call: Callable[[Registry, int], Awaitable[bool]]) -> list[int]:
        """Let many tasks call something at once; give the numbers of those who had success."""
        done = []

        async def run(number: int) -> None:
            if await call(self._views[number % _VIEWS], number):
                done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(_TASKS):
                nursery.start_soon(run, number)
        return done

    async def a_change_that_is_cancelled_is_whole_or_none(self) -> None:
        old = self._record(state="starting")
        new = evolve(old, state="ready")
        changes: tuple[tuple[Callable[[], Awaitable[object]], DaemonRecord | None], ...] = (
            (lambda: self._registry.put(new), new),
            (lambda: self._registry.replace(old, new), new),
            (lambda: self._registry.remove(old), None),
        )
        for change, result in changes:
            await self._registry.put(old)
            with trio.CancelScope() as scope:
                scope.cancel()
                await change()
            found = await self._other.get(old.name)
            assert found in (old, result), f"a change that was cancelled has left {found}"
        await self._registry.remove(old)

    async def daemons_are_in_order(self) -> None:
        # Some differ in the case only, or are other bytes of what looks the same.
        ends = ("b", "B", "a", "é", "e\u0301", "Z", "a b", "\U0001f41d", "\uff21")
        records = [self._record(end) for end in ends]
        records += [self._record(state, state=state) for state in ("starting", "stopping")]
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

    async def long_names_are_taken(self) -> None:
        record = self._record("x" * (200 - len(self._prefix)))
        try:
            await self._registry.put(record)
            found = await self._other.get(record.name)
            await self._enter(record.name)
            await self._registry.find_claim(record.name)
        except ConfigError as error:
            raise AssertionError(f"a name of 200 bytes was refused: {error}") from error
        assert found == record, f"put() stored {record}, get() found {found}"
        await self._clear(record)

    async def claims_are_exclusive(self) -> None:
        await check_claims(self._views, self._prefix)

    async def a_watch_sees_each_change(self) -> None:
        first, second = self._record("first"), self._record("second")
        await self._registry.put(first)
        watch, another = self._other.watch(), self._other.watch()
        await self._expect(watch, first)
        await self._expect(another, first)
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
        await self._clear(first)
        await self._expect(watch, first, removed=True)
        await self._leave_a_wait(watch)
        await self._registry.put(second)
        await self._expect(watch, second)
        await self._clear(second)
        await self._expect(watch, second, removed=True)
        await self._leave_a_wait(watch, for_=first)
        await self._clear(first)

    async def _leave_a_wait(
        self, watch: AsyncIterator[RecordChange], *, for_: DaemonRecord | None = None
    ) -> None:
        """Cancel a wait for news, also in the moment in which one comes."""
        seen = []

        async def wait() -> None:
            seen.append(await self._next(watch))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.sleep(_WATCHED_S)
            if for_ is not None:
                await self._registry.put(for_)
            nursery.cancel_scope.cancel()
        if for_ is not None and not seen:
            await self._expect(watch, for_)

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
            try:
                change = await anext(watch)
            except StopAsyncIteration:
                raise AssertionError("watch() has ended") from None
            if change.record.name.startswith(self._prefix):
                return change

    def _is_not_confirmed(self, record: DaemonRecord, stored: DaemonRecord | None) -> None:
        try:
            confirmed = self._registry.confirms(record)
        except Exception as error:
            raise AssertionError(f"confirms() raised {error!r}") from error
        assert not confirmed, f"confirms() says yes to {record}, and what is stored is {stored}"

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
