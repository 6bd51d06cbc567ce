"""Which names a daemon can have: they become file names, table rows and prefixes of lines."""

from typing import Final

from trio_lifecycle._errors import ConfigError

# File names hold 255 bytes; the rest is for our endings (.log.5, .lock).
LONGEST_NAME_BYTES: Final = 200


def check_name(field: str, name: object) -> str:
    """Return the name if a daemon can have it.

    Raises:
        ConfigError: It can't; the message names ``field`` and what is wrong.
    """
    if not isinstance(name, str):
        raise ConfigError(field, f"must be a string, not {name!r}")
    if not name or name in (".", ".."):
        raise ConfigError(field, f"{name!r} is no name; give one such as name='queen'")
    if "/" in name or not name.isprintable():
        raise ConfigError(
            field, f"{name!r} can't be a file name: it holds '/' or what can't be printed"
        )
    if len(name.encode(errors="surrogateescape")) > LONGEST_NAME_BYTES:
        raise ConfigError(field, f"is longer than {LONGEST_NAME_BYTES} bytes")
    return name
