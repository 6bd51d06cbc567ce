"""Why the system refused to start a program, in words."""

import errno
import os
from pathlib import Path
from typing import Final

from trio_lifecycle._errors import SpawnError
from trio_lifecycle.abc import SpawnRequest

# Errors of a machine that is short of something now and may have it later.
RETRYABLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})

# execve(2): one argument or variable may have 131,072 bytes, all together a quarter of the stack
# limit.
_TOO_BIG: Final = (
    "the arguments and the environment are larger than the system takes (execve(2), E2BIG)"
)


def refusal(request: SpawnRequest, number: int, what: str | None = None) -> SpawnError:
    """Make the error for a program that could not be started.

    Args:
        request: What was to be started.
        number: The system's error number.
        what: What was refused, as a sentence without the reason; by default the program's start.
    """
    problem = _explain(request, number) if what is None else f"{what}: {os.strerror(number)}"
    return SpawnError(request.name, problem, number, number in RETRYABLE)


def _explain(request: SpawnRequest, number: int) -> str:
    directory = request.working_dir
    if directory is not None and not directory.is_dir():
        missing = "is no directory" if _exists(directory) else "does not exist"
        return f"its working directory {directory} {missing}"
    if directory is not None and not os.access(directory, os.X_OK):
        return f"its working directory {directory} may not be entered"
    if number == errno.E2BIG:
        return _TOO_BIG
    return f"{request.program}: {os.strerror(number)}"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
