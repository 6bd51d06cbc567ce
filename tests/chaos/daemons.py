"""The kinds of daemons in a campaign, and how each is started."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.chaos import menagerie

PROGRAM: Final = Path(menagerie.__file__).resolve()
KINDS: Final = tuple(menagerie.KINDS)

# Those whose processes are the same from their first word on: what an idle time is measured with.
STEADY_KINDS: Final = ("plain", "forking", "setsid", "double", "deaf", "emptied", "chain")

# Those that are gone at the first polite signal, once they are up: nobody may wait longer for them.
OBEDIENT_KINDS: Final = (
    *("plain", "forking", "setsid", "double", "stopped", "flood", "emptied", "chain", "server"),
)


def command(kind: str, *args: str) -> list[str]:
    """Give the command line of a daemon."""
    return [sys.executable, "-I", "-S", str(PROGRAM), kind, *args]


def kind_of(command_line: Sequence[str]) -> str:
    """Say of which kind a process is; empty for one that is no daemon of a campaign."""
    if str(PROGRAM) not in command_line[:-1]:
        return ""
    return command_line[command_line.index(str(PROGRAM)) + 1]
