"""Ready as another mode says, unless a line of the output says that it never will be."""

import re

import trio
from attrs import field, frozen

from trio_lifecycle._armed_contract import ArmedThrough
from trio_lifecycle._errors import ReadyError
from trio_lifecycle._ready_contract import ModeThrough, check_mode
from trio_lifecycle.abc import ArmedReady, Hearing, Process, ReadyMode, Report, Start
from trio_lifecycle.ready._compose import at_once
from trio_lifecycle.ready._log_line import (
    LONGEST_SEARCHED_CHARS,
    Pattern,
    check_pattern,
    compile_pattern,
    quote_line,
    show_pattern,
    text_of,
)


def _fatal(value: Pattern) -> Pattern:
    return check_pattern("fatal", value)


@frozen
class UnlessLine(ModeThrough):
    """Ready when another mode says so, unless a line of the output says that it has failed.

    For a daemon that stays alive when it can't serve, such as one that logs ``bind failed`` and
    tries again for ever: ``UnlessLine(HealthCheck(url), "bind.*failed")``. Such a line, at any
    moment until the daemon is ready, ends the wait at once with ``ReadyError``. ``LogLine`` has
    ``fatal=`` for the same where a line is what is waited for.

    Attributes:
        mode: What says when it is ready.
        fatal: What means that it will never be, as the pattern of ``LogLine``. Too wide, it kills a
            daemon that only complained.
    """

    mode: ReadyMode = field(converter=check_mode)
    fatal: Pattern = field(converter=_fatal, repr=show_pattern)

    @property
    def texts(self) -> tuple[str, ...]:
        """Those of the mode, and the pattern."""
        return (*self.mode.texts, text_of(self.fatal))

    async def arm(self, start: Start) -> "ArmedUnlessLine":
        """Arm the mode, and fill in the port."""
        fatal = compile_pattern(self.fatal, start.port)
        return ArmedUnlessLine(await self.mode.arm(start), start, fatal)

    async def arm_unfinished(self, start: Start) -> None:
        """Nobody knows any more what it wrote."""


class ArmedUnlessLine(ArmedThrough):
    """Another mode of one spawn, and the lines that may end its wait."""

    def __init__(self, armed: ArmedReady, start: Start, fatal: re.Pattern[str]) -> None:
        super().__init__(armed)
        self._start = start
        self._before = ""
        self._fatal = fatal
        self._doom: str | None = None
        self._doomed = trio.Event()
        self._hearing: Hearing | None = None

    def begin(self, process: Process) -> None:
        """Hear from the first line on."""
        self._hearing_of(process)
        super().begin(process)

    def _hear(self, lines: list[str]) -> None:
        for line in lines:
            if self._doom is None and self._fatal.search(line, 0, LONGEST_SEARCHED_CHARS):
                self._doom = quote_line(self._start, line, self._before)
                self._doomed.set()
            self._before = line

    async def wait(self, process: Process) -> Report:
        """Wait for the mode, as long as there is hope."""
        report: Report | None = None

        async def wait() -> bool:
            nonlocal report
            report = await self._armed.wait(process)
            return True

        async def fail() -> bool:
            await self._doomed.wait()
            return True

        await at_once([self._hearing_of(process).run, wait, fail])
        self._insist_on_hope(process)
        assert report is not None
        return report

    async def ask(self, process: Process) -> Report | None:
        """Look at what is written already, and ask the mode."""
        self._insist_on_hope(process)
        report = await self._armed.ask(process)
        self._insist_on_hope(process)
        return report

    def note_ready(self) -> None:
        """Hear no more: a line from now on is no failure."""
        self._close_hearing()
        super().note_ready()

    async def disarm(self) -> None:
        """Hear no more, and disarm the mode."""
        self._close_hearing()
        await super().disarm()

    def _close_hearing(self) -> None:
        if self._hearing is not None:
            self._hearing.close()

    def _hearing_of(self, process: Process) -> Hearing:
        if self._hearing is None:
            self._hearing = process.hear_lines(self._hear)
        return self._hearing

    def _insist_on_hope(self, process: Process) -> None:
        self._hearing_of(process).look()
        if self._doom is not None:
            problem = f"it wrote {self._doom}, which means that it has failed"
            raise ReadyError(self._start.name, problem)
