"""Lines out of arbitrary chunks of bytes."""

from typing import Final

# A program that never writes a newline must not fill our memory; longer lines come in parts.
LONGEST_LINE_BYTES: Final = 65_536

CUT_MARK: Final = " [...]"
"""Ends each part but the last of a line over the bound, so that a part is not taken for a line."""

# UTF-8 (RFC 3629): a character is at most one byte that leads and three that continue it.
_MOST_CONTINUATIONS: Final = 3


class ByteFramer:
    """Cuts a stream of bytes into lines, however the chunks fall; they stay the bytes they are.

    Lines come without their newline. A line over the bound, its ending not counted, comes in parts
    of that size, at most three bytes less where a character would be cut; each but the last ends
    with ``CUT_MARK``.

    Args:
        longest: The bound, in bytes.
        keeps_returns: Whether a carriage return before a newline stays.
    """

    def __init__(self, longest: int = LONGEST_LINE_BYTES, *, keeps_returns: bool = True) -> None:
        self._longest = longest
        self._keeps_returns = keeps_returns
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take a chunk and give the lines that are complete now."""
        lines: list[bytes] = []
        self._rest += chunk
        if b"\n" in chunk:
            *whole, rest = bytes(self._rest).split(b"\n")
            for line in whole:
                last = self._cut(line, lines) if len(line) > self._longest else line
                lines.append(last if self._keeps_returns else last.removesuffix(b"\r"))
            self._rest = bytearray(rest)
        if len(self._rest) > self._longest:
            self._rest = bytearray(self._cut(bytes(self._rest), lines))
        return lines

    def skip(self, chunk: bytes) -> None:
        """Take a chunk whose lines nobody wants; the line that it begins may be wanted later."""
        self._rest = (
            self._rest + chunk if b"\n" not in chunk else bytearray(chunk.rpartition(b"\n")[2])
        )
        del self._rest[: -self._longest]

    def close(self) -> list[bytes]:
        """Give what stands after the last newline, if anything does."""
        lines: list[bytes] = []
        rest = bytes(self._rest)
        # No newline has come after a carriage return, so it is part of the line.
        while len(rest) > self._longest:
            rest = self._cut_once(rest, lines)
        self._rest.clear()
        return [*lines, rest] if rest else lines

    def _cut(self, line: bytes, lines: list[bytes]) -> bytes:
        """Take parts off a line until it is within the bound, and give the rest."""
        # A carriage return is not cut off before what follows it is known.
        while len(line) - line.endswith(b"\r") > self._longest:
            line = self._cut_once(line, lines)
        return line

    def _cut_once(self, line: bytes, lines: list[bytes]) -> bytes:
        size = self._size_of_part(line)
        lines.append(line[:size] + _MARK)
        return line[size:]

    def _size_of_part(self, line: bytes) -> int:
        """Give the bound, or less where it stands within a character."""
        for size in range(self._longest, max(0, self._longest - _MOST_CONTINUATIONS - 1), -1):
            if not 0x80 <= line[size] < 0xC0:
                return size
        # Within no character of UTF-8.
        return self._longest


class LineFramer:
    r"""Cuts a stream of bytes into lines of text, however the chunks fall.

    Lines come without their newline; a carriage return before it is dropped, too. Bytes that are no
    UTF-8 are kept as ``\xNN``.

    A line over the bound comes in parts, see ``ByteFramer``. Who looks for a pattern in lines looks
    in each part by itself: a pattern is found in the part that holds it whole, ``^`` matches at the
    beginning of each part, and ``$`` only at the end of the last, for before that ``CUT_MARK``
    stands.
    """

    def __init__(self, longest: int = LONGEST_LINE_BYTES) -> None:
        self._framer = ByteFramer(longest, keeps_returns=False)
        self.skip = self._framer.skip

    def feed(self, chunk: bytes) -> list[str]:
        """Take a chunk and give the lines that are complete now."""
        return [_decode(line) for line in self._framer.feed(chunk)]

    def close(self) -> list[str]:
        """Give what stands after the last newline, if anything does."""
        return [_decode(line) for line in self._framer.close()]


def _decode(line: bytes) -> str:
    return line.decode(errors="backslashreplace")


_MARK: Final = CUT_MARK.encode()
