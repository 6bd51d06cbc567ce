"""When a daemon is ready: the options that say so, and the ready mode that they mean."""

from collections.abc import Callable, Iterator
from typing import Annotated, Final

from attrs import frozen
from cyclopts import Parameter

from trio_lifecycle._cli._fill import with_markers
from trio_lifecycle._cli._numbers import read_number
from trio_lifecycle._cli._options import READY, option
from trio_lifecycle._config import DEFAULT_READY_TIMEOUT_S
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._lifecycle import DEFAULT_CALLBACK_TIMEOUT_S
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle.abc import ReadyMode
from trio_lifecycle.ready._all_of import AllOf
from trio_lifecycle.ready._callback import Callback
from trio_lifecycle.ready._exec import Exec
from trio_lifecycle.ready._file_appears import FileAppears
from trio_lifecycle.ready._grpc import GRPCHealth
from trio_lifecycle.ready._health import HealthCheck
from trio_lifecycle.ready._log_line import LogLine
from trio_lifecycle.ready._manual import Manual
from trio_lifecycle.ready._newline import NewlineOnFD
from trio_lifecycle.ready._notify import Notify
from trio_lifecycle.ready._tcp_port import TCPPort
from trio_lifecycle.ready._unix_socket import UnixSocket
from trio_lifecycle.ready._unless_line import UnlessLine

_SHELL: Final = "/bin/sh"


@Parameter(name="*")
@frozen(kw_only=True)
class ReadyOptions:
    """What was said of it; several together mean all of them."""

    health: Annotated[
        str | None,
        option(READY, "When a GET of this URL succeeds: http://127.0.0.1:{port}/", value="URL"),
    ] = None
    tcp: Annotated[
        str | None,
        option(READY, "When it takes connections at this port, of 127.0.0.1.", value="[HOST:]PORT"),
    ] = None
    unix: Annotated[
        str | None, option(READY, "When it takes connections at this UNIX socket.", value="PATH")
    ] = None
    grpc: Annotated[
        str | None,
        option(
            READY,
            "When its gRPC health service, at this port of 127.0.0.1, says that it serves.",
            value="[HOST:]PORT",
        ),
    ] = None
    log: Annotated[
        str | None,
        option(
            READY,
            "When it writes a line that matches this; groups called port and url say where it is.",
            value="REGEX",
        ),
    ] = None
    notify: Annotated[bool, option(READY, "When it says so as to systemd, by NOTIFY_SOCKET.")] = (
        False
    )
    fd: Annotated[
        str | None, option(READY, "When it writes a newline to this descriptor.", value="N")
    ] = None
    exec: Annotated[
        str | None,
        option(READY, "When this command, for /bin/sh, ends with status 0.", value="COMMAND"),
    ] = None
    file: Annotated[
        str | None, option(READY, "When this file is there, and new.", value="PATH")
    ] = None
    callback: Annotated[
        bool, option(READY, "When it posts to the URL in TRIO_LIFECYCLE_CALLBACK_URL.")
    ] = False
    manual: Annotated[
        bool, option(READY, "As soon as it was started; so it is without any of these.")
    ] = False
    fatal_log: Annotated[
        str | None,
        option(
            READY,
            "Never, once it writes a line that matches this: the wait is over at once.",
            value="REGEX",
        ),
    ] = None
    stable_for: Annotated[
        str | None, option(READY, "Only when it has been so for these seconds.", value="S")
    ] = None
    timeout: Annotated[
        str | None,
        option(READY, "Seconds in which it must be ready: 30, or 300 with --callback.", value="S"),
    ] = None
    stall_timeout: Annotated[
        str | None,
        option(READY, "Seconds that it may be silent until then; it may be, without.", value="S"),
    ] = None
    max_timeout: Annotated[
        str | None,
        option(
            READY,
            "Seconds in which it must be ready if it asks for more time: ten times --timeout.",
            value="S",
        ),
    ] = None

    def ready_mode(self) -> ReadyMode:
        """Say what counts as ready: all that was asked for, or being started.

        Raises:
            ConfigError: That can't be meant; it names the option.
        """
        modes = list(self._modes())
        if self.manual and modes:
            raise ConfigError("--manual", "means that nothing is waited for; leave it out")
        mode = modes[0] if len(modes) == 1 else AllOf(*modes) if modes else Manual()
        return self._held(mode, waits=bool(modes))

    def _modes(self) -> Iterator[ReadyMode]:
        if self.health is not None:
            yield HealthCheck(with_markers(self.health))
        makers: tuple[tuple[str, str | None, Callable[[str], ReadyMode]], ...] = (
            ("--tcp", self.tcp, _tcp),
            ("--unix", self.unix, UnixSocket),
            ("--grpc", self.grpc, _grpc),
            ("--log", self.log, LogLine),
            ("--fd", self.fd, _fd),
            ("--exec", self.exec, _exec),
            ("--file", self.file, FileAppears),
        )
        for name, text, make in makers:
            if text is not None:
                yield _named(name, make, with_markers(_filled(name, text)))
        if self.notify:
            yield Notify()
        if self.callback:
            yield Callback()

    def _held(self, mode: ReadyMode, *, waits: bool) -> ReadyMode:
        fatal = self.fatal_log
        if fatal is not None:
            if not waits:
                raise ConfigError("--fatal-log", "needs a way to be ready, such as --log or --tcp")
            pattern = with_markers(_filled("--fatal-log", fatal))
            mode = _named("--fatal-log", lambda text: UnlessLine(mode, text), pattern)
        if self.stable_for is not None:
            seconds = read_number("--stable-for", self.stable_for)
            mode = mode.stable_for(check_seconds("--stable-for", seconds))
        return mode

    def ready_timeout(self) -> float:
        """Say how long it may take."""
        if self.timeout is not None:
            return read_number("--timeout", self.timeout)
        return DEFAULT_CALLBACK_TIMEOUT_S if self.callback else DEFAULT_READY_TIMEOUT_S

    def seconds_of_silence(self) -> float | None:
        """Say how long it may be silent; None is as long as it likes."""
        return _number_or_none("--stall-timeout", self.stall_timeout)

    def longest_timeout(self) -> float | None:
        """Say how long it may take if it asks for more time; None is the default."""
        return _number_or_none("--max-timeout", self.max_timeout)


