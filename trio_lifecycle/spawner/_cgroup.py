"""Control groups: what no process of a daemon gets out of by forking or ``setsid``.

The kernel's own description is cgroups(7) and "Control Group v2" in its Admin Guide.
"""

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from attrs import frozen

from trio_lifecycle._hierarchy import own_group, own_mounts

_PREFIX: Final = "trio-lifecycle-"

# What gives an ordinary user a group of its own, on a machine with systemd.
_DELEGATE: Final = "run below: systemd-run --user --scope -p Delegate=yes"

# Of a group that is being removed under our eyes: its directory is gone, or only open still.
_GONE: Final = (errno.ENOENT, errno.ENODEV)


class CgroupUnavailable(Exception):  # noqa: N818 - no error of ours yet: who asks makes one of it
    """There is no place for a group; it says what is missing, and what to do.

    Args:
        reason: A sentence without its full stop.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# --- where ----------------------------------------------------------------------------------------


def find_parent() -> Path:
    """Find the directory below which this program may make groups: that of its own group.

    Nowhere else: a process may be moved only by who may write to the group above both places. It is
    tried by making a group there, and removing it.

    Raises:
        CgroupUnavailable: There is none.
    """
    mounts, group = own_mounts(), own_group()
    if not mounts or group is None:
        raise CgroupUnavailable("no cgroup v2 hierarchy is mounted")
    reasons = []
    for mount in mounts:
        directory = mount.directory_of(group)
        if directory is None:
            reasons.append(f"our group {group} is not to be seen at {mount.point}")
            continue
        try:
            _try(directory)
        except CgroupUnavailable as refusal:
            reasons.append(refusal.reason)
        else:
            return directory
    raise CgroupUnavailable("; ".join(reasons))


def _try(parent: Path) -> None:
    """Make a group that nothing is ever in, and look whether it has what we need."""
    with _probe(parent) as probe:
        if not (probe / "cgroup.kill").exists():
            raise CgroupUnavailable(
                f"groups in {parent} have no cgroup.kill: the kernel is older than 5.14"
            )
        kind = _read(probe / "cgroup.type").strip()
        if kind != "domain":
            raise CgroupUnavailable(
                f"groups in {parent} are threaded ({kind}); start this program in another one"
            )
        # To move a process takes both: where it goes, and what is above where it comes from.
        for file in (probe / "cgroup.procs", parent / "cgroup.procs"):
            if not os.access(file, os.W_OK):
                raise CgroupUnavailable(f"{file} is not writable; {_DELEGATE}")


@contextmanager
def _probe(parent: Path) -> Iterator[Path]:
    probe = parent / f"{_PREFIX}probe-{uuid.uuid4().hex}"
    try:
        probe.mkdir()
    except OSError as error:
        raise CgroupUnavailable(_explain(error, parent)) from error
    try:
        yield probe
    finally:
        probe.rmdir()


def _explain(error: OSError, parent: Path) -> str:
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return f"no group may be made in {parent}; {_DELEGATE}"
        case errno.EROFS:
            return f"{parent} is mounted read-only; mount the cgroup hierarchy writable"
        case errno.EAGAIN:
            return f"no more groups may be made in {parent} (cgroup.max.descendants or .depth)"
    return f"no group can be made in {parent}: {error.strerror}"


# --- one group ------------------------------------------------------------------------------------


@frozen
class Cgroup:
    """A group for the processes of one instance, with what they make below it.

    Attributes:
        path: Its directory.
    """

    path: Path

    @classmethod
    def make(cls, parent: Path, instance_id: str) -> "Cgroup":
        """Make a group that nothing is in yet.

        Raises:
            CgroupUnavailable: It can't be made, or there is one already.
        """
        path = parent / f"{_PREFIX}{instance_id}"
        try:
            path.mkdir()
        except OSError as error:
            raise CgroupUnavailable(_explain(error, parent)) from error
        return cls(path)

    @property
    def procs_file(self) -> str:
        """The file by which a process joins: it writes its number there, or 0 for itself."""
        return str(self.path / "cgroup.procs")

    @property
    def populated(self) -> bool:
        """Whether a process lives in it or below; zombies don't count."""
        try:
            events = _read(self.path / "cgroup.events")
        except OSError as error:
            if error.errno in _GONE:
                return False
            raise
        return "populated 1" in events.splitlines()

    def pids(self) -> list[int]:
        """List who lives in it, and then who lives below it."""
        found: dict[int, None] = {}
        for directory in reversed(self._directories()):
            try:
                found |= dict.fromkeys(map(int, _read(directory / "cgroup.procs").split()))
            except OSError as error:
                # What is threaded has its processes listed in the group above it.
                if error.errno not in (*_GONE, errno.EOPNOTSUPP):
                    raise
        # 0 is who can't be seen from our pid namespace.
        return [pid for pid in found if pid]

    def kill(self) -> None:
        """Send SIGKILL to all at once, also to those that are just being forked."""
        try:
            fd = os.open(self.path / "cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            os.write(fd, b"1")
        except OSError as error:
            if error.errno not in _GONE:
                raise
        finally:
            os.close(fd)

    def remove(self) -> bool:
        """Remove it, with all groups below.

        Returns:
            True when it is gone, also if it was before; False when something still lives in it.
        """
        for directory in self._directories():
            try:
                directory.rmdir()
            except OSError as error:
                # ENOTEMPTY: a group was made there since we looked.
                if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                    return False
                if error.errno not in _GONE:
                    raise
        return True

    def _directories(self) -> list[Path]:
        """List its directory and those below it, the deepest first."""
        walk = os.walk(self.path, topdown=False, onerror=_insist)
        return [Path(directory) for directory, _, _ in walk]


def _insist(error: OSError) -> None:
    # By itself os.walk takes what it can't look at for empty.
    if error.errno not in _GONE:
        raise error


def _read(file: Path) -> str:
    return file.read_text(encoding="ascii")
