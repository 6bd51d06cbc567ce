"""The way in from a shell: ``trio-lifecycle``, also as ``python -m trio_lifecycle``."""

import importlib.util
import signal
import sys

# What the extra `cli` brings, and what is said without it.
_NEEDED = ("cyclopts", "rich")
_ADVICE = (
    "trio-lifecycle: the command line is an extra that is not installed here; "
    "get it with: pip install 'trio-lifecycle[cli]'"
)
_WRONG_USE = 2


def main() -> int:
    """Run the command line.

    Returns:
        The exit status.
    """
    try:
        if any(importlib.util.find_spec(name) is None for name in _NEEDED):
            print(_ADVICE, file=sys.stderr)
            return _WRONG_USE
        # Here, because importing the package must not load what only a shell needs.
        from trio_lifecycle._cli._app import run_app

        return run_app(sys.argv[1:])
    except KeyboardInterrupt:
        # A Ctrl-C while this is being imported: nothing was started yet.
        return 128 + signal.SIGINT


if __name__ == "__main__":
    sys.exit(main())
