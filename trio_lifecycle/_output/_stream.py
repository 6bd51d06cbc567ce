"""The user's stream that output is written to."""

import codecs
import io
from collections.abc import Callable
from typing import IO, Any


class StreamSink:
    """A stream that bytes are written to as they come, and flushed.

    Args:
        stream: Anything that has ``write()``. A text stream over a buffer, such as ``sys.stderr``,
            gets the bytes as they are, so nothing is lost in a decoding.
    """

    def __init__(self, stream: "IO[bytes] | IO[str]") -> None:
        self._stream: Any = getattr(stream, "buffer", stream)
        self._flush: Callable[[], object] | None = getattr(self._stream, "flush", None)
        # A character may stand half in one chunk and half in the next.
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="backslashreplace")

    def write(self, chunk: bytes) -> None:
        """Write a chunk; what the stream raises is raised."""
        try:
            self._write_all(chunk)
        except TypeError:  # a text stream without a buffer, such as io.StringIO
            self._stream.write(self._decoder.decode(chunk))
        if self._flush is not None:
            self._flush()

    def _write_all(self, chunk: bytes) -> None:
        written = self._stream.write(chunk)
        if isinstance(self._stream, io.RawIOBase):
            # Nothing of ours is behind it that would take the rest.
            while chunk := chunk[_taken(written) :]:
                written = self._stream.write(chunk)

    def finish(self) -> None:
        """Write what stands of a character that has not come to its end."""
        if rest := self._decoder.decode(b"", final=True):
            self._stream.write(rest)

    def close(self) -> None:
        """Leave it open: it is the user's."""


def _taken(written: int | None) -> int:
    if written is None:
        raise BlockingIOError("the stream does not block, and takes nothing now")
    return written
