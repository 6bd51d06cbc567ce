"""Where a program is: the first of its name that can be started."""

import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from stat import S_IWOTH
from typing import NamedTuple

from trio_lifecycle._errors import BinaryNotFoundError, ConfigError
from trio_lifecycle._executable import find_problem
from trio_lifecycle._paths import absolute


def find_binary(
    name: str, search_path: Iterable[str | os.PathLike[str]] = (), *, path: str | None = None
) -> str:
    """Find a program that can be started, and give its absolute path.

    A name with a slash is a path, from the current directory on. Any other name is looked for in
    ``search_path``, then beside the running interpreter (what is installed in a virtual environment
    is found although that is not activated), then in PATH. The first that can be started wins.
    Symbolic links stay in the result: many programs go by the name that they are called by.

    What only PATH names is used with care: not an empty or relative entry, which would mean the
    current directory, and not a directory that anyone can write in.

    Args:
        name: The program's name or path.
        search_path: Directories to look in first; relative ones count from the current directory.
        path: What to use for PATH. Defaults to that of the environment.

    Returns:
        The path. What only a binfmt_misc handler starts (a jar, a program for another processor) is
        no program here: give its interpreter as the name, and the file as an argument.

    Raises:
        BinaryNotFoundError: There is none; says where it was looked for, and what was found there
            that can't be started, with the reason.
        ConfigError: ``name`` is empty or holds a NUL, ``search_path`` is no list of directories, or
            one of them is relative and the current directory is gone.
    """
    places = _places(_checked_name(name), _checked_directories(search_path), path)
    searched, near_misses = [], []
    for place in places:
        searched.append(str(place.path))
        try:
            problem = place.problem()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            if not place.asked_for:
                continue
            problem = f"can't be looked at: {error.strerror}"
        if problem is None:
            return str(place.path)
        near_misses.append(f"{place.path} {problem}")
    raise BinaryNotFoundError(name, tuple(searched), tuple(near_misses))


class _Place(NamedTuple):
    """Where a program could be.

    Attributes:
        path: The file.
        asked_for: True when more than PATH names the directory.
    """

    path: Path
    asked_for: bool

    def problem(self) -> str | None:
        """Say why what is there can't be used.

        Raises:
            FileNotFoundError: Nothing is there.
            NotADirectoryError: Not even a directory for it.
            OSError: It can't be looked at.
        """
        self.path.lstat()
        if not self.asked_for and self.path.parent.stat().st_mode & S_IWOTH:
            return "is in a directory that anyone can write in"
        try:
            return find_problem(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return "is a symbolic link to what is not there"


def _places(name: str, search_path: list[Path], path: str | None) -> Iterator[_Place]:
    """Give where a program could be, one after the other, each file once."""
    if "/" in name:
        yield _Place(absolute("binary_name", name), asked_for=True)
        return
    seen = dict.fromkeys([*search_path, *_beside_interpreter()])
    for directory in seen:
        yield _Place(directory / name, asked_for=True)
    entries = os.environ.get("PATH", "") if path is None else path
    for entry in filter(os.path.isabs, entries.split(os.pathsep)):
        if Path(entry) not in seen:
            seen[Path(entry)] = None
            yield _Place(Path(entry, name), asked_for=False)


def _beside_interpreter() -> list[Path]:
    return [_scripts(), *([Path(sys.executable).parent] if sys.executable else [])]


@cache
def _scripts() -> Path:
    # Not at the top: it takes 0.7 ms, and only programs that start something need it.
    import sysconfig

    return Path(sysconfig.get_path("scripts"))


def _checked_name(name: object) -> str:
    if isinstance(name, str) and name and "\0" not in name:
        return name
    raise ConfigError("binary_name", f"must be a program's name or path, not {name!r}")


def _checked_directories(directories: object) -> list[Path]:
    # A lone string would be taken for a list of one-letter directories.
    if isinstance(directories, Iterable) and not isinstance(directories, (str, bytes)):
        return [_checked_directory(directory) for directory in directories]
    raise ConfigError("search_path", f"must be a list of directories, not {directories!r}")


def _checked_directory(directory: object) -> Path:
    if isinstance(directory, (str, os.PathLike)):
        path = os.fspath(directory)
        if isinstance(path, str) and path and "\0" not in path:
            return absolute("search_path", path)
    raise ConfigError("search_path", f"{directory!r} is no directory's path")
