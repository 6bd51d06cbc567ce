"""Copies of this machine's files on another one: what stands there, and what is done for them."""

import posixpath
import re
import secrets
import shlex
from pathlib import Path
from typing import Final, NamedTuple

from trio_lifecycle._ssh._host_facts import split
from trio_lifecycle._ssh._line import Line
from trio_lifecycle._ssh._session import LostError, Session

# Of this size a digest takes a tenth of a second, so others need not wait for it.
QUICK_BYTES: Final = 16_777_216

_SCRIPT: Final = "looks_copies.sh"
_DIGEST: Final = re.compile("[0-9a-f]{64}", re.ASCII)

_TOKEN_BYTES: Final = 16

# Of the 255 bytes that a file system takes for a name, the shell's name has up to 80.
_MOST_NAME_BYTES: Final = 140
_WORD_BYTES: Final = 8

# A digest with its tokens has a few hundred, and stands at the end of all that is said.
_MOST_BYTES: Final = 65_536


class Standing(NamedTuple):
    """What stands where a copy shall stand.

    Attributes:
        is_there: Whether there is a regular file.
        mode: Its permissions, where it has the right size; else None.
        digest: Its digest, where that was looked at, too.
    """

    is_there: bool
    mode: int | None = None
    digest: str | None = None


async def compare(line: Line, path: str, size: int) -> Standing:
    """Look at what stands where a file of this many bytes shall stand.

    Raises:
        OSError: It may not be looked at, or is no regular file.
        LostError: It can't be told.
    """
    kind, *said = await _say(line, "tl_compare", path, size, QUICK_BYTES)
    if kind == "unknown":
        raise OSError(said[0])
    if kind in ("directory", "special"):
        raise OSError(f"what stands there is {'a directory' if kind == 'directory' else 'no file'}")
    if kind != "alike":
        return Standing(is_there=kind == "other")
    mode = int(said[0], 8)
    return Standing(True, mode, _digest_in(said[1]) if said[1:] else None)


async def quick_digest(line: Line, path: str) -> str | None:
    """Give the digest of a small file; None where no program for it is there.

    Raises:
        LostError: It can't be told.
    """
    return _digest_in(*await _say(line, "tl_digest", path))


async def digest_alone(session: Session, path: str) -> str | None:
    """Give the digest of a file that may be large; None where no program for it is there.

    Args:
        session: It runs ``sh -s``; nothing was sent yet. Closing it ends the work there.
        path: The file.

    Raises:
        LostError: It can't be told.
    """
    token = secrets.token_hex(_TOKEN_BYTES)
    ask = f"tl_digest_until_closed {shlex.quote(path)}"
    script = (Path(__file__).parent / _SCRIPT).read_text()
    text = f"{script}\nprintf '%s(' {token}; {ask}; printf ')%s\\n' {token}; exit\n"
    await session.send(text.encode(errors="surrogateescape"))
    said = b""
    while data := await session.receive():
        said = (said + data)[-_MOST_BYTES:]
    found = re.search(f"{token}\\((.*?)\\){token}\n".encode(), said, re.DOTALL)
    if found is None:
        raise LostError(f"its shell has ended: {session.complaints().strip()}")
    return _digest_in(found[1].decode(errors="replace"))


async def begin_copy(line: Line, path: str) -> str:
    """Give a file beside a path, in which to write what shall stand there.

    Makes the directory, and those above it, where they are missing. The file is not made; it is
    removed when the line ends. What such files were left there by lines that could not is removed.

    Raises:
        OSError: The directory is not to be had.
        LostError: It can't be told.
    """
    directory, name = posixpath.split(path)
    shown = name.encode(errors="surrogateescape")[:_MOST_NAME_BYTES].decode(errors="ignore")
    word = secrets.token_hex(_WORD_BYTES)
    kind, said = await _say(line, "tl_begin_copy", directory, shown, word)
    if kind != "is":
        raise OSError(said)
    return said


async def make_executable(line: Line, path: str, bits: int) -> None:
    """Add permissions to execute a file.

    Raises:
        OSError: That is not allowed.
        LostError: It can't be told.
    """
    who = (name for name, bit in zip("ugo", (0o100, 0o010, 0o001), strict=True) if bits & bit)
    await _do(line, "tl_change_mode", path, f"{''.join(who)}+x")


async def free_bytes(line: Line, directory: str) -> int | None:
    """Say how much more the disk of a directory takes; None where that can't be told.

    Raises:
        LostError: It can't be told now.
    """
    (said,) = await _say(line, "tl_room", directory)
    found = re.fullmatch(r"([0-9]+) ([0-9]+)", said)
    return int(found[1]) * int(found[2]) if found else None


async def _do(line: Line, look: str, *args: str) -> None:
    kind, *said = await _say(line, look, *args)
    if kind != "is":
        raise OSError(*said)


async def _say(line: Line, look: str, *args: str | int) -> list[str]:
    try:
        said = split((await line.run(look, *args)).output)
    except ValueError as error:
        raise LostError(f"its answer makes no sense ({error})") from error
    if not said:
        raise LostError("it has no answer now")
    return said


def _digest_in(said: str) -> str | None:
    found = _DIGEST.search(said)
    return None if found is None else found[0]
