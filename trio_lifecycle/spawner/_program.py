"""Which program a process runs."""

import os
from pathlib import Path
from typing import Final

from trio_lifecycle._procfs import link, namespace, opened, read_about

# What the kernel adds to the name of a file that was removed, or put in another's place by an
# upgrade: proc_pid_exe(5).
_DELETED: Final = " (deleted)"


def runs(pid: int, program: str) -> bool | None:
    """Say whether a process runs a program's file, as ``Process.runs`` does.

    The caller sees to it that the number still is the process's.
    """
    exe = link(pid, "exe")
    if exe is None:
        return None
    wanted = os.path.realpath(program)
    if _is_same(opened(pid, "exe"), _stat(wanted)):
        return True
    if namespace(pid, "mnt") != namespace("self", "mnt"):
        # Its paths lead to other files, as in a container.
        return False
    is_replaced = exe.endswith(_DELETED) and wanted == exe.removesuffix(_DELETED)
    return is_replaced or (_may_be_script(wanted) and _is_an_argument(pid, wanted))


def _is_an_argument(pid: int, wanted: str) -> bool:
    """Look for a script: after its interpreter, and perhaps an option of its #! line."""
    directory = link(pid, "cwd")
    arguments = [*map(os.fsdecode, (read_about(pid, "cmdline") or b"").split(b"\0")), "", ""]
    looked_at = arguments[: 3 if arguments[1].startswith("-") else 2]
    for argument in filter(None, looked_at):
        if argument.startswith("/") or directory is not None:
            path = os.path.join(directory or "", argument)  # noqa: PTH118  # as the kernel joins
            if os.path.realpath(path) == wanted or _is_same(_stat(path), _stat(wanted)):
                return True
    return False


def _may_be_script(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return file.read(2) == b"#!"
    except OSError:
        return True


def _stat(path: str) -> os.stat_result | None:
    try:
        return Path(path).stat()
    except (OSError, ValueError):
        return None


def _is_same(one: os.stat_result | None, other: os.stat_result | None) -> bool:
    return one is not None and other is not None and os.path.samestat(one, other)
