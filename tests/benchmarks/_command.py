"""The command line of the benchmarks' daemon, and the note that it leaves."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PROGRAM: Final = Path(__file__).with_name("daemon.py")

# Longer than any benchmark waits.
NEVER_MS: Final = 3_600_000

NO_NOTE: Final = Path("/dev/null")


def serving(port: object, start_up_ms: int = 0, note: Path = NO_NOTE) -> list[str]:
    """Give the interpreter's arguments for a daemon that answers HTTP; the port may be a marker."""
    return ["-I", "-S", str(PROGRAM), "serve", str(start_up_ms), str(note), str(port)]


def calling(start_up_ms: int = 0, note: Path = NO_NOTE) -> list[str]:
    """Give the interpreter's arguments for a daemon that calls back."""
    return ["-I", "-S", str(PROGRAM), "call", str(start_up_ms), str(note)]


def accepting(start_up_ms: int = 0, note: Path = NO_NOTE) -> list[str]:
    """Give the interpreter's arguments for a daemon that answers from the socket it was passed."""
    return ["-I", "-S", str(PROGRAM), "accept", str(start_up_ms), str(note)]


def notifying(start_up_ms: int = 0, note: Path = NO_NOTE) -> list[str]:
    """Give the interpreter's arguments for a daemon that says READY=1."""
    return ["-I", "-S", str(PROGRAM), "notify", str(start_up_ms), str(note)]


def writing(fd: int, start_up_ms: int = 0, note: Path = NO_NOTE) -> list[str]:
    """Give the interpreter's arguments for a daemon that writes a line to a descriptor."""
    return ["-I", "-S", str(PROGRAM), "write", str(start_up_ms), str(note), str(fd)]


def interpreter() -> str:
    """Give the program that runs it."""
    return sys.executable


@contextmanager
def note_file() -> Iterator[Path]:
    """Give the path of a note that is not written yet."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as directory:
        yield Path(directory) / "note"


def read_moment(note: Path) -> int:
    """Give the moment in a note, in nanoseconds of ``time.monotonic_ns()``."""
    return int(note.read_text())
