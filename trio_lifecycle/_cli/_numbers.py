"""Numbers as they are written in a shell."""

from contextlib import suppress

from trio_lifecycle._errors import ConfigError


def read_number(option: str, text: str) -> float:
    """Read a number; one that was typed without a point is shown without one in errors, too.

    Raises:
        ConfigError: It is none; names the option.
    """
    for read in (int, float):
        with suppress(ValueError):
            return read(text)
    raise ConfigError(option, f"wants a number of seconds, not {text!r}")
