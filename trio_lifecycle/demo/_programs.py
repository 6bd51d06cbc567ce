"""Where the four programs are: installed beside the Python that runs this."""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Final

PROGRAMS: Final = Path(sysconfig.get_path("scripts"))
PYTHON: Final = sys.executable


def state_folder() -> Path:
    """Give the folder where the queen remembers hives (XDG Base Directory Specification)."""
    base = os.environ.get("XDG_STATE_HOME", "")
    home = Path(base) if base.startswith("/") else Path.home() / ".local/state"
    return home / "rbee"
