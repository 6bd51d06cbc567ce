"""Ready when a line of the daemon's output matches a pattern."""

import re
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from typing import Final

import trio
from attrs import field, frozen

from trio_lifecycle._errors import ConfigError, ReadyError
from trio_lifecycle._framing import CUT_MARK
from trio_lifecycle._markers import FREE_PORT, fill, has_stray_nul, show
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._status import quote
from trio_lifecycle._urls import check_url, port_of
from trio_lifecycle.abc import ArmedReady, Hearing, Process, ReadyMode, Report, Start

# Of each line as much is searched: a pattern takes time that grows with the line, with the square
# of it or worse, and nothing else runs meanwhile.
LONGEST_SEARCHED_CHARS: Final = 8192

# The output of a process that ends is closed before its end can be seen, which is then the news.
_END_PATIENCE_S: Final = 0.25

_HOST: Final = "127.0.0.1"

# As long as the marker is in what the user reads, so that a position means the same there.
_SAMPLE_PORT: Final = "65535".zfill(len(show(FREE_PORT)))

Pattern = str | re.Pattern[str]


def _pattern(value: Pattern) -> Pattern:
    return check_pattern("pattern", value)


def _fatal(value: Pattern | None) -> Pattern | None:
    return None if value is None else check_pattern("fatal", value)


def check_pattern(name: str, value: object) -> Pattern:
    """Return a pattern that can be searched for once the port is known.

    Raises:
        ConfigError: It can't.
    """
    text, flags = (value.pattern, value.flags) if isinstance(value, re.Pattern) else (value, 0)
    if not isinstance(text, str):
        example = "such as r'listening on port (?P<port>\\d+)'"
        raise ConfigError(name, f"must be a pattern of text {example}, not {value!r}")
    if has_stray_nul(text):
        raise ConfigError(name, f"{show(text)!r} contains a NUL; write it as \\0")
    sample = fill(text, {FREE_PORT: _SAMPLE_PORT})
    if "\0" in sample:
        raise ConfigError(name, f"{show(text)!r} can hold no other marker than FREE_PORT")
    try:
        re.compile(sample, flags)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigError(name, f"{show(text)!r} is no regular expression: {error}") from None
    return value if isinstance(value, re.Pattern) else text


def show_pattern(value: Pattern | None) -> str:
    """Write a pattern for people."""
    if isinstance(value, re.Pattern):
        return f"re.compile({show(value.pattern)!r}, {re.RegexFlag(value.flags)!r})"
    return repr(None if value is None else show(value))


def text_of(value: Pattern) -> str:
    """Give a pattern's text."""
    return value.pattern if isinstance(value, re.Pattern) else value


def compile_pattern(value: Pattern, port: int | None) -> re.Pattern[str]:
    """Fill in the port."""
    text, flags = (value.pattern, value.flags) if isinstance(value, re.Pattern) else (value, 0)
    return re.compile(fill(text, {} if port is None else {FREE_PORT: str(port)}), flags)


@frozen
class LogLine(ReadyMode):
    r"""Ready when the daemon writes a line in which a pattern is found, as by ``re.search``.

    Every line counts that it writes to its standard output or standard error, from the first one
    on, however many there are: ``LogLine(r"listening on port (?P<port>\d+)")``. A line counts when
    its newline has come, or the output's end: not a prompt that waits. Named groups of the
    pattern become ``daemon.report``. Two of them have a meaning besides: ``url`` (http or https)
    and ``port`` say where the daemon serves; a port alone means 127.0.0.1.

    Most programs buffer what they write to a pipe: a line may come late, or never, unless they are
    told to write it at once (``python -u``, ``stdbuf -oL``).

    Of each line the first 8,192 characters are searched, so ``$`` matches there at the latest. The
    search runs in Trio's own thread. A pattern that can match one text in very many ways, such as
    ``(a+)+$``, may need hours for a line on which it fails, and nothing else runs meanwhile.

    Attributes:
        pattern: What is looked for: a text, or a compiled pattern of text. It may hold FREE_PORT.
        fatal: What means that the daemon will never be ready, such as ``"bind.*failed"``. A line
            with it ends the wait at once, with ``ReadyError``; if both are found in one line, the
            daemon has failed. Defaults to None: only its end or a time-out ends the wait. Too wide,
            it kills a daemon that only complained.
    """

    pattern: Pattern = field(converter=_pattern, repr=show_pattern)
    fatal: Pattern | None = field(default=None, converter=_fatal, kw_only=True, repr=show_pattern)

    @property
    def texts(self) -> tuple[str, ...]:
        """The patterns."""
        patterns = [self.pattern] if self.fatal is None else [self.pattern, self.fatal]
        return tuple(map(text_of, patterns))

    async def arm(self, start: Start) -> "ArmedLogLine":
        """Fill in the port."""
        fatal = None if self.fatal is None else compile_pattern(self.fatal, start.port)
        return ArmedLogLine(start, compile_pattern(self.pattern, start.port), fatal)


