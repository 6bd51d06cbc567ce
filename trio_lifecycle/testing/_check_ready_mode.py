"""What every ready mode must do, as a check."""

import math
import os
import pickle
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import trio

from trio_lifecycle._markers import markers_in
from trio_lifecycle.abc import ArmedReady, ReadyMode, Report, Start
from trio_lifecycle.ready._compose import at_once
from trio_lifecycle.testing._daemon import SimulatedDaemon
from trio_lifecycle.testing._incarnation import HANGS
from trio_lifecycle.testing._spawner import SimulatedProcess, SimulatedSpawner

# How long the check waits for what must happen soon, before it calls it missing.
_PATIENCE_S = 10.0

# How long a wait is watched that must not end. It is cancelled then, and watched once more.
_WATCHED_S = 0.1

# How soon what is cancelled has to end, even on a machine with much else to do. It is also what a
# lifecycle gives a mode to let go.
_LEAVING_S = 1.0

# For how long a mode that is ready at once must hold: a word that is forgotten is found by that.
_STABLE_S = 0.01


async def check_ready_mode(mode: ReadyMode, *, waits: bool = True) -> None:
    """Hold a ready mode to its contract.

    The daemon of the check takes connections, but says nothing and answers nothing, so a mode is
    seen to wait, to be cancelled, to serve two spawns at once, and to leave nothing behind. That it
    hears a daemon is for a test of its own.

    Args:
        mode: The mode.
        waits: False for a mode that is ready at once.

    Raises:
        AssertionError: It does not keep the contract; the message says where.
    """
    check = _Check(mode, waits)
    check.it_is_a_value()
    check.its_markers_are_known()
    try:
        # What it loads with the first use stays open, and is no leak.
        await check.it_can_be_disarmed_unused()
        before = _open_descriptors()
        await check.it_can_be_disarmed_unused()
        check.nothing_is_left(before, "after a spawn that failed")
        await check.several_spawns_do_not_meet()
        check.nothing_is_left(before, "after it was disarmed")
    finally:
        await check.let_go()  # noqa: ASYNC102  # it shields itself, and is bounded


class _Check:
    """One check of one ready mode."""

    def __init__(self, mode: ReadyMode, waits: bool) -> None:
        self._mode = mode
        self._waits = waits
        self._spawns: list[_Spawn] = []

    async def _arm(self, mode: ReadyMode, port: int) -> "_Spawn":
        spawn = await _Spawn.arm(mode, port)
        self._spawns.append(spawn)
        return spawn

    async def let_go(self) -> None:
        """Leave nothing of a check that has failed; disarming twice is no mistake."""
        for spawn in self._spawns:
            # Shielded, for the check may have been cancelled; a mode that is broken may hang here.
            with trio.move_on_after(_LEAVING_S, shield=True), suppress(Exception):
                await spawn.armed.disarm()

    def it_is_a_value(self) -> None:
        mode = self._mode
        assert mode == mode, "it does not equal itself"
        assert hash(mode) == hash(mode), "its hash changes"
        assert mode == pickle.loads(pickle.dumps(mode)), "its copy does not equal it"
        assert "\0" not in repr(mode), "a marker shows as NUL in repr()"
        assert mode.kind, "kind is empty"
        assert isinstance(mode.channels, frozenset), "channels is no frozenset"
        assert mode.longest_interval_s >= 0, "its interval is negative"
        assert 0 <= mode.shortest_wait_s < math.inf, "shortest_wait_s is no time that ends"

    def its_markers_are_known(self) -> None:
        used, told = markers_in(_texts_in(self._mode)), markers_in(self._mode.texts)
        names = ", ".join(sorted(marker.name for marker in used - told))
        assert used <= told, f"{names} stands in a field, but not in texts"

    async def it_can_be_disarmed_unused(self) -> None:
        one = await self._arm(self._mode, 8080)
        await one.disarm()
        await one.disarm()

    def nothing_is_left(self, before: int, when: str) -> None:
        left = _open_descriptors() - before
        assert left <= 0, f"{left} descriptors were left open {when}"

    async def several_spawns_do_not_meet(self) -> None:
        """Use it for three spawns at once; in one of them it must hold."""
        one, other = await self._arm(self._mode, 8080), await self._arm(self._mode, 8081)
        stable = await self._arm(self._mode.stable_for(_STABLE_S), 8082)
        for spawn in (one, other, stable):
            spawn.check_what_is_given(self._mode)
        for first, second in ((one, other), (one, stable), (other, stable)):
            first.check_against(second, self._mode)
        # One is a spawn that fails: the others must not notice.
        other.begin()
        await other.disarm()
        one.check_is_open()
        one.begin()
        stable.begin()
        shortest_s = self._mode.shortest_wait_s
        await at_once(
            partial(spawn.check_waits, self._waits, least_s)
            for spawn, least_s in ((one, shortest_s), (stable, shortest_s + _STABLE_S))
        )
        await one.check_questions(self._waits)
        await one.check_follow()
        one.check_secrets(self._mode)
        for spawn in (one, stable):
            await spawn.disarm()
            await spawn.disarm()
            spawn.check_is_closed()


