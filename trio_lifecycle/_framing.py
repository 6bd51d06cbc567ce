"""Lines out of arbitrary chunks of bytes."""

from typing import Final

# A program that never writes a newline must not fill our memory; longer lines come in parts.
LONGEST_LINE_BYTES: Final = 65_536


class LineFramer:
    r"""Cuts a stream of bytes into lines, however the chunks fall.

    Lines come without their newline; a carriage return before it is dropped, too. A line over the
    bound, its ending not counted, comes in parts of that size. Bytes that are no UTF-8 are kept as
    ``\xNN``.
    """

    def __init__(self, longest: int = LONGEST_LINE_BYTES) -> None:
        self._longest = longest
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[str]:
        """Take a chunk and give the lines that are complete now."""
        lines: list[str] = []
        first, *more = chunk.split(b"\n")
        self._rest += first
        for piece in more:
            if self._rest.endswith(b"\r"):
                del self._rest[-1:]
            self._cut(lines)
            lines.append(self._take(len(self._rest)))
            self._rest += piece
        # A carriage return is not cut off before what follows it is known.
        self._cut(lines, self._rest.endswith(b"\r"))
        return lines

    def skip(self, chunk: bytes) -> None:
        """Take a chunk whose lines nobody wants; the line that it begins may be wanted later."""
        self._rest = (
            self._rest + chunk if b"\n" not in chunk else bytearray(chunk.rpartition(b"\n")[2])
        )
        del self._rest[: -self._longest]

    def close(self) -> list[str]:
        """Give what stands after the last newline, if anything does."""
        lines: list[str] = []
        self._cut(lines)
        return [*lines, self._take(len(self._rest))] if self._rest else lines

    def _cut(self, lines: list[str], spared: int = 0) -> None:
        while len(self._rest) - spared > self._longest:
            lines.append(self._take(self._longest))

    def _take(self, size: int) -> str:
        line = bytes(self._rest[:size])
        del self._rest[:size]
        return line.decode(errors="backslashreplace")
