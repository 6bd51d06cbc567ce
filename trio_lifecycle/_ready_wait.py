"""One wait for readiness: raced with the end of the process, and with the clocks."""

from typing import Final

import trio

from trio_lifecycle._clocks import LOOKS_AT_SILENCE, ReadyClocks
from trio_lifecycle._config import LifecycleConfig
from trio_lifecycle._diary import Diary
from trio_lifecycle._errors import (
    DiedBeforeReadyError,
    LifecycleError,
    ReadyError,
    ReadyTimeoutError,
    ReaperLostError,
    StallTimeoutError,
)
from trio_lifecycle._events import Said
from trio_lifecycle._handle import show_tail
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._sight import lost_from_sight
from trio_lifecycle._states import State
from trio_lifecycle._stop import Stopper
from trio_lifecycle.abc import ArmedReady, Process, Progress, Report

# While it has one of these states a daemon is heard.
_HEARD: Final = frozenset({State.WAITING, State.READY, State.STOPPING})


class ReadyWait:
    """The wait of one spawn.

    The end of the process wins over everything; at the end of a clock the mode is asked once more.
    """

    def __init__(self, config: LifecycleConfig, diary: Diary) -> None:
        self._config = config
        self._diary = diary
        # Cancelled when the process ends: nothing is to be waited for then.
        self._alive = trio.CancelScope()
        self._in_time = trio.CancelScope()
        self._process: Process | None = None
        self._clocks: ReadyClocks | None = None
        self._last_text = ""

    def begin(self, process: Process, began: float) -> None:
        """Take notice of the spawn: from now on the daemon is heard."""
        config = self._config
        self._process = process
        self._clocks = ReadyClocks(
            began, config.ready_timeout, config.stall_timeout, config.longest_ready_s
        )
        self._in_time.deadline = self._clocks.total_ends

    def give_up(self) -> None:
        """Wait no longer: the process has ended."""
        self._alive.cancel()

    def hear(self, progress: Progress) -> None:
        """Take what the daemon says of itself; the observer is told what is new."""
        if self._clocks is None or self._diary.state not in _HEARD:
            return
        now = trio.current_time()
        if progress.extend_s is not None:
            self._clocks.extend(now, progress.extend_s)
        self._clocks.note_life(now)
        self._in_time.deadline = self._clocks.total_ends
        # The same again is a sign of life, and no news.
        said = f"{progress.topic} {progress.text}"
        if said != self._last_text:
            self._last_text = said
            pid = None if self._process is None else self._process.pid
            self._diary.note(Said, pid=pid, topic=progress.topic, text=progress.text)

    @trio.lowlevel.enable_ki_protection
    async def listen(self) -> None:
        """Take output as a sign of life, and end the wait after too long a silence.

        It ends with the wait.
        """
        assert self._clocks is not None
        assert self._process is not None
        if self._config.stall_timeout is None:
            return
        pause_s = self._config.stall_timeout / LOOKS_AT_SILENCE
        while self._diary.state is State.WAITING and not self._process.ended:
            if self._is_silent() and await self._stays_silent():
                self._in_time.cancel()
                return
            left_s = self._clocks.due - trio.current_time()
            await trio.sleep(max(0.0, min(pause_s, left_s)))

    def _is_silent(self) -> bool:
        """Look whether it has shown no sign of life for too long."""
        assert self._clocks is not None
        assert self._process is not None
        if self._process.heard_at is not None:
            self._clocks.note_life(self._process.heard_at)
        return trio.current_time() >= self._clocks.due

    async def _stays_silent(self) -> bool:
        # What it wrote while this program was busy is there to be taken in: now is its turn.
        await trio.lowlevel.checkpoint()
        return self._is_silent()

    async def run(self, armed: ArmedReady, stopper: Stopper, began: float) -> Report:
        """Wait.

        Raises:
            DiedBeforeReadyError: The process has ended.
            ReaperLostError: It is guarded no longer.
            DaemonStateUnknownError: It can't be seen any more.
            ReadyTimeoutError: It was not ready in time.
            StallTimeoutError: It was not ready, and silent for too long.
            ForeignDaemonError: Somebody else answers in its place.
            ReadyError: It can't become ready any more.
        """
        assert self._process is not None
        process, report = self._process, None
        failure: Exception | None = None
        with self._alive:
            try:
                with self._in_time:
                    report = await armed.wait(process)
                if report is None:
                    report = await armed.ask(process)
            except Exception as error:
                failure = error
        # First: what answers may be another one, if this one can't be seen.
        is_unseen = stopper.note_unseen()
        if report is not None and process.lost is None and not (is_unseen or process.ended):
            return report
        waited_s = trio.current_time() - began
        tail = show_tail(process, self._config.secrets + armed.secrets)
        if process.lost is not None:
            stopper.note_death()
            raise ReaperLostError(self._config.name, None, 0.0, tail, process.lost)
        if process.ended:
            stopper.note_death()
            raise DiedBeforeReadyError(self._config.name, process.status, waited_s, tail)
        if is_unseen:
            when = "before it was ready"
            raise lost_from_sight(self._config.name, process, when, stopper.unseen)
        # A line of its output may be quoted; what it writes to a file itself nobody has blotted.
        secrets = Secrets(self._config.secrets)
        if isinstance(failure, ReadyError):
            failure.problem = secrets.blot_out(failure.problem)
            failure.output_tail = failure.output_tail or tail
        if failure is not None:
            raise failure
        raise self._late(waited_s, secrets.blot_out(armed.last_seen), tail)

    def _late(self, waited_s: float, last_seen: str, tail: str) -> LifecycleError:
        """Say which clock has ended."""
        assert self._clocks is not None
        name = self._config.name
        if self._clocks.first_to_end == "stall_timeout":
            silent_s = trio.current_time() - self._clocks.silent_since
            return StallTimeoutError(name, waited_s, silent_s, last_seen, tail)
        extended = waited_s > self._config.ready_timeout and self._clocks.is_at_its_limit
        return ReadyTimeoutError(name, waited_s, last_seen, tail, extended)