class _Spawn:
    """The mode at work for one daemon, which is silent."""

    def __init__(self, armed: ArmedReady, process: SimulatedProcess) -> None:
        self.armed = armed
        self._process = process
        self._here = {number: _file_at(number) for number in armed.descriptors.values()}

    @classmethod
    async def arm(cls, mode: ReadyMode, port: int) -> "_Spawn":
        silent = SimulatedDaemon(health=[(0.0, HANGS)], port=port)
        prober = SimulatedSpawner(silent).open_prober()
        start = Start(name="checked", instance_id=f"{port:032}", port=port, prober=prober)
        with trio.fail_after(_PATIENCE_S):
            armed = await mode.arm(start)
        return cls(armed, SimulatedProcess(silent.start()))

    def check_what_is_given(self, mode: ReadyMode) -> None:
        armed = self.armed
        assert mode.markers == armed.values.keys(), "values does not fit markers"
        for text in (*armed.env, *armed.env.values(), *armed.values.values()):
            assert "\0" not in text, "a NUL is to be put into the daemon's arguments or environment"
        assert armed.last_seen, "last_seen is empty before the wait"
        for number in armed.descriptors:
            assert number > 2, f"descriptor {number} is the daemon's standard input or output"
        self.check_is_open()
        named = mode.channels or mode.markers
        assert named or not (armed.env or armed.descriptors), (
            "it gives the daemon variables or descriptors, but no channels: "
            "two of its kind would be composed, and one never heard"
        )

    def check_is_open(self) -> None:
        for number, file in self._here.items():
            is_open = file is not None and file == _file_at(number)
            assert is_open, f"descriptor {number} is not open here before begin()"

    def check_is_closed(self) -> None:
        for number, file in self._here.items():
            assert file != _file_at(number), f"descriptor {number} is open after disarm()"

    def check_against(self, other: "_Spawn", mode: ReadyMode) -> None:
        ours, theirs = self.armed, other.armed
        assert not self._here.keys() & other._here.keys(), "two spawns get the same descriptor"
        # What stands in the mode itself was given by its user, and is the same each time.
        given = "\0".join(_texts_in(mode))
        made = {secret for secret in ours.secrets if secret not in given}
        assert not made & {*theirs.secrets}, "two spawns have the same secret"
        for what, one, two in _shared(ours, theirs, mode):
            assert one != two, f"two spawns get the same {what}"

    def begin(self) -> None:
        self.armed.begin(self._process)

    async def check_waits(self, waits: bool, shortest_s: float) -> None:
        took = await self.check_wait(waits, shortest_s)
        # A sum of floats may fall short of itself.
        assert took >= (0 if waits else 0.999 * shortest_s), "it was ready before shortest_wait_s"
        # Where several modes must hold, one is waited for again.
        await self.check_wait(waits, shortest_s)

    async def check_wait(self, waits: bool, shortest_s: float) -> float:
        report: Report | None = None
        began = trio.current_time()
        with trio.move_on_after(_WATCHED_S + (0 if waits else shortest_s)):
            report = await self.armed.wait(self._process)
        took = trio.current_time() - began
        assert (report is None) == waits, f"wait() gave {report!r}"
        assert not waits or took < _WATCHED_S + _LEAVING_S, "wait() goes on when it is cancelled"
        assert self.armed.last_seen, "last_seen is empty after the wait"
        shown = f"{self.armed.last_seen} {self.armed.awaited} {report!r}"
        assert "\0" not in shown, "a marker has no value in what is shown"
        return took

    async def check_questions(self, waits: bool) -> None:
        for _ in range(2):
            with trio.fail_after(_PATIENCE_S):
                asked = await self.armed.ask(self._process)
            assert (asked is None) == waits, f"ask() gave {asked!r}"

    async def check_follow(self) -> None:
        if not self.armed.follows:
            return
        began = trio.current_time()
        with trio.move_on_after(_WATCHED_S):
            await self.armed.follow(self._process)
        took = trio.current_time() - began
        assert took < _WATCHED_S + _LEAVING_S, "follow() goes on when it is cancelled"

    def check_secrets(self, mode: ReadyMode) -> None:
        for secret in self.armed.secrets:
            assert secret not in self.armed.last_seen, "a secret shows in last_seen"
            assert secret not in self.armed.awaited, "a secret shows in awaited"
            assert secret not in repr(mode), "a secret shows in repr()"

    async def disarm(self) -> None:
        began = trio.current_time()
        with trio.move_on_after(_LEAVING_S):
            await self.armed.disarm()
        assert trio.current_time() - began < _LEAVING_S, f"disarm() takes over {_LEAVING_S} s"


def _shared(
    ours: ArmedReady, theirs: ArmedReady, mode: ReadyMode
) -> Iterator[tuple[str, object, object]]:
    """Give what must differ between two spawns."""
    for marker in mode.markers:
        yield f"value of {marker.name}", ours.values.get(marker), theirs.values.get(marker)
    for channel in mode.channels & ours.env.keys():
        yield channel, ours.env.get(channel), theirs.env.get(channel)


def _texts_in(value: object) -> Iterator[str]:
    """Give all texts in the fields of a value, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts_in((*value, *value.values()))
    elif isinstance(value, (tuple, list, set, frozenset)):
        for part in value:
            yield from _texts_in(part)
    else:
        fields = getattr(type(value), "__attrs_attrs__", ())
        yield from _texts_in([getattr(value, one.name) for one in fields])


def _file_at(descriptor: int) -> tuple[int, int] | None:
    """Say what is open there: a number may be given to something else."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open_descriptors() -> int:
    # Fewer are no finding: something else may have been collected meanwhile.
    return len(list(Path("/dev/fd").iterdir()))
