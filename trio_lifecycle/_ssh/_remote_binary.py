"""Where a program is on another machine: the first of its name that can be started."""

import posixpath
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from trio_lifecycle._errors import ConfigError
from trio_lifecycle._ssh._host_facts import HostFacts, split
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError
from trio_lifecycle._ssh_errors import RemoteBinaryNotFoundError


class RemoteBinary(NamedTuple):
    """A program that can be started there.

    Attributes:
        path: Its absolute path. Symbolic links stay in it: many programs go by the name that they
            are called by.
        resolved: The file behind all links, as the kernel will name it.
    """

    path: str
    resolved: str


async def find_binary(
    line: Line, host: str, name: str, search_path: Iterable[str] = ()
) -> RemoteBinary:
    """Find a program that can be started there, in one question.

    The rules are those of ``trio_lifecycle._binary.find_binary``, with two differences: a relative
    path counts from the login directory, and nothing is looked for beside this interpreter, which
    is not there. PATH is that of the login.

    Args:
        line: The machine.
        host: How it is called in an error.
        name: The program's name or path.
        search_path: Directories to look in first.

    Raises:
        RemoteBinaryNotFoundError: There is none.
        ConfigError: ``name`` or a directory is empty or holds a NUL.
        LostError: It can't be told.
    """
    places = list(_places(line.facts, _checked(name, "binary_name"), search_path))
    words = [
        word for place in places for word in ("asked" if place.asked_for else "path", place.path)
    ]
    looked = await line.run("tl_find_binary", *words)
    try:
        found = split(looked.output)
    except ValueError as error:
        raise LostError(f"its answer makes no sense ({error})") from error
    searched, near_misses = [], []
    for place, kind, said in zip(places, found[::2], found[1::2], strict=False):
        searched.append(place.path)
        if kind == "found":
            return RemoteBinary(place.path, said)
        if kind == "miss":
            near_misses.append(f"{place.path} {said}")
    if len(found) != 2 * len(places):
        raise LostError("its files can't be looked at now")
    raise RemoteBinaryNotFoundError(name, tuple(searched), tuple(near_misses), host)


class _Place(NamedTuple):
    """Where a program could be.

    Attributes:
        path: The file.
        asked_for: True when more than PATH names the directory.
    """

    path: str
    asked_for: bool


def _places(facts: HostFacts, name: str, search_path: Iterable[str]) -> Iterator[_Place]:
    """Give where a program could be, one after the other, each file once."""
    if "/" in name:
        yield _Place(_absolute(facts, name), asked_for=True)
        return
    asked = [_absolute(facts, _checked(each, "search_path")) for each in search_path]
    seen = dict.fromkeys(asked)
    for directory in seen:
        yield _Place(posixpath.join(directory, name), asked_for=True)
    for entry in filter(posixpath.isabs, facts.path.split(":")):
        directory = _absolute(facts, entry)
        if directory not in seen:
            seen[directory] = None
            yield _Place(posixpath.join(directory, name), asked_for=False)


def _absolute(facts: HostFacts, path: str) -> str:
    """Complete a path, with no "." and no doubled slash in it; ".." stays, for links."""
    parts = posixpath.join(facts.login_dir, path).split("/")
    return "/" + "/".join(part for part in parts if part not in ("", "."))


def _checked(path: str, field: str) -> str:
    if path and "\0" not in path:
        return path
    raise ConfigError(field, f"must be a path without NUL, not {path!r}")
