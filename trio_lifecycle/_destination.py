"""Where a daemon's output goes, besides the tail that is always kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

from attrs import Attribute, field, frozen

from trio_lifecycle._errors import ConfigError

# Enough for the last traceback or panic of any runtime, little enough to keep for a thousand
# daemons.
DEFAULT_TAIL_BYTES: Final = 65_536


# With the one that is written to, as for the log files of daemons that stay. Enough to look back
# over a few restarts, and a bound for the disk.
DEFAULT_KEPT_FILES: Final = 5


def _number(name: str, value: object, least: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(name, f"must be a number of {what}, {least} or more, not {value!r}")
    return value


def _size(size: int) -> int:
    return _number("output.tail_bytes", size, 0, "bytes")


def _max_bytes(size: int) -> int:
    return _number("output.rotate.max_bytes", size, 1, "bytes")


def _keep(number: int) -> int:
    return _number("output.rotate.keep", number, 1, "files")


@frozen
class Rotate:
    """When a file of output makes room for a new one.

    ``app.log`` becomes ``app.log.1``, that becomes ``app.log.2``, and so on.

    Attributes:
        max_bytes: How large a file may become. A line goes into the next file before it would
            become larger; only a line that is longer than this, or than 64 KiB, is cut.
        keep: How many files there are at most, with the one that is written to. Defaults to 5, so
            that they never take more than five times ``max_bytes``; with 1 what was written
            earlier is removed.

    Raises:
        ConfigError: One of the numbers can't be meant.
    """

    max_bytes: int = field(converter=_max_bytes)
    keep: int = field(default=DEFAULT_KEPT_FILES, converter=_keep)


Sink = Path | IO[bytes] | IO[str] | Callable[[str], object]


def _sink(to: "Sink | str | os.PathLike[str] | None") -> "Sink | None":
    value: object = to
    if value is None or callable(value):
        return value
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if isinstance(path, str) and path and "\0" not in path:
            return Path(path)
    elif callable(getattr(value, "write", None)):
        # A stream is anything that has write(); no more is asked of it.
        return cast("Sink", value)
    raise ConfigError(
        "output.to",
        f"must be None, a path, a stream or a callable that takes a line, not {value!r}",
    )


def _is_flag(output: object, attribute: "Attribute[bool]", value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError("output.timestamps", f"must be True or False, not {value!r}")


def check_prefix(text: str) -> str:
    """Return what is to stand before lines.

    Raises:
        ConfigError: That is nothing for within a line.
    """
    value: object = text
    if not isinstance(value, str):
        raise ConfigError("output.prefix", f'must be a text such as "db: ", not {value!r}')
    if "\n" in value or "\r" in value:
        raise ConfigError("output.prefix", f"must be within one line, not {value!r}")
    try:
        value.encode()
    except UnicodeEncodeError:
        problem = f"{value!r} has a character that can't be encoded, a lone surrogate"
        raise ConfigError("output.prefix", problem) from None
    return value


def _is_rotate(output: "Output", attribute: "Attribute[Rotate | None]", value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Rotate):
        raise ConfigError("output.rotate", f"must be a Rotate(max_bytes) or None, not {value!r}")
    if not isinstance(output.to, Path):
        raise ConfigError("output.rotate", "is for a file only; give its path as output.to")


@frozen
class Output:
    r"""Where a daemon's output goes.

    Standard output and standard error are one stream, in the order written.

    Attributes:
        tail_bytes: How much of the end is kept for errors and ``output_tail``. Defaults to 64 KiB;
            0 keeps none.
        to: Where all of it goes besides: None (nowhere), a path (appended to, created with mode
            0600), a stream such as ``sys.stderr``, or a callable that is called with each line as a
            string, without its newline. A stream or callable that raises is logged once and gets no
            more; the daemon goes on. A stream is written to in the event loop, so it must not
            block: as long as it does, nothing of this program runs, not even Ctrl-C. A path must be
            that of a file or device, since a FIFO blocks.
        timestamps: Whether each line that goes to ``to`` begins with the time at which its end was
            read: ``2026-03-01T09:30:00.250+01:00``, the local time with milliseconds and the offset
            from UTC (ISO 8601), which people read without reckoning and programs without guessing,
            also in the hour that comes twice in autumn. Defaults to False.
        prefix: What stands before each line that goes to ``to``, after the time, such as ``"db: "``
            where several daemons write to one place. Defaults to nothing.
        rotate: When a file makes room for a new one. Defaults to None: never, so that a talkative
            daemon fills the disk.

    Without ``timestamps`` and ``prefix`` a file or stream gets the bytes as the daemon writes them.
    With one of them, ``to`` is served line by line: a line is written when it is whole, and what
    the daemon leaves unfinished at its end is written with a newline. Bytes that are no UTF-8 reach
    files and binary streams as they are, and callables as ``\xNN``. A line over 64 KiB comes in
    parts, each but the last of which ends with `` [...]``. The tail and ``daemon.lines()`` have
    neither time nor prefix.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    tail_bytes: int = field(default=DEFAULT_TAIL_BYTES, converter=_size)
    to: Sink | None = field(default=None, converter=_sink)
    timestamps: bool = field(default=False, validator=_is_flag, kw_only=True)
    prefix: str = field(default="", converter=check_prefix, kw_only=True)
    rotate: Rotate | None = field(default=None, validator=_is_rotate, kw_only=True)
