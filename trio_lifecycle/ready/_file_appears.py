"""Ready when the daemon writes a file."""

import os

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._markers import show
from trio_lifecycle._texts import check_path
from trio_lifecycle.abc import FileMark, Prober, Process, ReadyMode, Report, Start, Verdict
from trio_lifecycle.ready._filled import file_path
from trio_lifecycle.ready._polled import (
    DEFAULT_INTERVAL_S,
    DEFAULT_PROBE_TIMEOUT_S,
    ArmedPolled,
    Outcome,
    Reply,
    check_interval,
    check_probe_timeout,
)


def _path(path: str | os.PathLike[str]) -> str:
    return check_path("path", path)


def _min_bytes(size: int) -> int:
    value: object = size
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError("min_bytes", f"must be a number of bytes, 0 or more, not {value!r}")
    return value


@frozen(repr=False)
class FileAppears(ReadyMode):
    """Ready when a file is there that was not there before the spawn.

    One that was left behind by an earlier daemon does not count, unless it is written to: then the
    time or the size that the file system knows of it changes. Who writes it is not looked at. Of a
    daemon that runs already, the file that is there is enough.

    A program may make a file long before it has written all of it: ``min_bytes`` helps, or a
    program that writes another file and renames it.

    Attributes:
        path: The file. It may hold FREE_PORT. A relative one is relative to the daemon's
            ``working_dir``. A link is followed; anything that has a path will do.
        min_bytes: How many bytes it must have. Defaults to 0.
        interval: Seconds between two looks at most. Defaults to 0.1; the pause grows up to it from
            1 ms. Above 1 the news of readiness is late.
        probe_timeout: Seconds that one look may take. Defaults to 1. On a file system of another
            machine a look may hang.
    """

    path: str = field(converter=_path)
    min_bytes: int = field(default=0, converter=_min_bytes)
    interval: float = field(default=DEFAULT_INTERVAL_S, converter=check_interval, kw_only=True)
    probe_timeout: float = field(
        default=DEFAULT_PROBE_TIMEOUT_S, converter=check_probe_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        size = f"min_bytes={self.min_bytes}, " if self.min_bytes else ""
        limits = f"interval={self.interval}, probe_timeout={self.probe_timeout}"
        return f"FileAppears({show(self.path)!r}, {size}{limits})"

    @property
    def texts(self) -> tuple[str, ...]:
        """The path."""
        return (self.path,)

    @property
    def longest_interval_s(self) -> float:
        """The interval."""
        return self.interval

    async def arm(self, start: Start) -> ArmedPolled:
        """Look at what lies there now.

        Raises:
            ReadyError: That can't be looked at.
        """
        path = file_path(self.path, start)
        problem = f"gave no answer within {self.probe_timeout} s"
        try:
            with trio.move_on_after(self.probe_timeout):
                return self._armed(start, path, await start.prober.find_file(path))
        except OSError as error:
            problem = f"can't be looked at: {error.strerror}"
        raise ReadyError(start.name, f"{path} {problem}")

    async def arm_again(self, start: Start) -> ArmedPolled:
        """Look for the same file; what is there counts."""
        return self._armed(start, file_path(self.path, start), None)

    async def arm_unfinished(self, start: Start) -> None:
        """Nobody knows any more what was there before the start."""

    def _armed(self, start: Start, path: str, left: FileMark | None) -> ArmedPolled:
        place = _FilePlace(start.prober, path, left, self)
        return ArmedPolled(start, path, [place], Report(None, start.port), self.interval)


class _FilePlace:
    """A file, asked by looking at it."""

    address = None

    def __init__(self, prober: Prober, path: str, left: FileMark | None, mode: FileAppears) -> None:
        self._prober = prober
        self._path = path
        self._left = left
        self._mode = mode

    async def ask(self, *, patient: bool = False) -> Reply:
        """Look once."""
        limit_s = self._mode.probe_timeout
        try:
            with trio.move_on_after(limit_s):
                return self._judge(await self._prober.find_file(self._path))
        except OSError as error:
            return Reply(Outcome.NOT_YET, f"can't be looked at: {error.strerror}")
        return Reply(Outcome.NOT_YET, f"gave no answer within {limit_s} s")

    def _judge(self, mark: FileMark | None) -> Reply:
        if mark is None:
            return Reply(Outcome.NOT_YET, "is not there")
        if mark == self._left:
            return Reply(Outcome.NOT_YET, "is there, as it was before the start")
        if mark.size < self._mode.min_bytes:
            return Reply(Outcome.NOT_YET, f"has {mark.size} of {self._mode.min_bytes} bytes")
        return Reply(Outcome.UP, "is there")

    async def whose(self, process: Process) -> Verdict:
        """Believe it: a file does not tell who wrote it."""
        return Verdict.OURS
