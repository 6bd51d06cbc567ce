"""The way in from a shell: ``trio-lifecycle``, also as ``python -m trio_lifecycle``."""

import importlib.util
import os
import shlex
import signal
import sys

# What the extra `cli` brings, and what is said without it. A bare `pip` is another environment's
# where this one was not activated.
_NEEDED = ("cyclopts", "rich")
_ADVICE = (
    "trio-lifecycle: the command line is an extra that is not installed here; "
    f"get it with: {shlex.quote(sys.executable)} -m pip install 'trio-lifecycle[cli]'"
)
_WRONG_USE = 2


def main() -> int:
    """Run the command line.

    Returns:
        The exit status.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # An exception would show a traceback, or be lost in a callback of the import system. What
        # starts something listens by itself.
        signal.signal(signal.SIGINT, _leave)
    if any(importlib.util.find_spec(name) is None for name in _NEEDED):
        print(_ADVICE, file=sys.stderr)
        return _WRONG_USE
    # Here, because importing the package must not load what only a shell needs.
    from trio_lifecycle._cli._app import run_app

    return run_app(sys.argv[1:])


def _leave(_signum: int, _frame: object) -> None:
    os._exit(128 + signal.SIGINT)


if __name__ == "__main__":
    sys.exit(main())
