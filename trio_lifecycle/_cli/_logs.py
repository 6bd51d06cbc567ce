"""``trio-lifecycle logs``: the end of what a daemon has written, and what it goes on to write."""

import os
from pathlib import Path
from typing import Final

import trio
from attrs import frozen

from trio_lifecycle._cli._codes import ALL_WELL, NO_LOG, NOT_KEPT_UP, status_of_error
from trio_lifecycle._cli._connect import connect
from trio_lifecycle._cli._log_file import LocalLogFile, LogFile
from trio_lifecycle._cli._machine_options import HERE, MachineOptions
from trio_lifecycle._cli._outlet import Outlet
from trio_lifecycle._cli._paint import Paint
from trio_lifecycle._cli._session import STDOUT, Session
from trio_lifecycle._cli._which import (
    check_names,
    is_elsewhere,
    registry_at,
    registry_to_read,
)
from trio_lifecycle._errors import ConfigError, DaemonStateUnknownError, LifecycleError
from trio_lifecycle._framing import LineFramer
from trio_lifecycle._state_dir import log_path
from trio_lifecycle.abc import DaemonRecord, Process

# As many as fit on a terminal of 24 lines, with the prompts around them.
DEFAULT_LINES: Final = 20

# A file can't be waited for. Nobody reads a log faster than this.
_LOOK_INTERVAL_S: Final = 0.1


@frozen(kw_only=True)
class Wanted:
    """The options as they were written."""

    name: str
    lines: str | None = None
    follow: bool = False
    registry: str | None = None
    machine: MachineOptions = HERE

    def count(self) -> int | None:
        """Give how many lines to begin with; None for all.

        Raises:
            ConfigError: That can't be meant.
        """
        if self.lines is None:
            return DEFAULT_LINES
        if self.lines == "all":
            return None
        if not (self.lines.isascii() and self.lines.isdecimal()):
            raise ConfigError(
                "--lines", f"wants a number of lines, 0 or more, or 'all', not {self.lines!r}"
            )
        return int(self.lines)


class Printer:
    """Passes a log on: byte for byte, or line by line and harmless where that is a terminal."""

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._paint = Paint(STDOUT)
        self._framer = LineFramer() if os.isatty(STDOUT) else None

    async def show(self, chunk: bytes) -> None:
        """Pass on what was read.

        Raises:
            OSError: Standard output does not take it.
        """
        await self._pass_on(chunk if self._framer is None else self._tame(self._framer.feed(chunk)))

    async def conclude(self) -> None:
        """Pass on the rest of the last line.

        Raises:
            OSError: Standard output does not take it.
        """
        if self._framer is not None:
            await self._pass_on(self._tame(self._framer.close()))

    async def _pass_on(self, chunk: bytes) -> None:
        await self._outlet.pass_on(chunk)

    def _tame(self, lines: list[str]) -> bytes:
        text = "".join(f"{self._paint.passed_on(line)}\n" for line in lines)
        return text.encode(errors="backslashreplace")


class Logs:
    """One look at a log, for a moment or for as long as the daemon runs."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        # Ctrl-C is how one leaves, so it needs no words.
        self._session = Session(0, lambda _key: "", watches_stdout=True)

    async def __call__(self) -> int:
        """Show it.

        Returns:
            The exit status.
        """
        self._session.display.name(self._wanted.name)
        return await self._session.run(self._find_and_show, _kill_nothing)

    async def _find_and_show(self) -> int:
        lines = self._wanted.count()
        check_names([self._wanted.name])
        await connect(self._wanted.machine, self._session.display)
        record = await registry_to_read(self._wanted.registry).get(self._wanted.name)
        path = await self._path_of(record)
        if path is None:
            return self._complain("its output is not kept: it was found running", NO_LOG)
        try:
            log = await self._open(path)
        except FileNotFoundError:
            return self._complain(f"has no log: {path} is not there{_but(record)}", NO_LOG)
        except OSError as error:
            return self._complain(f"its log can't be read: {error}", NOT_KEPT_UP)
        try:
            if lines is not None:
                await log.skip_to_last(lines)
            return await self._show(log, record)
        except OSError as error:
            return self._complain(f"its log can't be shown: {error}", NOT_KEPT_UP)
        finally:
            log.close()

    async def _open(self, path: str) -> LogFile:
        machine = self._wanted.machine
        if machine.is_here:
            return LocalLogFile(Path(path))
        return await machine.elsewhere().open_log(path)

    async def _show(self, log: LogFile, record: DaemonRecord | None) -> int:
        status, process = ALL_WELL, None
        problem: LifecycleError | None = None
        if self._wanted.follow and record is not None:
            try:
                process = await self._wanted.machine.spawner().find_process(record)
            except DaemonStateUnknownError as error:
                status, problem = status_of_error(error), error
        printer = Printer(self._session.out)
        await _follow(log, process, printer)
        await printer.conclude()
        if problem is not None:
            # Its end could not be seen, so it is not waited for.
            return self._session.report(problem)
        if self._wanted.follow:
            self._session.display.say("has ended" if process else "is not running")
        return status

    async def _path_of(self, record: DaemonRecord | None) -> str | None:
        machine = self._wanted.machine
        if record is not None:
            if not machine.is_here:
                # Another machine may have a log of that name, too.
                await machine.elsewhere().insist_on(record)
            return record.log_file
        if not machine.is_here:
            return await machine.elsewhere().default_log(self._wanted.name)
        directory = registry_at(self._wanted.registry).log_directory
        return str(log_path(os.environ, self._wanted.name, directory))

    def _complain(self, problem: str, status: int) -> int:
        self._session.display.complain(f"{self._wanted.name}: {problem}")
        return status


def _but(record: DaemonRecord | None) -> str:
    """Say why a log may not be there."""
    if record is None:
        return ", nor is it recorded"
    return f"; it may be on {record.host}: ask with --host" if is_elsewhere(record) else ""


async def _follow(log: LogFile, process: Process | None, printer: Printer) -> None:
    """Show all there is, and all that comes until the process has ended."""
    while True:
        if process is not None:
            await process.look()
        # Looked at before the file is read: what an ended process wrote is all there.
        is_last = process is None or process.ended
        while chunk := await log.read():
            await printer.show(chunk)
        if process is None or is_last:
            return
        with trio.move_on_after(_LOOK_INTERVAL_S):
            await process.wait()


async def _kill_nothing() -> None:
    """Do nothing: there is nothing of ours."""
