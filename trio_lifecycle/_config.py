"""What a daemon is: a frozen, validated, comparable description."""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypedDict, get_args

from attrs import Attribute, Factory, field, fields, frozen

from trio_lifecycle._clocks import MOST_EXTENSIONS
from trio_lifecycle._destination import Output
from trio_lifecycle._environment import Environment
from trio_lifecycle._errors import ConfigError
from trio_lifecycle._fingerprint import fingerprint
from trio_lifecycle._ladder import DEFAULT_STOP_LADDER, StopLadder
from trio_lifecycle._limits import check_group, check_umask, check_user, read_limits
from trio_lifecycle._listen_socket import ListenSocket, read_listen
from trio_lifecycle._markers import FREE_PORT, Marker, markers_in, show
from trio_lifecycle._names import check_name
from trio_lifecycle._seconds import check_seconds
from trio_lifecycle._secrets import Secrets
from trio_lifecycle._texts import check_text, is_encodable
from trio_lifecycle.abc import ReadyMode

# Most services are up in under 3 s; the slowest of fifty that were tried needed 19 s.
DEFAULT_READY_TIMEOUT_S: Final = 30.0

# What a caller waits for another program's start beyond the time that this start itself may take: a
# stop that goes before it climbs its ladder.
CLAIM_MARGIN_S: Final = 10.0

OnChange = Literal["keep", "restart", "error"]


def _binary_name(name: "str | os.PathLike[str]") -> str:
    text = check_text("binary_name", name)
    if not text or text.endswith("/") or markers_in([text]):
        raise ConfigError("binary_name", f"{show(text)!r} names no program")
    return text


def _args(args: Sequence["str | os.PathLike[str]"]) -> tuple[str, ...]:
    value: object = args
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ConfigError(
            "args", f'must be a list such as ["--port", "8080"], not one {type(value).__name__}'
        )
    return tuple(check_text(f"args[{index}]", arg) for index, arg in enumerate(value))


def _variables(name: str, value: object) -> Mapping[str, object]:
    """Check the names of variables."""
    if not isinstance(value, Mapping):
        raise ConfigError(
            name, f'must be a mapping such as {{"KEY": "value"}}, not {type(value).__name__}'
        )
    for key in value:
        if not isinstance(key, str) or not key or "\0" in key or not is_encodable(key):
            raise ConfigError(name, f"{key!r} can't be the name of a variable")
        if "=" in key:
            # What follows is a value that slipped into the name, and may be secret.
            raise ConfigError(
                name, f"{key.partition('=')[0] + '=...'!r} can't be the name of a variable"
            )
    return value


def _env(env: Mapping[str, "str | os.PathLike[str] | None"]) -> Mapping[str, str | None]:
    given = _variables("env", env)
    return Environment(
        {
            key: None if text is None else check_text(f"env[{key!r}]", text)
            for key, text in given.items()
        }
    )


def _secret_env(env: Mapping[str, str]) -> Mapping[str, str | None]:
    given = _variables("secret_env", env)
    return Environment({key: _secret(f"secret_env[{key!r}]", text) for key, text in given.items()})


def _secret(name: str, value: object) -> str:
    text = check_text(name, value)
    if not text.strip():
        raise ConfigError(name, "is empty, as of a file or variable that was not filled")
    return text


def _directory(directory: "str | os.PathLike[str] | None") -> Path | None:
    return None if directory is None else _path("working_dir", directory)


def _path(name: str, value: object) -> Path:
    text = check_text(name, value)
    if not text or markers_in([text]):
        raise ConfigError(name, f"{show(text)!r} names no directory")
    return Path(text)


def _search_path(directories: Sequence["str | os.PathLike[str]"]) -> tuple[Path, ...]:
    value: object = directories
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ConfigError(
            "search_path", f"must be a list of directories, not one {type(value).__name__}"
        )
    return tuple(_path(f"search_path[{index}]", item) for index, item in enumerate(value))


