"""Where the user wants the output to go."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final, cast

from trio_lifecycle._destination import Output
from trio_lifecycle._framing import ByteFramer
from trio_lifecycle._output._appended import AppendedFile, RotatedFile
from trio_lifecycle._output._head import Head
from trio_lifecycle._output._stream import StreamSink

_log: Final = logging.getLogger("trio_lifecycle")


class Destination:
    """Passes output on to where the user wants it.

    One that fails is logged once and gets no more.

    Args:
        name: The daemon's name.
        output: What is wanted.

    Attributes:
        takes_lines: Whether it is to be given whole lines, not bytes.

    Raises:
        OSError: Its file can't be opened.
    """

    def __init__(self, name: str, output: Output) -> None:
        self._name = name
        self._head = Head(output)
        self._framer = ByteFramer()
        to = output.to
        self.takes_lines = callable(to) and not isinstance(to, Path)
        self._write_line = to if callable(to) else None
        self._sink = None if self.takes_lines else _open(name, output)
        self._write = None if self._sink is None else self._sink.write

    def feed(self, chunk: bytes) -> None:
        """Pass on bytes: as they come, or as soon as a line is whole if each has a head."""
        if self._write is not None:
            self._pass_on(self._framer.feed(chunk) if self._head else chunk)

    def feed_lines(self, lines: list[str]) -> None:
        """Pass on whole lines."""
        head = str(self._head) if lines and self._head else ""
        for line in lines:
            if self._write_line is not None:
                self._guarded(self._write_line, head + line)

    def close(self) -> None:
        """Pass on what is unfinished, and close what was opened here.

        Calling it again is fine.
        """
        self._pass_on(self._framer.close())
        if self._sink is not None:
            if self._write is not None:
                self._guarded(self._sink.finish)
            self._sink.close()
        self._sink = self._write = self._write_line = None

    def _pass_on(self, what: bytes | list[bytes]) -> None:
        if what and self._write is not None:
            self._guarded(self._write, what if isinstance(what, bytes) else self._headed(what))

    def _headed(self, lines: list[bytes]) -> bytes:
        head = str(self._head).encode()
        return b"".join([b"%b%b\n" % (head, line) for line in lines])

    def _guarded(self, act: Callable[..., object], *what: bytes | str) -> None:
        try:
            act(*what)
        except Exception:
            _log.exception("the output of %s can't be passed on any more", self._name)
            self._write = self._write_line = None


def _open(name: str, output: Output) -> AppendedFile | StreamSink | None:
    match output.to:
        case None:
            return None
        case Path() as path if output.rotate is not None:
            return RotatedFile(path, output.rotate, name)
        case Path() as path:
            return AppendedFile(path)
    return StreamSink(cast("IO[bytes]", output.to))
