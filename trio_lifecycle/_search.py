"""The search for a daemon that runs already, and the proof that it is the right one."""

import logging
from typing import Final, NamedTuple

import trio
from attrs import evolve

from trio_lifecycle._checks import awaited_after
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._diary import Diary
from trio_lifecycle._entry import Entry, Recorded, recorded_ladder
from trio_lifecycle._errors import BinaryNotFoundError, DaemonStateUnknownError, ForeignDaemonError
from trio_lifecycle._events import ConfigChanged
from trio_lifecycle._fingerprint import differences
from trio_lifecycle._ladder import KILL_PATIENCE_S, StopLadder
from trio_lifecycle._polling import next_interval
from trio_lifecycle._preparation import arm_again, make_start
from trio_lifecycle._record_errors import ConfigChangedError
from trio_lifecycle._recovery import Recovery
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._states import State
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import (
    ArmedReady,
    DaemonRecord,
    Observer,
    Preflight,
    Prober,
    Process,
    Registry,
    Report,
    Sighting,
    Spawner,
    Verdict,
)

_log: Final = logging.getLogger("trio_lifecycle")

NOTHING_STARTED: Final = "nothing was started, so that there are never two"

# Between two looks at a daemon that somebody else is starting.
_LOOK_INTERVAL_S: Final = 0.1


class Collaborators(NamedTuple):
    """Who works for a lifecycle: everything that is not a property of the daemon."""

    spawner: Spawner
    prober: Prober
    preflight: tuple[Preflight, ...]
    observer: Observer | None
    registry: Registry | None


class Adoptee(NamedTuple):
    """A daemon that runs already and is the right one.

    Attributes:
        process: Its process.
        report: What is known of it.
        armed: Asks it again; None where being alive must do.
        record: Its record, if it was found by that.
    """

    process: Process
    report: Report
    armed: ArmedReady | None
    record: DaemonRecord | None


