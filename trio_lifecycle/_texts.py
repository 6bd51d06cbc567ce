"""Texts that a program can be given: in an argument, a variable, a path."""

import os

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._markers import FREE_PORT, fill, has_stray_nul, markers_in, show

# The highest that FREE_PORT can become.
SAMPLE_PORT = "65535"


def check_text(name: str, value: object) -> str:
    """Return an argument or the like as a string, markers kept.

    The value is not repeated in errors, it may be secret.

    Raises:
        ConfigError: No program can be given this; names the field.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if not isinstance(value, str):
        raise ConfigError(name, f"must be a string or path, not {type(value).__name__}")
    if has_stray_nul(value):
        raise ConfigError(
            name, "contains a NUL, which no argument or environment variable can hold"
        )
    if not is_encodable(value):
        raise ConfigError(name, "contains a character that can't be encoded, a lone surrogate")
    return value


def is_encodable(text: str) -> bool:
    """Say whether the system can take a text."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def check_path(name: str, value: object) -> str:
    """Return the path of a file as a string; it may hold FREE_PORT.

    Raises:
        ConfigError: It is none; names the field.
    """
    path = check_text(name, value)
    if not path or path.endswith("/"):
        raise ConfigError(name, f"{show(path)!r} names no file")
    if "\0" in with_sample_port(path):
        raise ConfigError(name, f"{show(path)!r} can hold no other marker than FREE_PORT")
    return path


def check_plain_path(name: str, value: object) -> str:
    """Return the path of a file that is the same in every spawn.

    Raises:
        ConfigError: It is none; names the field.
    """
    path = check_path(name, value)
    if markers_in([path]):
        raise ConfigError(name, f"{show(path)!r} can hold no marker")
    return path


def with_sample_port(text: str) -> str:
    """Give a text as long as it can become."""
    return fill(text, {FREE_PORT: SAMPLE_PORT})


def on_one_line(text: str, limit: int) -> str:
    """Write a text for people: one line of at most so many characters, nothing unprintable."""
    shown = "".join(char if char.isprintable() else "?" for char in text)
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
