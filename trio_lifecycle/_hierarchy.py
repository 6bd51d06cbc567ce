"""The hierarchy of control groups (cgroup v2): where it can be seen, and where in it we are."""

import os
import re
from pathlib import Path
from typing import Final

from attrs import frozen

from trio_lifecycle._procfs import read_about

# mountinfo writes space, tab, newline and backslash so: proc_pid_mountinfo(5).
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


@frozen
class Mount:
    """A place where the hierarchy of cgroup v2 can be seen.

    Attributes:
        root: The group that is seen at the top.
        point: Where it is mounted.
    """

    root: str
    point: Path

    def directory_of(self, group: str) -> Path | None:
        """Give the directory of a group, such as ``/user.slice``; None if it is not to be seen."""
        root, parts = self.root.rstrip("/"), group.split("/")
        if ".." in parts or not f"{group.rstrip('/')}/".startswith(f"{root}/"):
            return None
        return self.point / group.removeprefix(root).strip("/")


def mounts_in(mountinfo: str) -> list[Mount]:
    """Find the mounts of cgroup v2 in the text of /proc/self/mountinfo."""
    found = []
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if after.split(" ")[0] == "cgroup2" and len(fields) > 4:
            root, point = (_OCTAL.sub(_character, field) for field in fields[3:5])
            found.append(Mount(root, Path(point)))
    return found


def _character(found: "re.Match[str]") -> str:
    return chr(int(found[1], 8))


def group_in(memberships: str) -> str | None:
    """Find the group of cgroup v2 in the text of /proc/self/cgroup."""
    lines = memberships.splitlines()
    return next((line.removeprefix("0::") for line in lines if line.startswith("0::")), None)


def own_mounts() -> list[Mount]:
    """Find where this program sees the hierarchy."""
    # Paths are bytes; what is no text of ours comes back from the system as it went in.
    return mounts_in(os.fsdecode(read_about("self", "mountinfo") or b""))


def own_group() -> str | None:
    """Find the group of this program; None where there is no cgroup v2."""
    return group_in(os.fsdecode(read_about("self", "cgroup") or b""))