class Search:
    """One search of one attempt."""

    def __init__(
        self, config: LifecycleConfig, by: Collaborators, entry: Entry | None, diary: Diary
    ) -> None:
        self._config = config
        self._by = by
        self._entry = entry
        self._diary = diary

    # --- by its record ---

    async def find_recorded(self, *, claimed: bool) -> Adoptee | None:
        """Find the daemon by its record.

        Args:
            claimed: Whether this program has the right to start it. Without, only a daemon that is
                up is given; with it, what is neither up nor gone is brought to one of them.

        Raises:
            ConfigChangedError: It was started from another configuration.
            DaemonStateUnknownError: It can't be told whether it is up, or gone.
        """
        assert self._entry is not None
        recorded = await self._entry.look(
            self._config.name, self._by.spawner, self._diary, claimed=claimed
        )
        if recorded is None:
            return None
        if recorded.record.state == "ready" and not recorded.process.ended:
            return await self._take(recorded, claimed=claimed)
        if not claimed:
            return None
        if recorded.process.ended and recorded.record.state != "stopping":
            # It has died, and left something behind.
            await self._end(recorded, recorded_ladder(recorded.record))
            return None
        if recorded.record.state == "starting":
            return await self._finish_start(recorded)
        await self._finish_stop(recorded)
        return None

    async def _take(self, recorded: Recorded, *, claimed: bool) -> Adoptee | None:
        record, policy = recorded.record, self._config.on_change
        changed = differences(record.fingerprint, self._config.fingerprint)
        if changed and policy == "restart" and not claimed:
            return None
        if changed:
            self._diary.note(ConfigChanged, pid=record.pid, fields=changed, action=policy)
            if self._by.observer is None and policy == "keep":
                # Two daemons of one name are a mistake that nobody would hear of.
                _log.warning(
                    "%s runs as process %d, started with other %s, and is used as it is",
                    *(record.name, record.pid, ", ".join(changed)),
                )
        if changed and policy == "error":
            raise ConfigChangedError(self._config.name, record.pid, changed)
        if changed and policy == "restart":
            await self._end(recorded, recorded_ladder(recorded.record))
            return None
        # What it was not started for can't be asked of it: then being alive must do.
        armed: ArmedReady | None = None
        if "ready_mode" not in changed:
            armed = await self._arm_again(record.instance_id, record.port)
        found = await self._await_answer(recorded, armed)
        if found is None or await self._is_still_said(record):
            return found
        # Asked to go, while it was asked whether it is up. With the claim, that is waited for.
        return await self.find_recorded(claimed=True) if claimed else None

    async def _is_still_said(self, record: DaemonRecord) -> bool:
        assert self._entry is not None
        now = await self._entry.registry.get(record.name)
        return now is not None and now.is_about_same(record)

    async def _finish_start(self, recorded: Recorded) -> Adoptee | None:
        """Wait for a daemon whose starter was killed.

        Where the ready mode can't be asked for that, nobody will ever know whether it is up; but
        nobody was given it either, so it is started anew.
        """
        about = (recorded.record.instance_id, recorded.record.port)
        start = make_start(self._config, *about, self._by.prober)
        armed = await self._config.ready_mode.arm_unfinished(start)
        if armed is None:
            await self._end(recorded, recorded_ladder(recorded.record))
            return None
        found = await self._await_answer(recorded, armed)
        if found is None:
            return None
        entry = self._entry_of(recorded.record)
        if not await entry.note_ready(found.process, found.report):
            # Somebody has just asked it to go.
            await self._finish_stop(recorded)
            return None
        return found._replace(record=entry.record)

    async def _finish_stop(self, recorded: Recorded) -> None:
        """Wait until a daemon that was asked to go is gone, or else see to it."""
        assert self._entry is not None
        ladder = recorded_ladder(recorded.record)
        with trio.move_on_after(ladder.seconds + KILL_PATIENCE_S):
            await recorded.process.wait_gone()
        if recorded.process.gone:
            await self._entry.drop(recorded.record, self._diary)
        else:
            # Whoever asked it to go was killed meanwhile, or did not insist.
            await self._end(recorded, StopLadder())

    async def _end(self, recorded: Recorded, ladder: StopLadder) -> None:
        record, process = recorded
        diary = Diary(
            *(record.name, record.instance_id, self._by.observer, State.READY),
            Secrets(self._config.secrets),
        )
        entry = self._entry_of(record)
        stopper = Stopper(
            process,
            ladder,
            diary,
            entry,
            Recovery(awaited_after(self._by.preflight, self._by.prober)),
        )
        await stopper.stop()
        await stopper.recovered()

    def _entry_of(self, record: DaemonRecord) -> Entry:
        assert self._entry is not None
        return Entry(self._entry.registry, record)

    async def _await_answer(self, recorded: Recorded, armed: ArmedReady | None) -> Adoptee | None:
        """Ask a daemon that lives until it says that it is up; None when it ends meanwhile."""
        assert self._entry is not None
        record, process = recorded
        report = Report(record.url, record.port, record.report)
        if armed is not None:
            answer = await await_answer(self._config, process, armed)
            if answer is None:
                await self._entry.drop(record, self._diary)
                return None
            report = evolve(answer, facts=record.report or answer.facts)
        return Adoptee(process, report, armed, record)

    async def _arm_again(self, instance_id: str, port: int | None) -> ArmedReady | None:
        return await arm_again(self._config, instance_id, port, self._by.prober)

    # --- by its address ---

    async def find_answering(self) -> Adoptee | None:
        """Find the daemon by who answers in its place, without any record.

        Raises:
            ForeignDaemonError: Somebody else answers.
            DaemonStateUnknownError: Something is there that is not up.
        """
        sighting = await self._look()
        if sighting is None:
            return None
        assert sighting.report is not None
        process = await self._owner_of(sighting)
        is_ours = sighting.accepted or await self._runs_our_program(process)
        if sighting.refused or not is_ours:
            raise await self._foreign(sighting)
        for other in sighting.others:
            if other.accepted is not True and await _is_foreign_to(process, other):
                raise await self._foreign(other)
        await self._insist_on_no_other_name(process, sighting)
        armed = await self._arm_again("", sighting.report.port)
        return Adoptee(process, sighting.report, armed, None)

    async def _insist_on_no_other_name(self, process: Process, sighting: Sighting) -> None:
        """Refuse one that is recorded as another daemon: one process has one name."""
        identity = process.identity
        if self._entry is None or identity is None:
            return
        for record in await self._entry.registry.daemons():
            if record.identity == identity and record.name != self._config.name:
                holder = await self._describe_owner(sighting)
                owner = f"{holder}, which is recorded as {record.name}"
                raise ForeignDaemonError(self._config.name, sighting.place, owner)

    async def _look(self) -> Sighting | None:
        """Look who answers.

        One that is there but not up gets the time that a spawn would get, unless it can be seen to
        be a stranger.
        """
        began = trio.current_time()
        look = self._config.ready_mode.find_running
        sighting = await look(self._by.prober)
        if sighting is not None and sighting.report is None and sighting.accepted is False:
            process = await self._owner_of(sighting)
            if await self._runs_our_program(process) is False:
                raise await self._foreign(sighting)
        with trio.move_on_at(began + self._config.ready_timeout):
            while sighting is not None and sighting.report is None:
                waited = trio.current_time() - began
                await trio.sleep(next_interval(waited, _LOOK_INTERVAL_S))
                sighting = await look(self._by.prober)
        if sighting is None or sighting.report is not None:
            return sighting
        raise DaemonStateUnknownError(
            self._config.name,
            f"{await self._describe_owner(sighting)} is there, but {sighting.detail}, for "
            f"{self._config.ready_timeout} s; {NOTHING_STARTED}",
        )

    async def _owner_of(self, sighting: Sighting) -> Process:
        return await self._by.prober.owner_of(*(sighting.address or ("", 0)))

    async def _foreign(self, sighting: Sighting) -> ForeignDaemonError:
        owner = await self._describe_owner(sighting)
        return ForeignDaemonError(self._config.name, sighting.place, owner)

    async def _runs_our_program(self, process: Process) -> bool | None:
        try:
            program = await self._by.spawner.find_binary(
                self._config.binary_name, self._config.search_path
            )
        except BinaryNotFoundError:
            return False
        return process.runs(program)

    async def _describe_owner(self, sighting: Sighting) -> str:
        if sighting.address is None:
            return "a program that can't be seen from here"
        return await self._by.prober.describe_owner(*sighting.address)


async def _is_foreign_to(process: Process, place: Sighting) -> bool:
    """Say whether it can be seen that another program answers in a place of the daemon."""
    if place.address is None or process.pid is None:
        return False
    return await process.listener_at(*place.address) is Verdict.FOREIGN


async def await_answer(
    config: LifecycleConfig, process: Process, armed: ArmedReady
) -> Report | None:
    """Ask a daemon that runs until it says that it is up.

    Returns:
        What it said; None when it has ended.

    Raises:
        DaemonStateUnknownError: It is alive, but was not up for ``ready_timeout``; or it can't be
            seen any more.
    """
    began = trio.current_time()
    with trio.move_on_at(began + config.ready_timeout):
        while not process.ended:
            report = await armed.ask(process)
            if report is not None:
                return report
            await process.look()
            waited = trio.current_time() - began
            await trio.sleep(next_interval(waited, _LOOK_INTERVAL_S))
        return None
    seen = Secrets(config.secrets).blot_out(armed.last_seen)
    problem = f"process {process.pid} is alive, but {seen}"
    raise DaemonStateUnknownError(config.name, f"{problem}; {NOTHING_STARTED}")
