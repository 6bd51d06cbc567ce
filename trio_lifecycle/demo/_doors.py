"""The ways in from a shell: each program by its name, and what is said where it can't run."""

import importlib
import importlib.util
import shlex
import sys
from typing import Final

# What the extra `demo` brings, and what `ssh` does, for hives on other machines.
_NEEDED: Final = ("starlette", "hypercorn")
_NEEDED_BY_HOSTS: Final = ("asyncssh",)
_WRONG_USE: Final = 2
_INTERRUPTED: Final = 130


def lacks_extra(*, hosts: bool = False) -> bool:
    """Whether what the programs need is not installed.

    Args:
        hosts: Whether they are to run on other machines, too. Defaults to this one only.
    """
    needed = (*_NEEDED, *(_NEEDED_BY_HOSTS if hosts else ()))
    return any(importlib.util.find_spec(name) is None for name in needed)


def advice(extras: str) -> str:
    """Say how to get it."""
    # A bare `pip` is another environment's where this one was not activated.
    return (
        "the programs of the demo need an extra that is not installed here; "
        f"get it with: {shlex.quote(sys.executable)} -m pip install 'trio-lifecycle[{extras}]'"
    )


def _enter(name: str, program: str) -> int:
    if lacks_extra():
        print(f"{name}: {advice('demo')}", file=sys.stderr)
        return _WRONG_USE
    try:
        # Here, for without the extra it can't be imported.
        status: int = importlib.import_module(f"trio_lifecycle.demo.{program}").main()
    except KeyboardInterrupt:
        # It takes a while to import all that, and who has waited enough needs no traceback.
        return _INTERRUPTED
    return status


def keeper() -> int:
    """Be rbee-keeper."""
    return _enter("rbee-keeper", "keeper")


def queen() -> int:
    """Be queen-rbee."""
    return _enter("queen-rbee", "queen")


def hive() -> int:
    """Be rbee-hive."""
    return _enter("rbee-hive", "hive")


def worker() -> int:
    """Be llm-worker-rbee."""
    return _enter("llm-worker-rbee", "worker")


def embedding_worker() -> int:
    """Be embedding-worker-rbee."""
    return _enter("embedding-worker-rbee", "embedding_worker")
