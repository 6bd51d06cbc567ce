"""Paths that lead to the same place from anywhere."""

from pathlib import Path

from trio_lifecycle._errors import ConfigError


def absolute(field: str, path: str | Path) -> Path:
    """Complete a relative path by the current directory, as it is now.

    Raises:
        ConfigError: There is no current directory any more; names ``field``.
    """
    try:
        return Path(path).absolute()
    except FileNotFoundError:
        problem = f"{path} is relative, and the current directory is gone; give an absolute path"
        raise ConfigError(field, problem) from None