NOTHING_SAID: Final = ReadyOptions()


def _number_or_none(name: str, text: str | None) -> float | None:
    return None if text is None else read_number(name, text)


def _filled(name: str, text: str) -> str:
    """Refuse what a shell makes of an unset variable: it is in every line, and succeeds at once."""
    if not text.strip():
        raise ConfigError(name, "is empty, as of a variable that was not set")
    return text


def _named(name: str, make: Callable[[str], ReadyMode], text: str) -> ReadyMode:
    """Make a mode; what is wrong with it is wrong with the option."""
    try:
        return make(text)
    except ConfigError as error:
        raise ConfigError(name, error.problem) from None


def _tcp(text: str) -> ReadyMode:
    # Without a host, as for --listen, it is 127.0.0.1.
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    number = int(port) if port.isascii() and port.isdecimal() else port
    return TCPPort(number, host) if host else TCPPort(number)


def _grpc(text: str) -> ReadyMode:
    host, _, port = text.rpartition(":")
    return GRPCHealth(text if host else f"127.0.0.1:{port}")


def _exec(command: str) -> ReadyMode:
    return Exec([_SHELL, "-c", command])


def _fd(text: str) -> ReadyMode:
    if not (text.isascii() and text.isdecimal()):
        raise ConfigError("--fd", f"wants the number of a descriptor, 3 or more, not {text!r}")
    return NewlineOnFD(int(text))
