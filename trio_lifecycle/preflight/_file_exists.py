"""A check that a file is there and can be read."""

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from attrs import field, frozen

from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._failure import CheckFailed
from trio_lifecycle.preflight._thread import in_thread

# A disk that sleeps needs some 10 s to spin up.
DEFAULT_CHECK_TIMEOUT_S: Final = 15.0


@frozen(repr=False)
class FileExists:
    """A regular file is there, links followed, and this user may read it.

    It is opened, and nothing of it is read. A daemon that runs as another ``user`` may have other
    rights.

    Attributes:
        path: The file. A relative path counts from the current directory of this program, not from
            the daemon's.
        min_bytes: How large it is at least. Defaults to 0. A download that broke off is there, too.
        check_timeout: Seconds that the check may take. Defaults to 15. With less than 10, a disk
            that sleeps is taken for one that is dead.

    Raises:
        ConfigError: A value can't be meant. The message names the field.
    """

    path: Path = field(converter=_values.path)
    min_bytes: int = field(default=0, validator=_values.is_whole)
    check_timeout: float = field(
        default=DEFAULT_CHECK_TIMEOUT_S, converter=_values.check_timeout, kw_only=True
    )

    def __repr__(self) -> str:
        return _values.brief(self)

    async def __call__(self) -> None:
        """Look at the file.

        Raises:
            CheckFailed: It is missing, no file, not readable or too small.
        """
        problem = await in_thread(find_problem, self.path, self.min_bytes)
        if problem is not None:
            raise CheckFailed(f"{self.path} {problem}")


def find_problem(path: Path, min_bytes: int) -> str | None:
    """Say what is wrong with a file, as the end of a sentence that begins with its path."""
    try:
        facts = path.stat()
        if S_ISDIR(facts.st_mode):
            return "is a directory: name a file in it"
        if not S_ISREG(facts.st_mode):
            return "is no regular file"
        # What stat(2) shows may be closed all the same; only open(2) knows.
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return _describe_missing(path)
    except PermissionError:
        user = os.geteuid()
        return f"may not be read by user {user}: mend the rights of it and its directories"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    if facts.st_size < min_bytes:
        return (
            f"has {facts.st_size:,} bytes, and should have {min_bytes:,} at least: "
            "it was not written to its end"
        )
    return None


def _describe_missing(path: Path) -> str:
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which is missing"
    parent = nearest(path.absolute())
    if parent == path.absolute().parent:
        return "is missing: put it there, or mend the path"
    return f"is missing, and so is its directory: of its path there is only {parent}"


def nearest(path: Path) -> Path:
    """Give the path, or the nearest of the directories above it that is there.

    Raises:
        PermissionError: That can't be told: a directory may not be looked into.
    """
    for place in (path, *path.parents):
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return place
    return Path("/")
