"""The changes that a daemon's environment gets: fixed, comparable, and silent about its values."""

from collections.abc import Iterator, Mapping


class Environment(Mapping[str, str | None]):
    """Variables by name, None for one to remove. It can't be changed, and shows no value.

    Values may be secret; a ``repr`` ends up in logs and tracebacks.
    """

    def __init__(self, variables: Mapping[str, str | None]) -> None:
        self._variables = dict(variables)

    def __getitem__(self, name: str) -> str | None:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def __hash__(self) -> int:
        return hash(frozenset(self._variables.items()))

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{name!r}: ..." for name in self) + "}"
