"""A check that a file is there and can be read."""

import os
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Final

from attrs import field, frozen

from trio_lifecycle.abc import Preflight, Prober
from trio_lifecycle.preflight import _values
from trio_lifecycle.preflight._elsewhere import Elsewhere, Told
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
        self._judge(await in_thread(find_problem, self.path, self.min_bytes))

    def at(self, prober: Prober) -> Preflight:
        """Give the check of a file of the prober's machine, by its shell's user."""
        return Elsewhere(
            self,
            prober,
            ("file_at", str(self.path)),
            f"whether {self.path} is there",
            judge=lambda told: self._judge(_find_problem_told(told, self.min_bytes)),
        )

    def _judge(self, problem: str | None) -> None:
        if problem is not None:
            raise CheckFailed(f"{self.path} {problem}")


def find_problem(path: Path, min_bytes: int) -> str | None:
    """Say what is wrong with a file, as the end of a sentence that begins with its path."""
    try:
        facts = path.stat()
        if S_ISDIR(facts.st_mode):
            return _DIRECTORY
        if not S_ISREG(facts.st_mode):
            return _NOT_REGULAR
        # What stat(2) shows may be closed all the same; only open(2) knows.
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError):
        return _describe_missing(path)
    except PermissionError:
        return _forbidden(os.geteuid())
    except OSError as error:
        return f"can't be read: {error.strerror}"
    return _find_shortage(facts.st_size, min_bytes)


def _find_problem_told(told: Told, min_bytes: int) -> str | None:
    """Read the same out of the answer of another machine."""
    problem, kind = told.get("problem"), told.get("kind")
    if problem == "Permission denied":
        return _forbidden(told.get("uid") or "there")
    match kind if problem is None else None:
        case "directory":
            return _DIRECTORY
        case "other":
            return _NOT_REGULAR
        case "absent":
            return _missing(told.get("link"), told.get("nearest") or "/", told.get("parent") or "/")
        case "file":
            return _find_shortage(int(told.get("size") or 0), min_bytes)
    return f"can't be read: {problem or 'no reason is given'}"


def _describe_missing(path: Path) -> str:
    link = str(path.readlink()) if path.is_symlink() else None
    absolute = path.absolute()
    return _missing(link, str(nearest(absolute)), str(absolute.parent))


# --- what is said, wherever the file is -----------------------------------------------------------

_DIRECTORY: Final = "is a directory: name a file in it"
_NOT_REGULAR: Final = "is no regular file"


def _forbidden(user: int | str) -> str:
    return f"may not be read by user {user}: mend the rights of it and its directories"


def _find_shortage(size: int, min_bytes: int) -> str | None:
    if size >= min_bytes:
        return None
    return (
        f"has {size:,} bytes, and should have {min_bytes:,} at least: it was not written to its end"
    )


def _missing(link: str | None, nearest_there: str, parent: str) -> str:
    if link is not None:
        return f"is a link to {link}, which is missing"
    if nearest_there == parent:
        return "is missing: put it there, or mend the path"
    return f"is missing, and so is its directory: of its path there is only {nearest_there}"


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