class ArmedLogLine(ArmedReady):
    """A line that one spawn is to write."""

    def __init__(
        self, start: Start, pattern: re.Pattern[str], fatal: re.Pattern[str] | None
    ) -> None:
        self._start = start
        self._pattern = pattern
        self._fatal = fatal
        self._last_line: str | None = None
        self._before_last = ""
        self._report: Report | None = None
        self._doom: str | None = None
        # Cancelled by the line itself: that wakes whoever waits one turn earlier than an event.
        self._undecided = trio.CancelScope()
        self._hearing: Hearing | None = None

    @property
    def awaited(self) -> str:
        """A line."""
        return f"a line with {quote(self._pattern.pattern)}"

    @property
    def last_seen(self) -> str:
        """The last line."""
        if self._last_line is None:
            return "it has written no whole line"
        last = quote_line(self._start, self._last_line, self._before_last)
        return f"its last line was {last}"

    def begin(self, process: Process) -> None:
        """Hear from the first line on."""
        self._hearing = process.hear_lines(self._hear)

    def _hear(self, lines: list[str]) -> None:
        if self._doom is None:
            for before, line in pairwise([self._last_line or "", *lines]):
                self._judge(line, before)
                self._before_last = before
            self._last_line = lines[-1]

    def _judge(self, line: str, before: str) -> None:
        if self._fatal is not None and self._fatal.search(line, 0, LONGEST_SEARCHED_CHARS):
            self._doom = self._doom or quote_line(self._start, line, before)
            self._undecided.cancel()
        elif self._report is None:
            match = self._pattern.search(line, 0, LONGEST_SEARCHED_CHARS)
            if match is not None:
                self._report = _report(match.groupdict(), self._start.port)
                self._undecided.cancel()

    async def wait(self, process: Process) -> Report:
        """Wait for the line."""
        hearing = self._hearing_of(process)
        if self._decision() is None:
            # One of its own for each wait: who was cancelled may wait again.
            with trio.CancelScope() as self._undecided:
                await hearing.run()
                await trio.sleep(_END_PATIENCE_S)
        await trio.lowlevel.checkpoint_if_cancelled()
        report = self._decision()
        if report is None:
            problem = f"its output has ended, and no line was as it should be; {self.last_seen}"
            raise ReadyError(self._start.name, problem)
        return report

    async def ask(self, process: Process) -> Report | None:
        """Look at what is written already."""
        await trio.lowlevel.checkpoint()
        self._hearing_of(process).look()
        return self._decision()

    def note_ready(self) -> None:
        """Take no line as a failure from now on; hear no more if the line has come."""
        self._fatal = None
        if self._report is not None and self._hearing is not None:
            self._hearing.close()

    def _hearing_of(self, process: Process) -> Hearing:
        if self._hearing is None:
            self.begin(process)
        assert self._hearing is not None
        return self._hearing

    def _decision(self) -> Report | None:
        if self._doom is not None:
            problem = f"it wrote {self._doom}, which means that it has failed"
            raise ReadyError(self._start.name, problem)
        return self._report

    async def disarm(self) -> None:
        """Hear no more."""
        if self._hearing is not None:
            self._hearing.close()


def quote_line(start: Start, line: str, before: str) -> str:
    """Write a line of output for people, without secrets.

    Args:
        start: Knows them.
        line: The line.
        before: The line before it. Where that was cut, a secret may have been, too.
    """
    secrets = Secrets(start.secrets)
    is_rest = before.endswith(CUT_MARK)
    return quote(secrets.blot_out_rest(line) if is_rest else secrets.blot_out(line))


def _report(groups: Mapping[str, str | None], port: int | None) -> Report:
    facts = {name: text for name, text in groups.items() if text is not None}
    said = _read_port(facts.get("port", ""))
    url = facts.get("url", "")
    if _is_url(url):
        return Report(url, said or port_of(url), facts)
    # A port that only we know of says nothing of what is spoken there.
    return Report(f"http://{_HOST}:{said}" if said else None, said or port, facts)


def _is_url(text: str) -> bool:
    with suppress(ConfigError):
        return bool(text) and "\0" not in check_url("url", text)
    return False


def _read_port(text: str) -> int | None:
    if len(text) > len("65535") or not (text.isascii() and text.isdecimal()):
        return None
    return int(text) if 1 <= int(text) <= 65_535 else None
