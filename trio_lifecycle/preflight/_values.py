"""What the fields of checks take, and how checks are shown."""

import os
import sys
from pathlib import Path
from typing import Any, Final

from attrs import NOTHING, Attribute, AttrsInstance, fields

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._seconds import check_seconds

BYTES_PER_GIB: Final = 2**30


def check_timeout(value: float) -> float:
    """Return the limit of a check as a float."""
    return check_seconds("check_timeout", value)


def wait_for_recovery(value: float) -> float:
    """Return the seconds that a stop waits as a float; 0 is not at all."""
    is_zero = not isinstance(value, bool) and value == 0
    return 0.0 if is_zero else check_seconds("wait_for_recovery", value)


def gib(value: float) -> float:
    """Return an amount as a float."""
    return _amount("gib", value)


def _amount(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(name, f"must be a number of GiB, not {value!r}")
    # A comparison, not math.isfinite: that can't take an integer beyond what a float can hold.
    if not 0 < value <= sys.float_info.max:
        raise ConfigError(name, f"must be more than 0 GiB and finite, not {value!r}")
    return float(value)


def path(value: object) -> Path:
    """Return a path; a relative one counts from the current directory when the check runs."""
    return _path("path", value)


def _path(name: str, value: object) -> Path:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(name, f"must be a path, not {value!r}")
    return Path(text)


def is_whole(check: object, attribute: "Attribute[int]", value: object) -> None:
    """Insist on a number of bytes."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(attribute.name, f"must be a number of bytes from 0 on, not {value!r}")


def is_name(check: object, attribute: "Attribute[str]", value: object) -> None:
    """Insist on what may be a program's name or path."""
    if not isinstance(value, str) or not value or "\0" in value or value.endswith("/"):
        raise ConfigError(attribute.name, f"must be a program's name or path, not {value!r}")


def directories(value: object) -> tuple[Path, ...]:
    """Return directories to look in."""
    if not isinstance(value, (list, tuple)):
        raise ConfigError("search_path", f"must be a list of directories, not {value!r}")
    return tuple(_path(f"search_path[{number}]", item) for number, item in enumerate(value))


def in_gib(amount: float) -> str:
    """Write a number of bytes for people."""
    return f"{amount / BYTES_PER_GIB:,.2f} GiB"


def brief(check: AttrsInstance) -> str:
    """Show a check as it would be written: without what stands at its default."""
    shown = [
        f"{one.name}={_plain(getattr(check, one.name))!r}"
        for one in fields(type(check))
        if one.default is NOTHING or getattr(check, one.name) != one.default
    ]
    return f"{type(check).__name__}({', '.join(shown)})"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
