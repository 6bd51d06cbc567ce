"""A daemon's entry in a registry: looked up, claimed, written and taken back."""

import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

import trio
from attrs import evolve

from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._diary import Diary
from trio_lifecycle._errors import ConfigError, LifecycleError
from trio_lifecycle._events import ClaimAwaited, RecordStale
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, StopLadder
from trio_lifecycle._machine import now_in_ticks, own_start_time, this_boot
from trio_lifecycle._proc import read_stat
from trio_lifecycle._record_errors import ClaimTimeoutError
from trio_lifecycle.abc import DaemonRecord, Process, Registry, Report, Spawner

# Most claims are free at once. Only of one that is not, an event tells.
_SAY_SO_AFTER_S: Final = 0.25


class Recorded(NamedTuple):
    """A daemon that a registry remembers, and that lives."""

    record: DaemonRecord
    process: Process


class Entry:
    """What one attempt, or one handle, does with the record of its daemon.

    Attributes:
        record: The record of the daemon that it is about, as it was last written or read here; None
            as long as there is none.
    """

    def __init__(self, registry: Registry, record: DaemonRecord | None = None) -> None:
        self.registry = registry
        self.record = record

    # --- the right to start it ---

    @asynccontextmanager
    async def claimed(
        self, config: LifecycleConfig, diary: Diary | None = None
    ) -> AsyncIterator[None]:
        """Hold the right to start the daemon.

        Args:
            config: The daemon's.
            diary: Hears of it if that takes a while.

        Raises:
            ClaimTimeoutError: Another program had it for too long.
        """
        name, limit_s = config.name, config.longest_claim_s
        began = trio.current_time()
        async with AsyncExitStack() as stack:
            with trio.move_on_at(began + min(limit_s, _SAY_SO_AFTER_S)) as patience:
                await stack.enter_async_context(self.registry.claim(name))
            if patience.cancelled_caught:
                holder = await self.registry.find_claim(name)
                if diary is not None:
                    diary.note(ClaimAwaited, holder_pid=None if holder is None else holder.pid)
                with trio.move_on_at(began + limit_s) as patience:
                    await stack.enter_async_context(self.registry.claim(name))
            if patience.cancelled_caught:
                waited_s = trio.current_time() - began
                holder = await self.registry.find_claim(name)
                raise ClaimTimeoutError(name, waited_s, *(holder or (None, None)))
            yield

    # --- what is remembered ---

    async def look(
        self, name: str, spawner: Spawner, diary: Diary, *, claimed: bool
    ) -> Recorded | None:
        """Find the daemon that is recorded; the record of one that is gone is removed.

        That of one that is gone while it was starting, only by who has the claim: its starter, who
        has it, tells by its record whether somebody has stopped it.

        Raises:
            DaemonStateUnknownError: Whether it lives can't be told.
        """
        record = await self.registry.get(name)
        if record is None:
            return None
        process = await spawner.find_process(record)
        if process is None or process.gone:
            if claimed or record.state != "starting":
                await self.drop(record, diary)
            return None
        if has_lost_its_owner(record):
            # Its owner was killed, and it is being ended at this moment.
            record = evolve(record, state="stopping")
        return Recorded(record, process)

    async def drop(self, record: DaemonRecord, diary: Diary) -> None:
        """Remove the record of a process that is gone."""
        if await self.registry.remove(record):
            diary.note(RecordStale, pid=record.pid)

    async def verify(self, known: DaemonRecord, config: LifecycleConfig) -> bool:
        """Say whether a daemon that lives is recorded, and up.

        A record that somebody has removed all the same, registry and all, is written again.
        """
        now = await self.registry.get(known.name)
        if now is None:
            async with self.claimed(config):
                now = await self.registry.get(known.name)
                if now is None:
                    await self.registry.put(known)
                    return True
        return now.is_about_same(known)

    # --- what is written ---

    async def note_started(
        self, config: LifecycleConfig, process: Process, instance_id: str, port: int | None
    ) -> None:
        """Record a process that stands at its gate; where it can't be told again, it has none."""
        described = _describe(config, process, instance_id)
        if described is not None:
            # Noted before it is written: a cancellation may come between the two.
            self.record = evolve(described, state="starting", port=port)
            await self.registry.put(self.record)

    async def note_found(
        self, config: LifecycleConfig, process: Process, instance_id: str, report: Report
    ) -> None:
        """Record a daemon that ran already without a record."""
        described = _describe(config, process, instance_id)
        if described is not None:
            # What it was started with is not known.
            self.record = evolve(_with_report(described, process, report), fingerprint="")
            await self.registry.put(self.record)

    async def note_ready(self, process: Process, report: Report) -> bool:
        """Say that it is up; who does so holds the claim.

        Returns:
            False when its record is about another state or instance by now: it was asked to go.
        """
        if self.record is None:
            return True
        ready = _with_report(self.record, process, report)
        if not await self.registry.replace(self.record, ready):
            now = await self.registry.get(self.record.name)
            if now is None and not process.ended:
                # Somebody has removed it, registry and all; who stops it waits for its end first.
                await self.registry.put(ready)
            elif now is not None and now.is_about_same(ready):
                # Its starter has said so in the last moment.
                ready = now
            else:
                return False
        self.record = ready
        return True

    async def was_stopped(self) -> bool:
        """Say whether one that has ended was asked to go."""
        if self.record is None:
            return False
        try:
            now = await self.registry.get(self.record.name)
        except LifecycleError:
            # How it ended is to be told, not that this can't be.
            return False
        # Whoever stops it removes its record; one that dies by itself leaves it.
        return now is None or not now.is_about_same(self.record)

    async def note_stopping(self, ladder: StopLadder) -> None:
        """Say that it was asked to go, so that nobody is given it any more."""
        while self.record is not None:
            # Whoever started it may have noted something meanwhile.
            now = await self.registry.get(self.record.name)
            if now is None or now.instance_id != self.record.instance_id:
                return
            self.record = evolve(now, state="stopping", stop_ladder=_pairs(ladder))
            if now.state == "stopping" or await self.registry.replace(now, self.record):
                return

    async def forget(self) -> None:
        """Remove its record: it is gone."""
        if self.record is not None:
            await self.registry.remove(self.record)
            self.record = None


