"""Where the four programs are: installed beside the Python that runs this."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

from trio_lifecycle import ConfigError

PROGRAMS: Final = Path(sysconfig.get_path("scripts"))
PYTHON: Final = sys.executable


def state_folder() -> Path:
    """Give the folder where the queen remembers hives (XDG Base Directory Specification).

    Raises:
        ConfigError: This user has no home directory.
    """
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base.startswith("/") else _home() / ".local/state") / "rbee"


def _home() -> Path:
    try:
        home = Path.home()
    except RuntimeError:  # as in a container that runs under any number
        home = Path()
    if not home.is_absolute():
        raise ConfigError("state directory", "this user has no home directory; set XDG_STATE_HOME")
    return home


def absolute(option: str, path: Path) -> Path:
    """Complete a relative path by the current directory, as it is now.

    Raises:
        ConfigError: There is no current directory any more; names the option.
    """
    try:
        return path.absolute()
    except FileNotFoundError:
        problem = f"{path} is relative, and the current directory is gone; give an absolute path"
        raise ConfigError(option, problem) from None
