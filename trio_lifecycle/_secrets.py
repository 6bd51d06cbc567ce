"""Secrets that were given to a daemon, and how they are blotted out of what is shown."""

import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

from attrs import fields

from trio_lifecycle._errors import LifecycleError
from trio_lifecycle._markers import MARKERS

SHORTEST_SECRET: Final = 4
"""Characters that a text must have to be blotted out.

What is shorter stands in half of all lines by chance: blotting it out would leave nothing to read,
and tell by its places what it is."""

BLOT: Final = "***"
"""What stands in a secret's place."""


class Blotter:
    """Blots secrets out of a stream, however the chunks fall.

    Secrets that overlap become one blot. What may be the beginning of a secret is held back until
    it is known; that is always less than the longest secret.

    Args:
        secrets: What is not to be seen; nothing empty.
        covered: How much of the beginning belongs to a secret whose blot was given already.
    """

    def __init__(self, secrets: Iterable[bytes], covered: int = 0) -> None:
        self._secrets = tuple(secrets)
        self._held = b""
        self._covered = covered

    def feed(self, chunk: bytes) -> bytes:
        """Take a chunk and give what may be shown now."""
        text = self._held + chunk
        return self._give(text, self._begins_secret(text))

    def close(self) -> bytes:
        """Give what was held back: it has not become a secret."""
        return self._give(self._held, len(self._held))

    def _give(self, text: bytes, end: int) -> bytes:
        given: list[bytes] = []
        done = 0
        for start, stop in self._spans(text):
            # Of the first, the blot may have been given already.
            is_new = start > 0 or not self._covered
            if is_new and start >= end:
                break
            if is_new:
                given += (text[done:start], BLOT.encode())
            done = stop
        given.append(text[done:end])
        self._covered = max(0, done - end)
        self._held = text[end:]
        return b"".join(given)

    def _spans(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Say where secrets stand: from, to; those that overlap as one."""
        start, stop = 0, self._covered
        for place, end in sorted(self._found(text)):
            if place >= stop:
                if stop:
                    yield start, stop
                start, stop = place, end
            stop = max(stop, end)
        if stop:
            yield start, stop

    def _found(self, text: bytes) -> Iterator[tuple[int, int]]:
        for secret in self._secrets:
            place = text.find(secret)
            while place >= 0:
                yield place, place + len(secret)
                place = text.find(secret, place + 1)

    def _begins_secret(self, text: bytes) -> int:
        """Say from where on the text may be the beginning of a secret; its length if nowhere."""
        earliest = len(text)
        for secret in self._secrets:
            place = text.find(secret[:1], max(0, len(text) - len(secret) + 1))
            while 0 <= place < earliest:
                if secret.startswith(text[place:]):
                    earliest = place
                place = text.find(secret[:1], place + 1)
        return earliest


class TextBlotter:
    """Blots secrets out of a stream of text.

    Args:
        secrets: What is not to be seen; nothing empty.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        # In UTF-8 no character begins within another, so what is given out is whole.
        self._blotter = Blotter(map(_encode, secrets))

    def feed(self, chunk: str) -> str:
        """Take a chunk and give what may be shown now."""
        return _decode(self._blotter.feed(_encode(chunk)))

    def close(self) -> str:
        """Give what was held back: it has not become a secret."""
        return _decode(self._blotter.close())


class Secrets:
    """Texts that must not be shown.

    Of each text, every line is a secret by itself, and every piece between markers, whose values
    are no secrets; without the blanks around it, and if it has at least ``SHORTEST_SECRET``
    characters. Those that were written otherwise, such as URL-quoted or as base64, are not found.
    """

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._pieces = tuple(dict.fromkeys(piece for text in texts for piece in _pieces(text)))
        self._in_bytes = tuple(os.fsencode(piece) for piece in self._pieces)
        self._in_text = tuple(dict.fromkeys(_as_shown(self._pieces)))

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def __repr__(self) -> str:
        return f"<Secrets: {len(self._pieces)}>"

    def bytes_blotter(self) -> Blotter:
        """Give what blots them out of a stream of bytes."""
        return Blotter(self._in_bytes)

    def text_blotter(self) -> TextBlotter:
        """Give what blots them out of a stream of text."""
        return TextBlotter(self._in_text)

    def blot_out(self, text: str) -> str:
        """Give a text without them."""
        blotter = self.text_blotter()
        return blotter.feed(text) + blotter.close()

    def blot_out_tail(self, tail: bytes) -> bytes:
        """Give the end of a stream without them; it may begin in the middle of one."""
        covered = max((_cut_off(tail, secret) for secret in self._in_bytes), default=0)
        blotter = Blotter(self._in_bytes, covered)
        beginning = BLOT.encode() if covered else b""
        return beginning + blotter.feed(tail) + blotter.close()

    def show_tail(self, tail: bytes) -> str:
        """Give the end of a stream for people: decoded, and without them."""
        return self.blot_out(self.blot_out_tail(tail).decode(errors="backslashreplace"))

    def blot_out_rest(self, text: str) -> str:
        """Give a text without them; it may begin in the middle of one."""
        return self.show_tail(text.encode(errors="backslashreplace"))

    def blot_out_error(self, error: BaseException) -> None:
        """Take them out of an error of ours, and of those that have led to it.

        A traceback shows them all. Of an error that is not ours nothing is known.
        """
        if not self or not isinstance(error, LifecycleError):
            return
        for cause in _chain(error):
            if isinstance(cause, LifecycleError):
                self._blot_out_ours(cause)
            else:
                self._blot_out_others(cause)

    def _blot_out_others(self, error: BaseException) -> None:
        # Also args alone, for the text of an OSError is made of its attributes.
        error.args = self._blot_out_fact(error.args, None)
        if isinstance(error, OSError):
            for name in ("strerror", "filename", "filename2"):
                # One that has none would say so in its text once it was set.
                if isinstance(fact := getattr(error, name), str):
                    setattr(error, name, self.blot_out(fact))

    def _blot_out_ours(self, error: LifecycleError) -> None:
        # Its name is what a daemon is found by, and no secret.
        name = getattr(error, "daemon", None)
        for attribute in fields(type(error)):
            fact = getattr(error, attribute.name)
            setattr(error, attribute.name, self._blot_out_fact(fact, name))
        error.args = self._blot_out_fact(error.args, name)

    def _blot_out_fact(self, fact: Any, name: object) -> Any:
        match fact:
            case str() if fact != name:
                return self.blot_out(fact)
            case tuple():
                return tuple(self._blot_out_fact(part, name) for part in fact)
        return fact


def _pieces(text: str) -> Iterator[str]:
    for marker in MARKERS:
        text = text.replace(marker, "\n")
    for line in text.split("\n"):
        if len(piece := line.strip()) >= SHORTEST_SECRET:
            yield piece


def _as_shown(pieces: Iterable[str]) -> Iterator[str]:
    """Give the forms of texts in messages: as they are, decoded from bytes, in a ``repr``."""
    for piece in pieces:
        yield piece
        yield os.fsencode(piece).decode(errors="backslashreplace")
        yield repr(piece)[1:-1]


def _chain(error: BaseException) -> list[BaseException]:
    """Give an error and those that it comes from, each once."""
    chain = [error]
    for each in chain:
        chain += [
            cause
            for cause in (each.__cause__, each.__context__)
            if cause is not None and cause not in chain
        ]
    return chain


def _cut_off(tail: bytes, secret: bytes) -> int:
    """Say how much of a secret whose beginning was cut off the tail begins with."""
    lengths = range(min(len(secret) - 1, len(tail)), SHORTEST_SECRET - 1, -1)
    return next((length for length in lengths if tail.startswith(secret[-length:])), 0)


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode(errors="surrogatepass")
