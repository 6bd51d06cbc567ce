"""Where a daemon's output goes, besides the tail that is always kept."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

from attrs import field, frozen

from trio_lifecycle._errors import ConfigError

# Enough for the last traceback or panic of any runtime, little enough to keep for a thousand
# daemons.
DEFAULT_TAIL_BYTES: Final = 65_536


def _size(size: int) -> int:
    value: object = size
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(
            "output.tail_bytes", f"must be a number of bytes, 0 or more, not {value!r}"
        )
    return value


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


@frozen
class Output:
    """Where a daemon's output goes.

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
    """

    tail_bytes: int = field(default=DEFAULT_TAIL_BYTES, converter=_size)
    to: Sink | None = field(default=None, converter=_sink)