def _is_ready_mode(config: object, attribute: "Attribute[ReadyMode]", value: object) -> None:
    if not isinstance(value, ReadyMode):
        raise ConfigError(
            attribute.name, f'must be a ready mode such as HealthCheck("http://..."), not {value!r}'
        )


def _is_stop_ladder(config: object, attribute: "Attribute[StopLadder]", value: object) -> None:
    if not isinstance(value, StopLadder):
        raise ConfigError(
            attribute.name, f"must be a StopLadder((signal, seconds), ...), not {value!r}"
        )


def _is_output(config: object, attribute: "Attribute[Output]", value: object) -> None:
    if not isinstance(value, Output):
        raise ConfigError(attribute.name, f"must be an Output(...), not {value!r}")


def _is_flag(config: object, attribute: "Attribute[bool]", value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(attribute.name, f"must be True or False, not {value!r}")


def _ready_timeout(seconds: float) -> float:
    return check_seconds("ready_timeout", seconds)


def _stall_timeout(seconds: float | None) -> float | None:
    return None if seconds is None else check_seconds("stall_timeout", seconds)


def _max_ready_timeout(seconds: float | None) -> float | None:
    return None if seconds is None else check_seconds("max_ready_timeout", seconds)


def _claim_timeout(seconds: float | None) -> float | None:
    return None if seconds is None else check_seconds("claim_timeout", seconds)


def _is_on_change(config: object, attribute: "Attribute[OnChange]", value: object) -> None:
    if value not in get_args(OnChange):
        known = ", ".join(map(repr, get_args(OnChange)))
        raise ConfigError(attribute.name, f"must be one of {known}, not {value!r}")


def _is_name(config: object, attribute: "Attribute[str]", value: object) -> None:
    check_name(attribute.name, value)


def _last_part(config: "LifecycleConfig") -> str:
    # A file name may be any bytes; a name is for people.
    last = os.fsencode(config.binary_name.rpartition("/")[2]).decode(errors="backslashreplace")
    return "".join(char if char.isprintable() else "?" for char in last)


class ConfigOptions(TypedDict, total=False):
    """Fields of ``LifecycleConfig`` that ``with_health_check`` and ``with_callback`` pass on."""

    env: Mapping[str, "str | os.PathLike[str] | None"]
    secret_env: Mapping[str, str]
    working_dir: "str | os.PathLike[str] | None"
    detach: bool
    name: str
    stop_ladder: StopLadder
    output: Output
    search_path: Sequence["str | os.PathLike[str]"]
    limits: Mapping[str, int | tuple[int | None, int | None] | None]
    umask: int | None
    user: str | int | None
    group: str | int | None
    listen: Iterable[ListenSocket]
    on_change: OnChange
    claim_timeout: float | None
    stall_timeout: float | None
    max_ready_timeout: float | None


@frozen
class LifecycleConfig:
    """What a daemon is and what counts as ready; comparable, reusable, without any state.

    Arguments, environment values and URLs may hold the markers ``FREE_PORT`` and ``CALLBACK_URL``.

    Attributes:
        binary_name: The program: a name that is searched, or a path if it has a slash.
        args: Its arguments, each a string or path of its own; there is no shell.
        env: Variables added to the inherited environment; None as a value removes one. Values show
            in no ``repr``.
        secret_env: Variables like those of ``env`` whose values are secrets: each line of them that
            has 4 characters or more is shown as ``***`` in all that this package says or passes on
            of the daemon, such as errors, events, ``output_tail``, ``lines()`` and ``output.to``.
            Not found is what the daemon writes otherwise, URL-quoted or as base64, say, and a file
            that a detached daemon writes itself stays as it is.
        working_dir: Where it runs. Defaults to the directory of this program.
        ready_mode: When it counts as ready, such as ``HealthCheck("http://...")``.
        ready_timeout: Seconds from the spawn in which it must become ready. Defaults to 30. Too
            short kills a daemon that only had a cold disk; too long only delays the report of one
            that hangs, since one that dies is reported at once whatever stands here.
        stall_timeout: Seconds from the spawn, and from each sign of life, in which it must show the
            next one until it is ready: output, or a word on its progress. Defaults to None: it may
            be silent. With less than its longest silent step, a healthy daemon is stopped.
        max_ready_timeout: Seconds in which it must become ready even if it asks for more time, as
            some do under ``Notify``. Defaults to None: ten times ``ready_timeout``.
        detach: Permits a bare ``ensure_running()`` to leave the daemon running without an owner.
            Defaults to False.
        name: What it is called in messages, log files and tables. Defaults to the last part of
            ``binary_name``.
        stop_ladder: How it is stopped. Defaults to SIGTERM, 10 s, SIGKILL. With less time than it
            needs to flush, a database starts with a recovery the next time.
        output: Where its output goes. Defaults to the last 64 KiB kept for errors, and nothing
            else.
        search_path: Directories to look into before PATH.
        limits: What it and each process that it starts may use, by the names of setrlimit(2):
            ``{"nofile": 65536, "core": (0, None)}``. A pair is the soft and the hard limit, one
            number is both, None is unlimited. Bytes for memory and files, seconds for ``"cpu"``,
            microseconds for ``"rttime"``, a count else. Defaults to none: those of this program.
            Only root may raise a hard limit.
        umask: The permissions that its new files lack, such as ``0o077``. Defaults to None: those
            of this program. Under a wide one, other users read the daemon's files.
        user: Whom it runs as, by name or id; only root may choose another. It gets that user's
            groups, and HOME, USER and LOGNAME unless ``env`` has them. Defaults to None: the user
            of this program. If that is root, whoever breaks into the daemon has the machine.
        group: Its main group, by name or id. Defaults to None: the group of ``user``, or of this
            program. Without ``user`` it has no other group.
        listen: Sockets that are bound before it is spawned and passed to it, as systemd does:
            ``[ListenSocket(port=8080)]``. Defaults to none. They are its descriptors from 3 on.
        on_change: What is done when it runs already, but was started with another program, other
            arguments, environment, directory, ready mode, limits, umask, user, group or sockets:
            ``"keep"``, the default, uses it as it is, with a ConfigChanged event; ``"restart"``
            stops it, whoever uses it, and starts it anew; ``"error"`` raises ConfigChangedError.
        claim_timeout: Seconds to wait for another program that is starting or stopping it. Defaults
            to None: ``ready_timeout`` and 10 s. With less than that program needs, this one fails
            although the daemon comes up.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    binary_name: str = field(converter=_binary_name)
    args: tuple[str, ...] = field(default=(), converter=_args, kw_only=True)
    env: Mapping[str, str | None] = field(factory=dict, converter=_env, kw_only=True)
    secret_env: Mapping[str, str | None] = field(factory=dict, converter=_secret_env, kw_only=True)
    working_dir: Path | None = field(default=None, converter=_directory, kw_only=True)
    ready_mode: ReadyMode = field(validator=_is_ready_mode, kw_only=True)
    ready_timeout: float = field(
        default=DEFAULT_READY_TIMEOUT_S, converter=_ready_timeout, kw_only=True
    )
    detach: bool = field(default=False, validator=_is_flag, kw_only=True)
    name: str = field(
        default=Factory(_last_part, takes_self=True), validator=_is_name, kw_only=True
    )
    stop_ladder: StopLadder = field(
        default=DEFAULT_STOP_LADDER, validator=_is_stop_ladder, kw_only=True
    )
    output: Output = field(factory=Output, validator=_is_output, kw_only=True)
    search_path: tuple[Path, ...] = field(default=(), converter=_search_path, kw_only=True)
    limits: Mapping[str, tuple[int | None, int | None]] = field(
        factory=dict, converter=read_limits, kw_only=True
    )
    umask: int | None = field(default=None, converter=check_umask, kw_only=True)
    user: str | int | None = field(default=None, converter=check_user, kw_only=True)
    group: str | int | None = field(default=None, converter=check_group, kw_only=True)
    listen: tuple[ListenSocket, ...] = field(default=(), converter=read_listen, kw_only=True)
    on_change: OnChange = field(default="keep", validator=_is_on_change, kw_only=True)
    claim_timeout: float | None = field(default=None, converter=_claim_timeout, kw_only=True)
    stall_timeout: float | None = field(default=None, converter=_stall_timeout, kw_only=True)
    max_ready_timeout: float | None = field(
        default=None, converter=_max_ready_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        facts = [f"{each.name}={getattr(self, each.name)!r}" for each in fields(type(self))]
        # What is secret may stand in an argument or a URL, too.
        return Secrets(self.secrets).blot_out(f"{type(self).__name__}({', '.join(facts)})")

    def __attrs_post_init__(self) -> None:
        if twice := self.env.keys() & self.secret_env.keys():
            name = min(twice)
            raise ConfigError("secret_env", f"{name!r} is in env, too; give it in one of them")
        unfilled = self.markers - {FREE_PORT} - self.ready_mode.markers
        if unfilled:
            names = ", ".join(sorted(marker.name for marker in unfilled))
            places = {
                "args": self.args,
                "env": _values(self.env),
                "secret_env": self.secrets,
                "ready_mode": self.ready_mode.texts,
            }
            place = next(name for name, texts in places.items() if unfilled & markers_in(texts))
            mode = Secrets(self.secrets).blot_out(repr(self.ready_mode))
            raise ConfigError(place, f"{names} has no value under {mode}; use Callback()")
        interval = self.ready_mode.longest_interval_s
        if interval > self.ready_timeout:
            raise ConfigError(
                "ready_timeout",
                f"{self.ready_timeout} s is shorter than the interval of {interval} s",
            )
        least_s = self.ready_mode.shortest_wait_s
        if least_s >= self.ready_timeout:
            problem = f"{self.ready_timeout} s is too short for {self.ready_mode!r}"
            raise ConfigError("ready_timeout", f"{problem}, which takes {least_s} s at least")
        if self.longest_ready_s < self.ready_timeout:
            problem = f"{self.max_ready_timeout} s is shorter than the ready_timeout"
            raise ConfigError("max_ready_timeout", f"{problem} of {self.ready_timeout} s")

    @property
    def texts(self) -> tuple[str, ...]:
        """Every text in which markers may stand."""
        return self.args + _values(self.env) + self.secrets + self.ready_mode.texts

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of ``secret_env``."""
        return _values(self.secret_env)

    @property
    def markers(self) -> frozenset[Marker]:
        """The markers that are used anywhere."""
        return markers_in(self.texts)

    @property
    def fingerprint(self) -> str:
        """What tells this configuration from others whose daemon would run otherwise.

        It holds no value, only digests: 32 bits of SHA-256 for each field.
        """
        mode = (self.ready_mode.kind, *self.ready_mode.texts)
        return fingerprint(
            {
                "binary_name": self.binary_name,
                "search_path": [str(directory) for directory in self.search_path],
                "args": self.args,
                "env": sorted(self.env.items()),
                "secret_env": sorted(self.secret_env.items()),
                "working_dir": None if self.working_dir is None else str(self.working_dir),
                "ready_mode": mode,
                "limits": sorted(self.limits.items()),
                "umask": self.umask,
                "user": self.user,
                "group": self.group,
                "listen": self.listen,
            }
        )

    @property
    def longest_ready_s(self) -> float:
        """How long it may take to become ready if it asks for more time, in seconds."""
        if self.max_ready_timeout is None:
            # A ready_timeout next to what a float can hold stays finite.
            return min(self.ready_timeout * MOST_EXTENSIONS, sys.float_info.max)
        return self.max_ready_timeout

    @property
    def longest_claim_s(self) -> float:
        """How long a claim is waited for, in seconds."""
        return self.claim_timeout or self.ready_timeout + CLAIM_MARGIN_S


def _values(env: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(value for value in env.values() if value is not None)
