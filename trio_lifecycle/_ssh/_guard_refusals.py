"""Why another machine refused to start a program, in words."""

import errno
import os
from collections.abc import Mapping
from typing import Final

from trio_lifecycle._errors import SpawnError
from trio_lifecycle._limits import show_limit
from trio_lifecycle.abc import SpawnRequest

# Errors of a machine that is short of something now and may have it later.
_RETRYABLE: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})

# Linux has the same numbers on nearly all processors, and those of execve(2) on all.
_DIRECTORY: Final[Mapping[int, str]] = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is no directory",
    errno.EACCES: "may not be entered",
}

_TOO_BIG: Final = (
    "the arguments and the environment are larger than the system takes (execve(2), E2BIG)"
)


def refusal(request: SpawnRequest, stage: str, what: str, number: int | None) -> SpawnError:
    """Make the error for a program that could not be started there.

    Args:
        request: What was to be started.
        stage: What was refused: "directory", "umask", "limits", "group", "user", "gate" or
            "program".
        what: Which of them, for a limit its name.
        number: The error number; -1 for a user or group that is not known.
    """
    if number == -1:
        account = request.group if stage == "group" else request.user
        return SpawnError(request.name, f"there is no {stage} {account!r} on that machine")
    problem = _sentence(request, stage, what, number or 0)
    if number == errno.EPERM and stage in ("limits", "group", "user"):
        problem += "; only root may" + (" raise a hard limit" if stage == "limits" else "")
    return SpawnError(request.name, problem, number, number in _RETRYABLE)


def _sentence(request: SpawnRequest, stage: str, what: str, number: int) -> str:
    reason = os.strerror(number)
    match stage:
        case "gate":
            return "its process has ended at its gate"
        case "directory":
            where = request.working_dir or "the login's directory"
            return f"its working directory {where} {_DIRECTORY.get(number, f': {reason}')}"
        case "umask":
            return f"its umask can't be set: {reason}"
        case "limits":
            return f"its limit {what} can't be set to {_show(*request.limits[what])}: {reason}"
        case "group" if request.group is not None:
            return f"it may not take the group {request.group!r}: {reason}"
        case "group" | "user":
            return f"it may not become user {request.user!r}: {reason}"
    return _TOO_BIG if number == errno.E2BIG else f"{request.program}: {reason}"


def _show(soft: int | None, hard: int | None) -> str:
    if soft == hard:
        return show_limit(hard)
    return f"{show_limit(soft)} (soft) and {show_limit(hard)} (hard)"
