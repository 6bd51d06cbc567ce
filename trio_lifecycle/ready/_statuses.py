"""Sets of statuses, as users write them."""

from collections.abc import Iterable

from trio_lifecycle._errors import ConfigError

Statuses = int | range | Iterable[int | range]


def read_statuses(field: str, value: object, possible: range) -> frozenset[int]:
    """Read a status, a range of them, or several of both.

    Raises:
        ConfigError: It is something else; names the field.
    """
    items = [value] if isinstance(value, int | range) else value
    if isinstance(items, str | bytes) or not isinstance(items, Iterable):
        raise _wrong(field, value, possible)
    found: set[int] = set()
    for item in items:
        if isinstance(item, bool) or not isinstance(item, int | range):
            raise _wrong(field, item, possible)
        some = item if isinstance(item, range) else range(item, item + 1)
        if some and not (min(some) in possible and max(some) in possible):
            raise _wrong(field, item, possible)
        found.update(some)
    return frozenset(found)


def _wrong(field: str, value: object, possible: range) -> ConfigError:
    limits = f"numbers from {possible[0]} to {possible[-1]}"
    return ConfigError(
        field, f"must be {limits}, or ranges of them such as range(200, 300), not {value!r}"
    )


def show_statuses(statuses: frozenset[int]) -> str:
    """Write a set of statuses for people, runs of them as ``200-299``."""
    runs: list[list[int]] = []
    for status in sorted(statuses):
        if runs and status == runs[-1][-1] + 1:
            runs[-1].append(status)
        else:
            runs.append([status])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
