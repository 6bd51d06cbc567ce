"""Where the user wants the output to go."""

import codecs
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final

from trio_lifecycle._destination import Sink
from trio_lifecycle._output._opening import open_log

_log: Final = logging.getLogger("trio_lifecycle")


class Destination:
    """Passes output on to where the user wants it.

    One that fails is logged once and gets no more.
    """

    def __init__(self, name: str, to: Sink | None) -> None:
        self._name = name
        self._file: int | None = None
        self.takes_lines = False
        self._write: Callable[[bytes], object] | None = None
        self._write_line: Callable[[str], object] | None = None
        if isinstance(to, Path):
            self._file = open_log(to, through_links=True)
            self._write = self._append
        elif callable(to):
            self.takes_lines = True
            self._write_line = to
        elif to is not None:
            self._write = _stream_writer(to)

    def feed(self, chunk: bytes) -> None:
        """Pass on bytes as they come."""
        if self._write is not None:
            self._guarded(self._write, chunk)

    def feed_lines(self, lines: list[str]) -> None:
        """Pass on whole lines."""
        for line in lines:
            if self._write_line is not None:
                self._guarded(self._write_line, line)

    def close(self) -> None:
        """Close what was opened here. Calling it again is fine."""
        if self._file is not None:
            os.close(self._file)
        self._file = self._write = self._write_line = None

    def _append(self, chunk: bytes) -> None:
        assert self._file is not None
        while chunk:
            chunk = chunk[os.write(self._file, chunk) :]

    def _guarded(self, write: Callable[..., object], what: bytes | str) -> None:
        try:
            write(what)
        except Exception:
            _log.exception("the output of %s can't be passed on any more", self._name)
            self._write = self._write_line = None


def _stream_writer(stream: "IO[bytes] | IO[str]") -> Callable[[bytes], object]:
    # A text stream over a buffer (sys.stderr) gets the bytes as they are, so nothing is lost in a
    # decoding.
    binary: Any = getattr(stream, "buffer", stream)
    flush: Callable[[], object] | None = getattr(binary, "flush", None)
    # A character may stand half in one chunk and half in the next.
    decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def write(chunk: bytes) -> None:
        try:
            binary.write(chunk)
        except TypeError:  # a text stream without a buffer, such as io.StringIO
            binary.write(decoder.decode(chunk))
        if flush is not None:
            flush()

    return write
