"""The script that makes a session become the guard."""

import shlex
from importlib.util import find_spec
from typing import Final

# The files that make up the program, parts first.
PARTS: Final = tuple(
    f"trio_lifecycle.{part}"
    for part in (
        *("_renumbering", "spawner._kernel", "spawner._family", "spawner._table"),
        *("_ssh.guard_child", "_ssh.guard_kin", "_ssh.guard_channel"),
        *("_ssh.guard_letters", "_ssh.guard_inner", "_ssh.guard"),
    )
)

# The comment is for who reads a list of processes.
_BOOTSTRAP: Final = """\
# trio_lifecycle/_ssh/guard.py: ends daemons when the connection is gone
import sys
if sys.version_info < (3, 7):
    sys.exit("Python %d.%d is too old; it needs 3.7" % sys.version_info[:2])
for name, code in {parts!r}:
    module = sys.modules[name] = type(sys)(name)
    exec(compile(code, name, "exec"), module.__dict__)
module.main()
"""


# Nothing of the machine's own is needed, nor wanted.
_OPTIONS: Final = ("-I", "-S")


def guard_script(python: str, token: str, limit_s: float) -> bytes:
    """Give it: a shell reads it from its standard input, and becomes the guard.

    Args:
        python: The interpreter there, 3.7 or later.
        token: What its greeting begins with.
        limit_s: How long it waits for a heartbeat.
    """
    program = _BOOTSTRAP.format(parts=[(name, _source(name)) for name in PARTS])
    command = [python, *_OPTIONS, "-c", program, token, repr(limit_s)]
    return f"exec {shlex.join(command)}\n".encode("utf-8", "surrogateescape")


def _source(name: str) -> str:
    spec = find_spec(name)
    source = spec and spec.loader and getattr(spec.loader, "get_source", lambda _: None)(name)
    if not isinstance(source, str):
        raise RuntimeError(f"the source of {name} can't be found, which the guard needs")
    return source