def _describe(config: LifecycleConfig, process: Process, instance_id: str) -> DaemonRecord | None:
    identity = process.identity
    if identity is None:
        return None
    goes_with_us = process.guarantee in ("guarded", "contained")
    now = time.time()
    return DaemonRecord(
        name=config.name,
        instance_id=instance_id,
        **identity._asdict(),
        log_file=None if process.log_file is None else str(process.log_file),
        fingerprint=config.fingerprint,
        stop_ladder=_pairs(config.stop_ladder),
        owner_pid=os.getpid() if goes_with_us else None,
        owner_start_time=own_start_time() if goes_with_us else 0,
        started_at=now,
        heartbeat_at=now,
    )


def has_lost_its_owner(record: DaemonRecord) -> bool:
    """Say whether a daemon that goes with its owner has one no more."""
    if record.owner_pid is None or record.boot_id != this_boot():
        return False
    stat = read_stat(record.owner_pid)
    return stat is None or stat.dead or stat.start_time != record.owner_start_time


def _pairs(ladder: StopLadder) -> tuple[tuple[int, float], ...]:
    return tuple((int(rung.signum), rung.seconds) for rung in ladder.rungs)


def recorded_ladder(record: DaemonRecord) -> StopLadder:
    """Give the ladder by which a daemon is to be stopped, or is being stopped."""
    try:
        return StopLadder(*record.stop_ladder)
    except ConfigError:
        # Written by a system that has other signals.
        return DEFAULT_STOP_LADDER


def _with_report(record: DaemonRecord, process: Process, report: Report) -> DaemonRecord:
    # In this order: one that has not ended lived when the time was taken.
    now = process.seen_alive or now_in_ticks()
    return evolve(
        record,
        seen_alive=record.seen_alive if process.ended else now,
        state="ready",
        url=report.url,
        port=report.port,
        report=report.facts,
        heartbeat_at=time.time(),
    )
