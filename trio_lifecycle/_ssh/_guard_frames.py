"""What a guard writes, taken apart: JSON lines, some with raw bytes behind them."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

# A line of the guard has some hundred bytes. What goes on without an end is none.
_LONGEST_LINE_BYTES: Final = 65_536
# What precedes the greeting: a banner, and what the login shell's files print.
_LONGEST_NOISE_BYTES: Final = 1 << 20


class GarbledError(Exception):
    """Something else than the guard has written; says what."""


class Frame(NamedTuple):
    """One thing that was said.

    Attributes:
        facts: Its line.
        raw: The bytes behind it that have come; they may come in several frames with one line.
    """

    facts: dict[str, Any]
    raw: bytes


class Frames:
    """Takes apart what comes in whatever pieces.

    Args:
        token: What the first line begins with; all before it is skipped.
    """

    def __init__(self, token: str) -> None:
        self._mark = token.encode() + b" "
        self._is_greeted = False
        self._unread = bytearray()
        self._facts: dict[str, Any] = {}
        self._owed = 0

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Give what has become whole.

        Raises:
            GarbledError: It can't be understood.
        """
        self._unread += chunk
        while self._skip_noise() and (frame := self._next()) is not None:
            yield frame

    def _skip_noise(self) -> bool:
        if not self._is_greeted:
            place = self._unread.find(self._mark)
            if place < 0:
                if len(self._unread) > _LONGEST_NOISE_BYTES:
                    raise GarbledError("the guard writes without an end, and no greeting")
                return False
            del self._unread[: place + len(self._mark)]
            self._is_greeted = True
        return True

    def _next(self) -> Frame | None:
        if self._owed:
            raw = bytes(self._unread[: self._owed])
            del self._unread[: len(raw)]
            self._owed -= len(raw)
            return Frame(self._facts, raw) if raw else None
        end = self._unread.find(b"\n")
        if end > _LONGEST_LINE_BYTES or (end < 0 and len(self._unread) > _LONGEST_LINE_BYTES):
            raise GarbledError("the guard writes a line without an end")
        if end < 0:
            return None
        line = bytes(self._unread[:end])
        del self._unread[: end + 1]
        self._facts = _read(line)
        self._owed = _length(self._facts)
        # What bytes follow comes with them.
        return self._next() if self._owed else Frame(self._facts, b"")


def _read(line: bytes) -> dict[str, Any]:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise GarbledError(f"the guard writes what can't be understood: {line[:80]!r}")
    return facts


def _length(facts: dict[str, Any]) -> int:
    length = facts.get("n", 0)
    if not isinstance(length, int) or length < 0:
        raise GarbledError(f"the guard announces {length!r} bytes")
    return length


def number_in(facts: Mapping[str, Any], name: str, least: int = 0) -> int:
    """Give a number that was said.

    Raises:
        GarbledError: It is none, or less than it may be.
    """
    value = facts.get(name)
    if type(value) is not int or not least <= value < 1 << 64:
        raise GarbledError(f"the guard says {value!r:.80} for {name!r}")
    return value
