"""Who waits for whom: a start that waits for itself, by whatever way round, would wait for ever."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from trio_lifecycle._errors import ConfigError


class Underway:
    """One start of a daemon under way, as far as others wait for it.

    Args:
        name: The daemon's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._waits_for: list[Underway] = []

    @contextmanager
    def doing(self) -> Iterator[None]:
        """Say that what is done in this block, and what that starts, is part of it."""
        token = _doing.set(self)
        try:
            yield
        finally:
            _doing.reset(token)

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Wait for it in this block.

        Raises:
            ConfigError: It waits for the start that this block is part of.
        """
        waiting = _doing.get()
        if waiting is None:
            yield
            return
        if self._leads_to(waiting):
            raise ConfigError(
                "preflight",
                f"the start of {waiting._name} asks for {self._name}, which waits for it in turn; "
                "ask for that one before, not within it",
            )
        waiting._waits_for.append(self)
        try:
            yield
        finally:
            waiting._waits_for.remove(self)

    def _leads_to(self, other: "Underway") -> bool:
        return self is other or any(start._leads_to(other) for start in self._waits_for)


@contextmanager
def apart() -> Iterator[None]:
    """Say that what is done in this block, and what that starts, is part of no start."""
    token = _doing.set(None)
    try:
        yield
    finally:
        _doing.reset(token)


_doing: Final[ContextVar[Underway | None]] = ContextVar("trio_lifecycle_start", default=None)
