"""What a daemon may use and whom it runs as: limits, umask, user and group."""

import os
from collections.abc import Iterator, Mapping
from typing import Final

from trio_lifecycle._errors import ConfigError

# The names of setrlimit(2) in lower case, without RLIMIT_; not "locks" and "ofile", which Linux
# ignores or spells otherwise.
LIMIT_NAMES: Final = (
    *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc"),
    *("rss", "rtprio", "rttime", "sigpending", "stack"),
)

# Python's resource module takes numbers of 63 bits; the kernel has one bit more.
_LARGEST_LIMIT: Final = 2**63 - 1

# The last one before (uid_t) -1, which stands for "unchanged" in setresuid(2).
_LARGEST_ID: Final = 2**32 - 2


class Limits(Mapping[str, tuple[int | None, int | None]]):
    """Limits by name, each as (soft, hard), None for unlimited. It can't be changed."""

    def __init__(self, limits: Mapping[str, tuple[int | None, int | None]]) -> None:
        self._limits = dict(limits)

    def __getitem__(self, name: str) -> tuple[int | None, int | None]:
        return self._limits[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._limits)

    def __len__(self) -> int:
        return len(self._limits)

    def __hash__(self) -> int:
        return hash(frozenset(self._limits.items()))

    def __repr__(self) -> str:
        return repr(self._limits)


def read_limits(limits: Mapping[str, int | tuple[int | None, int | None] | None]) -> Limits:
    """Return limits as pairs of a soft and a hard one.

    Raises:
        ConfigError: It is no mapping, or holds what setrlimit(2) can't mean.
    """
    value: object = limits
    if not isinstance(value, Mapping):
        raise ConfigError(
            "limits", f'must be a mapping such as {{"nofile": 65536}}, not {type(value).__name__}'
        )
    return Limits({_limit_name(key): _pair(f"limits[{key!r}]", limits[key]) for key in value})


def _limit_name(key: object) -> str:
    if isinstance(key, str) and key in LIMIT_NAMES:
        return key
    near = _near(key) if isinstance(key, str) else []
    cure = f"did you mean {' or '.join(map(repr, near))}?" if near else ", ".join(LIMIT_NAMES)
    raise ConfigError("limits", f"{key!r} is no limit of setrlimit(2): {cure}")


def _near(key: str) -> list[str]:
    # Only a typo needs it, and it takes a millisecond to import.
    from difflib import get_close_matches

    return get_close_matches(key.lower().removeprefix("rlimit_"), LIMIT_NAMES)


def _pair(field: str, value: object) -> tuple[int | None, int | None]:
    if isinstance(value, tuple) and len(value) == 2:
        soft, hard = _number(field, value[0]), _number(field, value[1])
    else:
        soft = hard = _number(field, value)
    if _height(soft) > _height(hard):
        raise ConfigError(field, f"the soft limit {show_limit(soft)} is over the hard one, {hard}")
    return soft, hard


def _number(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(
            field, f"must be a number, None for unlimited, or a pair (soft, hard), not {value!r}"
        )
    if not 0 <= value <= _LARGEST_LIMIT:
        raise ConfigError(field, f"must be from 0 to 2**63 - 1, or None for unlimited, not {value}")
    return int(value)


def _height(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def show_limit(limit: int | None) -> str:
    """Say a limit as ``ulimit`` does."""
    return "unlimited" if limit is None else str(limit)


def check_umask(umask: int | None) -> int | None:
    """Return a umask.

    Raises:
        ConfigError: It is no number from 0 to 0o777.
    """
    if umask is None:
        return None
    value: object = umask
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError("umask", f"must be a number such as 0o077, not {value!r}")
    if not 0 <= value <= 0o777:
        raise ConfigError("umask", f"must be from 0 to 0o777, not {value:#o}")
    return int(value)


def check_user(user: str | int | None) -> str | int | None:
    """Return the name or id of a user.

    Raises:
        ConfigError: No user can have it.
    """
    return _account("user", user)


def check_group(group: str | int | None) -> str | int | None:
    """Return the name or id of a group.

    Raises:
        ConfigError: No group can have it.
    """
    return _account("group", group)


def _account(field: str, value: object) -> str | int | None:
    match value:
        case None:
            return None
        case bool():
            pass
        case str():
            if not _is_account_name(value):
                raise ConfigError(field, f"{value!r} can't be the name of a {field}")
            return value
        case int():
            if not 0 <= value <= _LARGEST_ID:
                raise ConfigError(field, f"an id is from 0 to 2**32 - 2, not {value}")
            return int(value)
    raise ConfigError(field, f"must be a name or an id, not {value!r}")


def _is_account_name(name: str) -> bool:
    """Whether passwd(5) and group(5) can hold it: they part their fields by colons and lines."""
    if not name or any(char in "\0:\n" for char in name):
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True
