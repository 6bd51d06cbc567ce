"""Markers.

Values that are known only at spawn, written into arguments, environment and URLs beforehand.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Self


class Marker(str):
    """A value that is filled in when the daemon is spawned.

    A marker is a string, so it works as an argument of its own, inside an f-string and in a sum.
    Its text carries a NUL, which no argument, environment variable or URL can hold: nothing else
    can collide with it.
    """

    __slots__ = ()

    def __new__(cls, name: str) -> Self:
        return super().__new__(cls, f"\0{name}\0")

    @property
    def name(self) -> str:
        """The marker's name, as it is written in code."""
        return self.strip("\0")

    def __repr__(self) -> str:
        return self.name

    def __getnewargs__(self) -> tuple[str]:
        return (self.name,)


FREE_PORT: Final = Marker("FREE_PORT")
"""A TCP port that is free when the daemon is spawned; the same number everywhere in one spawn."""

CALLBACK_URL: Final = Marker("CALLBACK_URL")
"""The URL to which a daemon under ``Callback`` reports.

It is always in ``TRIO_LIFECYCLE_CALLBACK_URL``, too.
"""

MARKERS: Final = (FREE_PORT, CALLBACK_URL)


def markers_in(texts: Iterable[str]) -> frozenset[Marker]:
    """Say which markers stand in these texts."""
    return frozenset(marker for text in texts for marker in MARKERS if marker in text)


def fill(text: str, values: Mapping[Marker, str]) -> str:
    """Put values in the place of markers; markers without a value stay."""
    for marker, value in values.items():
        text = text.replace(marker, value)
    return text


def has_stray_nul(text: str) -> bool:
    """Say whether a NUL remains once the markers are taken out: one that the user wrote."""
    # Not taken out for nothing: what stands around one marker could then close up to another.
    return "\0" in fill(text, dict.fromkeys(MARKERS, " "))


def show(text: str) -> str:
    """Write a text for people: markers appear as ``{FREE_PORT}``."""
    return fill(text, {marker: f"{{{marker.name}}}" for marker in MARKERS})
