"""Where files that outlive a program are kept."""

import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from trio_lifecycle._errors import ConfigError


def state_dir(environ: Mapping[str, str]) -> Path:
    """Give the directory for state.

    ``$XDG_STATE_HOME/trio-lifecycle``, else ``~/.local/state/trio-lifecycle``.

    A relative XDG_STATE_HOME is ignored, as the XDG Base Directory Specification wants it.
    """
    given = Path(environ.get("XDG_STATE_HOME", ""))
    base = given if given.is_absolute() else _home(environ) / ".local/state"
    return base / "trio-lifecycle"


def _home(environ: Mapping[str, str]) -> Path:
    given = Path(environ.get("HOME", ""))
    # Not Path.home(), which takes any HOME for one.
    home = given if given.is_absolute() else _home_of_user()
    if not home.is_absolute():
        raise ConfigError("state directory", "this user has no home directory; set XDG_STATE_HOME")
    return home


def _home_of_user() -> Path:
    try:
        return Path(pwd.getpwuid(os.geteuid()).pw_dir)
    except KeyError:  # as in a container that runs under any number
        return Path()


def log_path(environ: Mapping[str, str], name: str, directory: Path | None = None) -> Path:
    """Give the log file of a detached daemon of this name.

    Args:
        environ: The environment.
        name: The daemon's name.
        directory: Where it is. Defaults to ``logs`` in the state directory.
    """
    return (directory or state_dir(environ) / "logs") / f"{name}.log"


def registry_path(environ: Mapping[str, str]) -> Path:
    """Give the database of this user's daemons."""
    return state_dir(environ) / "registry.sqlite"


def make_private(directory: Path) -> None:
    """Make a directory that only its owner can use, and refuse one that others could have prepared.

    Raises:
        ConfigError: It belongs to somebody else, or others may write in it or exchange it.
        OSError: It can't be made.
    """
    _check_above(directory)
    # Not by mkdir(parents=True), which makes the parents with the mode that the umask leaves.
    missing = [path for path in (directory, *directory.parents) if not os.path.lexists(path)]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(
            "state directory",
            f"{directory} is a link or no directory; remove it, or set XDG_STATE_HOME",
        )
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise ConfigError(
            "state directory",
            f"{directory} belongs to somebody else or can be written by others; "
            "make it yours and mode 0700, or use a directory of your own",
        )


def _check_above(directory: Path) -> None:
    """Refuse a directory that anybody could exchange for another.

    sshd (StrictModes) wants more: that whatever is above belongs to root or the user, and that no
    group can write it. A home that its user's own group can write is common, and so is a container
    whose / belongs to nobody that it knows. What everybody can write is a mistake, unless it is
    sticky, as /tmp is: there nobody can rename what is another's.
    """
    for above in dict.fromkeys(_all_above(directory)):
        try:
            mode = above.stat().st_mode
        except FileNotFoundError:
            continue
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise ConfigError(
                "state directory",
                f"{directory} could be exchanged by anybody, for {above} can be written by all; "
                f"chmod o-w {above}, or use another directory",
            )


def _all_above(directory: Path) -> Iterator[Path]:
    """Give the directories above, as they are named, and as they are behind links."""
    yield from directory.parents
    above = Path(os.path.realpath(directory.parent))
    yield from (above, *above.parents)
